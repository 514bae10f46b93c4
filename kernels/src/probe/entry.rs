//! One PTX entry per row of the table of probes; on the host functions of the same names.
#![allow(unexpected_cfgs, reason = "the names of entries stand in the table of probes")]
#![cfg_attr(selected, allow(unused_imports, reason = "the other table's entries may be wanted"))]

use super::{Probe, barriers, bytes, copies, memory, products, values, warps};
use crate::entry::{entry, host_entries};
use fulgurite_gpu::{
    element::{Bf16, F16},
    tma::MapAddress,
};
use fulgurite_spec::ProbeParams;

macro_rules! entries {
    ($($entry:ident: $function:path;)*) => {
        $(entry! {
            /// The probe of this name.
            ///
            /// # Safety
            /// Launched as one block of the size that [`fulgurite_spec::probes`] says, with
            /// parameters that fit the probe.
            $entry |params: ProbeParams, maps| {
                // SAFETY: the entry's contract is the probe's; the second map follows the first.
                unsafe {
                    let (source, target) = (maps, maps.plus(1));
                    $function(Probe { source, target, scalars: params.scalars });
                }
            }
        })*

        host_entries!(ProbeParams, "the table of probes": $($entry)*);
    };
}
fulgurite_spec::for_each_probe!(entries);
