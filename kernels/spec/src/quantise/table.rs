//! The table of the quantiser's kernels.

use super::{QuantiseRow, Step};
use crate::dtype::Dtype;

/// Calls the macro `$with` once with every row: `entry: step, dtype, head dim, shared bytes;`.
#[macro_export]
macro_rules! for_each_quantise {
    ($with:ident) => {
        $with! {
            statistics_bf16_d64: Statistics, Bf16, 64, 0;
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
