//! What a forward kernel receives.

use core::mem::{offset_of, size_of};

use crate::{divisor::Divisor, mask::Ends, order::JobOrder, params::TensorMap};

/// Parameters of the forward kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FwdParams {
    /// Q as a 4-D tensor (head dim, row, head, batch); box: one panel of one warpgroup's rows.
    pub q: TensorMap,
    /// K as a 4-D tensor (head dim, row, KV head, batch); box: one panel of `kv_rows` rows.
    pub k: TensorMap,
    /// V, like K.
    pub v: TensorMap,
    /// Everything that is not read by TMA.
    pub scalars: FwdScalars,
    /// The numbers of the mask.
    pub ends: Ends,
}

/// Parameters of the forward kernels that copy Q, K and V themselves.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FwdMmaParams {
    /// Q.
    pub q: Source,
    /// K.
    pub k: Source,
    /// V.
    pub v: Source,
    /// Everything else.
    pub scalars: FwdScalars,
    /// Makes the size a multiple of the alignment, which is that of all kernels' parameters.
    pub unused: u64,
}

/// Where the elements of a tensor lie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    /// Device address of the first element, 16-byte aligned.
    pub address: u64,
    /// Elements from one row to the next, a multiple of 8, as all strides are.
    pub row_stride: u64,
    /// Elements from one head to the next.
    pub head_stride: u64,
    /// Elements from one batch entry to the next.
    pub batch_stride: u64,
}

/// The part of [`FwdParams`] that threads read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FwdScalars {
    /// Device address of the output, 16-byte aligned.
    pub out: u64,
    /// Elements from one output row (query) to the next.
    pub out_row_stride: u64,
    /// Elements from one output head to the next.
    pub out_head_stride: u64,
    /// Elements from one batch entry's output to the next.
    pub out_batch_stride: u64,
    /// Device address of the log-sum-exp `f32[batch, head, q_len]`, contiguous; 0: not wanted.
    pub lse: u64,
    /// Query rows.
    pub q_len: u32,
    /// Key rows; 0: no query tile has keys, so that there are no jobs.
    pub kv_len: u32,
    /// Columns of the tensors; the rest of the tile's head dim is padding.
    pub head_dim: u32,
    /// Query heads.
    pub head_count: Divisor,
    /// Query heads that share one KV head.
    pub group_size: Divisor,
    /// Softmax scale × log₂ e: scores become exponents of two.
    pub scale_log2: f32,
    /// The order of the jobs.
    pub order: JobOrder,
    /// For K and V: ANDed with the batch entry's index to find its coordinate. All bits, or none if
    /// all batch entries share one.
    pub kv_batch_masks: [u32; 2],
}

/// Parameters of the forward kernels of 8-bit elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fwd8Params {
    /// Q as a 4-D tensor (head dim, row, head, batch); box: one panel of one warpgroup's rows.
    pub q: TensorMap,
    /// K as a 4-D tensor (head dim, row, KV head, batch); box: one panel of `kv_rows` rows.
    pub k: TensorMap,
    /// V like K or, where it has 8 bits, transposed: (key, head dim, KV head, batch), keys permuted
    /// in groups of 16; box: one panel of all columns.
    pub v: TensorMap,
    /// Everything that is not read by TMA; `out` has elements of 16 bits.
    pub scalars: FwdScalars,
    /// What stored numbers are multiplied with, and what is added.
    pub quant: QuantScalars,
}

/// Scales and shifts of 8-bit elements. An address of 0: 1 in place of a scale, 0 of a shift.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantScalars {
    /// What q is multiplied with.
    pub q_scale: ScaleAddress,
    /// What k is multiplied with: `i8` has a scale for each KV tile, one behind another.
    pub k_scale: ScaleAddress,
    /// What v is multiplied with.
    pub v_scale: ScaleAddress,
    /// Device address of what each column of the output gets added, `f32[batch, KV head, tile's
    /// head dim]`, contiguous, batch entries as v has them.
    pub v_shift: u64,
    /// Device address of what each row's log-sum-exp gets added, `f32[batch, head, q_len]`,
    /// contiguous.
    pub q_shift: u64,
    /// Whether `q_scale` has one number for each row, of its query head; else for its KV head.
    pub q_scale_by_row: u32,
    /// Whether the output is f16; else it is bf16. Kernels with values of 16 bits have their type.
    pub out_is_f16: u32,
}

/// Where the scales of a tensor lie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleAddress {
    /// Device address of `f32`.
    pub address: u64,
    /// Floats from one batch entry of q to the next; 0 if all have the same.
    pub batch_stride: u64,
    /// Floats from one head to the next.
    pub head_stride: u64,
}

impl ScaleAddress {
    /// Where the first scale of a head lies.
    #[inline(always)]
    pub const fn at(&self, batch: u32, head: u32) -> u64 {
        self.address + 4 * (batch as u64 * self.batch_stride + head as u64 * self.head_stride)
    }
}

const _: () = {
    crate::params::assert_maps(&[
        offset_of!(FwdParams, q),
        offset_of!(FwdParams, k),
        offset_of!(FwdParams, v),
    ]);
    assert!(offset_of!(FwdParams, scalars) == 384);
    assert!(offset_of!(FwdScalars, lse) == 32);
    assert!(offset_of!(FwdScalars, q_len) == 40);
    assert!(offset_of!(FwdScalars, order) == 80);
    assert!(offset_of!(FwdScalars, kv_batch_masks) == 128);
    assert!(size_of::<FwdScalars>() == 136);
    // Without padding.
    assert!(offset_of!(FwdParams, ends) == 384 + size_of::<FwdScalars>());
    assert!(size_of::<FwdParams>() == 528);
    crate::params::assert_maps(&[
        offset_of!(Fwd8Params, q),
        offset_of!(Fwd8Params, k),
        offset_of!(Fwd8Params, v),
    ]);
    assert!(offset_of!(Fwd8Params, scalars) == offset_of!(FwdParams, scalars));
    assert!(offset_of!(Fwd8Params, quant) == 384 + size_of::<FwdScalars>());
    // Without padding.
    assert!(size_of::<QuantScalars>() == 3 * 24 + 16 + 8);
    assert!(size_of::<Fwd8Params>() == 624);
    assert!(offset_of!(Source, address) == 0 && size_of::<Source>() == 32);
    assert!(offset_of!(FwdMmaParams, scalars) == 3 * size_of::<Source>());
    assert!(size_of::<FwdMmaParams>() == 96 + size_of::<FwdScalars>() + 8);
};
