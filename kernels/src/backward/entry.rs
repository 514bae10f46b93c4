//! One PTX entry per row of the backward's tables; on the host functions of the same names.
#![allow(unexpected_cfgs, reason = "the names of entries stand in the backward's tables")]
#![cfg_attr(
    selected,
    allow(unused_imports, unused_macros, reason = "the other tables' entries may be wanted")
)]

use super::{delta::delta, shape::Shape, sm90};
use crate::entry::{entry, host_entries};
use fulgurite_gpu::{element, tma::MapAddress};
use fulgurite_spec::backward::{BackwardRow, BwdParams, DeltaParams};
use fulgurite_spec::mask;

/// The entry of a name, in both tables.
#[cfg(not(target_arch = "nvptx64"))]
pub fn find(name: &str) -> Option<crate::entry::Entry> {
    first::find(name).or_else(|| others::find(name))
}

mod first {
    use super::*;

    macro_rules! entries {
        ($($entry:ident: $dtype:ident;)*) => {
            $(entry! {
                /// The kernel of this name.
                ///
                /// # Safety
                /// Launched by the host crate's plan: grid, block and parameters.
                $entry |params: DeltaParams| {
                    // SAFETY: the entry's contract is the kernel's.
                    unsafe { delta::<element::$dtype>(&params) }
                }
            })*

            host_entries!(DeltaParams, "the backward's table of first kernels": $($entry)*);
        };
    }
    fulgurite_spec::for_each_delta!(entries);
}

mod others {
    use super::*;

    macro_rules! entries {
        ($($entry:ident: $row:expr;)*) => {
            $(entry! {
                /// The kernel of this name.
                ///
                /// # Safety
                /// Launched by the host crate's plan: grid, block, shared memory and parameters.
                $entry |params: BwdParams, maps| {
                    struct Entry;
                    impl Shape for Entry {
                        const ROW: BackwardRow = BackwardRow::of_entry(stringify!($entry));
                        type Element = element::Of<{ ROW.dtype as u8 }>;
                    }
                    const ROW: BackwardRow = <Entry as Shape>::ROW;
                    // SAFETY: the entry's contract is the kernel's.
                    unsafe {
                        sm90::run::<
                            mask::Of<{ ROW.mask as u8 }>,
                            Entry,
                            { ROW.head_dim },
                            { ROW.walked_rows },
                        >(maps, &params.scalars);
                    }
                }
            })*

            host_entries!(BwdParams, "the backward's table of kernels": $($entry)*);
        };
    }
    fulgurite_spec::for_each_backward!(entries);
}
