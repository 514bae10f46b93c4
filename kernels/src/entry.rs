//! One PTX entry per row of the operations' tables: the only `extern "ptx-kernel"` functions. On
//! the host the entries are ordinary functions of the same names, for the emulator to run.
//!
//! The builder compiles entries in parallel, some at a time: it sets the cfg `selected` and a cfg
//! of the name of each entry that it wants. Without `selected` all are compiled. On the host
//! `build.rs` does so, and by the cfg `sampled` takes some of those for GPUs from Ampere on: of
//! these the host's compiler takes seven seconds for each.
#![allow(unexpected_cfgs, reason = "the names of entries stand in the tables")]
#![cfg_attr(selected, allow(unused_imports, reason = "the other table's entries may be wanted"))]

use crate::{backward, forward, quantise};
use fulgurite_gpu::{product, tma::MapAddress};
use fulgurite_spec::{
    Ends, ForwardRow, Fwd8Params, FwdMmaParams, FwdParams, QuantScalars, forward::WARP_ROWS, mask,
};

#[cfg(target_arch = "nvptx64")]
fulgurite_gpu::declare_dynamic_smem!();

/// The entry that every build for the host has, whatever its features.
#[cfg(not(target_arch = "nvptx64"))]
pub const SAMPLE: &str = env!("FULGURITE_SAMPLE");

/// The entries for GPUs from Ampere on that builds for the host with the default features have, and
/// a space between each two.
#[cfg(not(target_arch = "nvptx64"))]
pub const SAMPLE_SM80: &str = env!("FULGURITE_SAMPLE_SM80");

/// An entry: on the GPU an exported kernel, which gets its parameters by value and the address of
/// the maps that they start with, if they do, by symbol; on the host a function that borrows them.
macro_rules! entry {
    ($(#[$doc:meta])* $entry:ident |$params:ident: $type:ty $(, $maps:ident)?| $body:expr) => {
        $crate::entry::entry! {
            not(selected);
            $(#[$doc])*
            $entry |$params: $type $(, $maps)?| $body
        }
    };
    // Where `whole` holds, whether or not its name is selected.
    ($whole:meta; $(#[$doc:meta])* $entry:ident
     |$params:ident: $type:ty $(, $maps:ident)?| $body:expr) => {
        $(#[$doc])*
        #[cfg(all(target_arch = "nvptx64", any($entry, $whole)))]
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn $entry($params: $type) {
            $(
                // SAFETY: the parameter starts with the maps that the host encoded.
                let $maps = unsafe { MapAddress::new(fulgurite_gpu::parameter_address!($entry)) };
            )?
            $body
        }

        $(#[$doc])*
        #[cfg(all(not(target_arch = "nvptx64"), any($entry, $whole)))]
        pub unsafe fn $entry($params: &$type) {
            $(
                // SAFETY: the parameters start with the maps that the emulator encoded.
                let $maps = unsafe {
                    MapAddress::new(core::ptr::from_ref($params).expose_provenance() as u64)
                };
            )?
            $body
        }
    };
}

/// An entry on the host, given the address of its parameters.
#[cfg(not(target_arch = "nvptx64"))]
pub type Entry = unsafe fn(*const u8);

/// The entry of a name, in the tables of all operations.
#[cfg(not(target_arch = "nvptx64"))]
pub fn find(name: &str) -> Option<Entry> {
    let forward = forward16::find(name).or_else(|| forward_sm80::find(name));
    let forward = forward.or_else(|| forward8::find(name));
    forward.or_else(|| quantise::entry::find(name)).or_else(|| backward::entry::find(name))
}

/// The entries of a table by their names, for the emulator.
macro_rules! host_entries {
    ($type:ty, $table:literal: $($entry:ident)*) => {
        $crate::entry::host_entries!(not(selected); $type, $table: $($entry)*);
    };
    ($whole:meta; $type:ty, $table:literal: $($entry:ident)*) => {
        #[doc = concat!("The entry of a name, of those in ", $table, ".")]
        #[cfg(not(target_arch = "nvptx64"))]
        pub fn find(name: &str) -> Option<$crate::entry::Entry> {
            match name {
                $(
                    #[cfg(any($entry, $whole))]
                    stringify!($entry) => {
                        // SAFETY: the caller gives the address of this entry's parameters.
                        Some(|params| unsafe { $entry(&*params.cast::<$type>()) })
                    }
                )*
                _ => None,
            }
        }
    };
}

pub(crate) use {entry, host_entries};

macro_rules! forward_entries {
    ($params:ty, $ends:expr, $quant:expr, $table:literal: $($entry:ident: $row:expr;)*) => {
        $(entry! {
            /// The kernel of this name.
            ///
            /// # Safety
            /// Launched by the host crate's plan: grid, block, shared memory and parameters.
            $entry |params: $params, maps| {
                struct Entry;
                impl forward::shape::Shape for Entry {
                    const ROW: ForwardRow = ForwardRow::of_entry(stringify!($entry));
                    type Scores = product::ScoresOf<{ ROW.scores as u8 }>;
                    type Values = product::ValuesOf<{ ROW.dtype as u8 }>;
                }
                const ROW: ForwardRow = <Entry as forward::shape::Shape>::ROW;
                let ends: fn(&$params) -> Ends = $ends;
                let quant: for<'a> fn(&'a $params) -> Option<&'a QuantScalars> = $quant;
                // SAFETY: the entry's contract is the kernel's.
                unsafe {
                    forward::sm90::run::<
                        mask::Of<{ ROW.mask as u8 }>,
                        Entry,
                        { ROW.head_dim },
                        { ROW.kv_rows },
                    >(maps, &params.scalars, ends(&params), quant(&params));
                }
            }
        })*

        host_entries!($params, $table: $($entry)*);
    };
}

mod forward16 {
    use super::*;

    macro_rules! entries {
        ($($rows:tt)*) => {
            forward_entries!(
                FwdParams, |params| params.ends, |_| None,
                "the table of forward kernels": $($rows)*
            );
        };
    }
    fulgurite_spec::for_each_forward!(entries);
}

mod forward_sm80 {
    use super::*;

    macro_rules! entries {
        ($($entry:ident: $row:expr;)*) => {
            $(entry! {
                not(any(selected, sampled));
                /// The kernel of this name.
                ///
                /// # Safety
                /// Launched by the host crate's plan: grid, block, shared memory and parameters.
                $entry |params: FwdMmaParams| {
                    struct Entry;
                    impl forward::shape::Shape for Entry {
                        const ROW: ForwardRow = ForwardRow::of_entry(stringify!($entry));
                        type Scores = product::ScoresOf<{ ROW.scores as u8 }>;
                        type Values = product::ValuesOf<{ ROW.dtype as u8 }>;
                    }
                    const ROW: ForwardRow = <Entry as forward::shape::Shape>::ROW;
                    // SAFETY: the entry's contract is the kernel's.
                    unsafe {
                        forward::sm80::run::<
                            mask::Of<{ ROW.mask as u8 }>,
                            Entry,
                            { ROW.head_dim },
                            { ROW.kv_rows },
                            { (ROW.q_rows / (WARP_ROWS * ROW.warps)) as usize },
                        >(&params);
                    }
                }
            })*

            host_entries!(
                not(any(selected, sampled));
                FwdMmaParams, "the table of forward kernels for all GPUs from Ampere on":
                $($entry)*
            );
        };
    }
    fulgurite_spec::for_each_forward_sm80!(entries);
}

mod forward8 {
    use super::*;

    macro_rules! entries {
        ($($rows:tt)*) => {
            forward_entries!(
                Fwd8Params, |_| Ends::NONE, |params| Some(&params.quant),
                "the table of forward kernels of 8-bit elements": $($rows)*
            );
        };
    }
    fulgurite_spec::for_each_forward8!(entries);
}
