//! What kernels of every operation receive: one `#[repr(C)]` struct each, tensor maps first.

use core::mem::size_of;

/// A `CUtensorMap`: 128 opaque bytes that `cuTensorMapEncodeTiled` wrote.
///
/// Aligned to 16 bytes here because rustc's PTX target takes no more for a parameter; the builder
/// raises the parameter's alignment to the 64 bytes that TMA asks for.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap(pub [u64; 16]);

/// A tensor of the caller's that threads read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    /// Device address, 16-byte aligned.
    pub address: u64,
    /// Elements from one batch entry to the next; 0 if all are the same.
    pub batch_stride: u64,
    /// Elements from one head to the next.
    pub head_stride: u64,
    /// Elements from one row to the next.
    pub row_stride: u64,
}

/// Refuses offsets in a parameter at which TMA could not read a tensor map.
pub const fn assert_maps(offsets: &[usize]) {
    let mut i = 0;
    while i < offsets.len() {
        assert!(offsets[i].is_multiple_of(64), "TMA reads maps at multiples of 64 bytes");
        i += 1;
    }
}

const _: () = assert!(size_of::<TensorMap>() == 128);
