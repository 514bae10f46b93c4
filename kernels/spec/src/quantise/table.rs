//! The table of the quantiser's kernels: found by step, dtype and head dim. Means have the dtype
//! of the sums that they are made of.

use super::{QuantiseRow, Step};
use crate::dtype::Dtype;

/// Calls the macro `$with` once with every row: `entry: step, dtype, head dim, shared bytes;`.
#[macro_export]
macro_rules! for_each_quantise {
    ($with:ident) => {
        $with! {
            statistics_bf16_d64: Statistics, Bf16, 64, 24_576;
            statistics_f16_d64: Statistics, F16, 64, 24_576;
            means_d64: Means, F32, 64, 1024;
            quantise_bf16_d64: Quantise, Bf16, 64, 128;
            quantise_f16_d64: Quantise, F16, 64, 128;
            transpose_e4m3_d64: Transpose, E4m3, 64, 0;
            statistics_bf16_d96: Statistics, Bf16, 96, 24_576;
            statistics_f16_d96: Statistics, F16, 96, 24_576;
            means_d96: Means, F32, 96, 1024;
            quantise_bf16_d96: Quantise, Bf16, 96, 128;
            quantise_f16_d96: Quantise, F16, 96, 128;
            transpose_e4m3_d96: Transpose, E4m3, 96, 0;
            statistics_bf16_d128: Statistics, Bf16, 128, 24_576;
            statistics_f16_d128: Statistics, F16, 128, 24_576;
            means_d128: Means, F32, 128, 1024;
            quantise_bf16_d128: Quantise, Bf16, 128, 128;
            quantise_f16_d128: Quantise, F16, 128, 128;
            transpose_e4m3_d128: Transpose, E4m3, 128, 0;
            statistics_bf16_d192: Statistics, Bf16, 192, 24_576;
            statistics_f16_d192: Statistics, F16, 192, 24_576;
            means_d192: Means, F32, 192, 1024;
            quantise_bf16_d192: Quantise, Bf16, 192, 128;
            quantise_f16_d192: Quantise, F16, 192, 128;
            transpose_e4m3_d192: Transpose, E4m3, 192, 0;
            statistics_bf16_d256: Statistics, Bf16, 256, 24_576;
            statistics_f16_d256: Statistics, F16, 256, 24_576;
            means_d256: Means, F32, 256, 1024;
            quantise_bf16_d256: Quantise, Bf16, 256, 128;
            quantise_f16_d256: Quantise, F16, 256, 128;
            transpose_e4m3_d256: Transpose, E4m3, 256, 0;
        }
    };
}

macro_rules! table {
    ($($entry:ident: $step:ident, $dtype:ident, $head_dim:literal, $smem_bytes:expr;)*) => {
        /// Every kernel of the quantiser.
        pub const QUANTISE: &[QuantiseRow] = &[$(QuantiseRow {
            entry: stringify!($entry),
            step: Step::$step,
            dtype: Dtype::$dtype,
            head_dim: $head_dim,
            smem_bytes: $smem_bytes,
        }),*];
    };
}
crate::for_each_quantise!(table);
