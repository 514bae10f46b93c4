//! Probes: kernels that use one primitive each, so that GPU and emulator can be compared bit for
//! bit. They are part of the tests and in no published crate.

use core::mem::{offset_of, size_of};

use crate::arch::Arch;
use crate::kernel::{Kernel, assert_sound};
use crate::launch::LaunchSpec;
use crate::params::{TensorMap, assert_maps};

/// Threads of a probe's one block.
pub const PROBE_THREADS: u32 = 128;

/// Bytes of shared memory for what a probe works on; its barriers follow.
pub const PROBE_DATA_BYTES: u32 = 40 << 10;

/// Dynamic shared memory of a probe's block.
pub const PROBE_SMEM_BYTES: u32 = PROBE_DATA_BYTES + 64;

/// Parameters of every probe; each uses what it needs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeParams {
    /// The tensor that boxes are loaded from.
    pub source: TensorMap,
    /// The tensor that boxes are stored to.
    pub target: TensorMap,
    /// Everything that is not read by TMA.
    pub scalars: ProbeScalars,
}

/// The part of [`ProbeParams`] that threads read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProbeScalars {
    /// Device address of the input, 16-byte aligned.
    pub input: u64,
    /// Device address of the output, 16-byte aligned.
    pub out: u64,
    /// Coordinates of a box.
    pub at: [u32; 4],
    /// Bytes of a box, a multiple of 16.
    pub box_bytes: u32,
    /// Makes the size a multiple of 16.
    pub unused: [u32; 3],
}

const _: () = {
    assert_maps(&[offset_of!(ProbeParams, source), offset_of!(ProbeParams, target)]);
    assert!(offset_of!(ProbeParams, scalars) == 256);
    assert!(size_of::<ProbeParams>() == 304);
};

/// Calls the macro `$with` once with every probe: `entry: function;`, the function being one of
/// the device crate's `probe` module.
#[macro_export]
macro_rules! for_each_probe {
    ($with:ident) => {
        $with! {
            probe_rounding: values::rounding;
            probe_exponentials: values::exponentials;
            probe_shuffles: values::shuffles;
            probe_exchange: memory::exchange;
            probe_matrices: memory::matrices::<false>;
            probe_matrices_transposed: memory::matrices::<true>;
            probe_named_barriers: barriers::named;
            probe_votes: barriers::votes;
            probe_mbarrier_phases: barriers::phases;
            probe_load: copies::load;
            probe_store: copies::store;
            probe_relay: copies::relay;
            probe_product_of_stores: products::of_stores;
            probe_product_bf16_n64: products::of_loads::<Bf16, 64>;
            probe_product_bf16_n80: products::of_loads::<Bf16, 80>;
            probe_product_bf16_n96: products::of_loads::<Bf16, 96>;
            probe_product_bf16_n112: products::of_loads::<Bf16, 112>;
            probe_product_bf16_n128: products::of_loads::<Bf16, 128>;
            probe_product_bf16_n144: products::of_loads::<Bf16, 144>;
            probe_product_bf16_n160: products::of_loads::<Bf16, 160>;
            probe_product_bf16_n176: products::of_loads::<Bf16, 176>;
            probe_product_bf16_n192: products::of_loads::<Bf16, 192>;
            probe_product_bf16_n256: products::of_loads::<Bf16, 256>;
            probe_product_f16_n64: products::of_loads::<F16, 64>;
            probe_product_f16_n80: products::of_loads::<F16, 80>;
            probe_product_f16_n96: products::of_loads::<F16, 96>;
            probe_product_f16_n112: products::of_loads::<F16, 112>;
            probe_product_f16_n128: products::of_loads::<F16, 128>;
            probe_product_f16_n144: products::of_loads::<F16, 144>;
            probe_product_f16_n160: products::of_loads::<F16, 160>;
            probe_product_f16_n176: products::of_loads::<F16, 176>;
            probe_product_f16_n192: products::of_loads::<F16, 192>;
            probe_product_f16_n256: products::of_loads::<F16, 256>;
            probe_thread_copies: warps::copies;
            probe_warp_product_bf16: warps::product::<Bf16>;
            probe_warp_product_f16: warps::product::<F16>;
            probe_bytes: bytes::conversions;
            probe_product_e4m3_n64: bytes::of_e4m3::<64, 128>;
            probe_product_e4m3_n96: bytes::of_e4m3::<96, 128>;
            probe_product_e4m3_n128: bytes::of_e4m3::<128, 128>;
            probe_product_e4m3_n160: bytes::of_e4m3::<160, 128>;
            probe_product_e4m3_n192: bytes::of_e4m3::<192, 128>;
            probe_product_e4m3_n224: bytes::of_e4m3::<224, 128>;
            probe_product_e4m3_n256: bytes::of_e4m3::<256, 128>;
            probe_product_e4m3_panel64: bytes::of_e4m3::<64, 64>;
            probe_product_e4m3_panel32: bytes::of_e4m3::<64, 32>;
            probe_product_s8_n64: bytes::of_s8::<64, 128>;
            probe_product_s8_n96: bytes::of_s8::<96, 128>;
            probe_product_s8_n128: bytes::of_s8::<128, 128>;
            probe_product_s8_n160: bytes::of_s8::<160, 128>;
            probe_product_s8_n192: bytes::of_s8::<192, 128>;
            probe_product_s8_n224: bytes::of_s8::<224, 128>;
            probe_product_s8_n256: bytes::of_s8::<256, 128>;
            probe_product_s8_panel64: bytes::of_s8::<64, 64>;
            probe_product_s8_panel32: bytes::of_s8::<64, 32>;
        }
    };
}

macro_rules! table {
    ($($entry:ident: $function:path;)*) => {
        /// The entry of every probe.
        pub const PROBES: &[&str] = &[$(stringify!($entry)),*];
    };
}
for_each_probe!(table);

/// The probes as kernels.
pub const PROBE_KERNELS: &[Kernel] = &{
    let launch = LaunchSpec {
        threads: PROBE_THREADS,
        blocks_per_sm: 1,
        smem_bytes: PROBE_SMEM_BYTES,
        producer_registers: 0,
        consumer_registers: 0,
    };
    let param_bytes = size_of::<ProbeParams>() as u32;
    let probe = Kernel { entry: "", arch: Arch::Sm90, family: "probe", param_bytes, launch };
    let mut kernels = [probe; PROBES.len()];
    let mut i = 0;
    while i < PROBES.len() {
        kernels[i].entry = PROBES[i];
        i += 1;
    }
    kernels
};

const _: () = assert_sound(PROBE_KERNELS);
