//! One PTX entry per row of the quantiser's table; on the host functions of the same names.
#![allow(unexpected_cfgs, reason = "the names of entries stand in the quantiser's table")]
#![cfg_attr(
    selected,
    allow(unused_imports, unused_macros, reason = "the other tables' entries may be wanted")
)]

use super::{means::means, quantise, statistics::statistics, transpose::transpose};
use crate::entry::{entry, host_entries};
use fulgurite_gpu::element;
use fulgurite_spec::quantise::QuantiseParams;

/// What a kernel does for its step, element type and head dim.
macro_rules! step {
    (Statistics, $dtype:ident, $head_dim:literal, $params:ident) => {
        statistics::<element::$dtype, $head_dim>(&$params)
    };
    (Means, $dtype:ident, $head_dim:literal, $params:ident) => {
        means::<$head_dim>(&$params)
    };
    (Quantise, $dtype:ident, $head_dim:literal, $params:ident) => {
        quantise::<element::$dtype, $head_dim, { $head_dim / 32 }>(&$params)
    };
    (Transpose, $dtype:ident, $head_dim:literal, $params:ident) => {
        transpose::<$head_dim>(&$params)
    };
}

macro_rules! entries {
    ($($entry:ident: $step:ident, $dtype:ident, $head_dim:literal, $smem_bytes:expr;)*) => {
        $(entry! {
            /// The kernel of this name.
            ///
            /// # Safety
            /// Launched by the host crate's plan: grid, block, shared memory and parameters.
            $entry |params: QuantiseParams| {
                // SAFETY: the entry's contract is the kernel's.
                unsafe { step!($step, $dtype, $head_dim, params) }
            }
        })*

        host_entries!(QuantiseParams, "the quantiser's table": $($entry)*);
    };
}
fulgurite_spec::for_each_quantise!(entries);
