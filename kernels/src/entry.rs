//! One PTX entry per row of the variant table: the only `extern "ptx-kernel"` functions. On the
//! host the entries are ordinary functions of the same names, for the emulator to run.

use crate::{forward, mask};
use fulgurite_gpu::{element, tma::MapAddress};
use fulgurite_spec::{FwdParams, Tile};

#[cfg(target_arch = "nvptx64")]
fulgurite_gpu::declare_dynamic_smem!();

/// Puts an entry under the `family` of its head dim, so that the builder can compile families in
/// parallel; without the cfg all are compiled. The builder sets both `family` and its value.
macro_rules! family {
    (64 $($item:item)*) => { family!(@ "d64" $($item)*); };
    (96 $($item:item)*) => { family!(@ "d96" $($item)*); };
    (128 $($item:item)*) => { family!(@ "d128" $($item)*); };
    (192 $($item:item)*) => { family!(@ "d192" $($item)*); };
    (256 $($item:item)*) => { family!(@ "d256" $($item)*); };
    (@ $family:literal $($item:item)*) => {$(
        #[cfg(any(
            family = $family,
            not(family)
        ))]
        $item
    )*};
}

/// An entry: on the GPU an exported kernel, which gets its parameters by value and their address by
/// symbol; on the host a function that borrows them.
macro_rules! entry {
    ($(#[$doc:meta])* $entry:ident |$params:ident, $maps:ident| $body:expr) => {
        $(#[$doc])*
        #[cfg(target_arch = "nvptx64")]
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn $entry($params: FwdParams) {
            // SAFETY: the parameter starts with the three maps that the host encoded.
            let $maps = unsafe { MapAddress::new(fulgurite_gpu::parameter_address!($entry)) };
            $body
        }

        $(#[$doc])*
        #[cfg(not(target_arch = "nvptx64"))]
        pub unsafe fn $entry($params: &FwdParams) {
            // SAFETY: the parameters start with the three maps that the emulator encoded.
            let $maps = unsafe { MapAddress::new(core::ptr::from_ref($params).addr() as u64) };
            $body
        }
    };
}

macro_rules! entries {
    ($($entry:ident: $arch:ident, $dtype:ident, $head_dim:tt, $mask:ident,
      $q_rows:literal;)*) => {
        $(family! { $head_dim
            entry! {
                /// The variant of this name.
                ///
                /// # Safety
                /// Launched by the host crate's plan: grid, block, shared memory and parameters.
                $entry |params, maps| {
                    const TILE: Tile = Tile::forward(
                        fulgurite_spec::Dtype::$dtype,
                        $head_dim,
                        fulgurite_spec::MaskKind::$mask,
                        $q_rows,
                    );
                    // SAFETY: the entry's contract is the kernel's.
                    unsafe {
                        forward::sm90::run::<
                            element::$dtype,
                            mask::$mask,
                            $head_dim,
                            { TILE.kv_rows },
                            $q_rows,
                        >(maps, &params.scalars);
                    }
                }
            }
        })*

        /// An entry on the host.
        #[cfg(not(target_arch = "nvptx64"))]
        pub type Entry = unsafe fn(&FwdParams);

        /// The entry of a name, of those in the variant table.
        #[cfg(not(target_arch = "nvptx64"))]
        pub fn find(name: &str) -> Option<Entry> {
            match name {
                $(stringify!($entry) => Some($entry),)*
                _ => None,
            }
        }
    };
}
fulgurite_spec::for_each_variant!(entries);
