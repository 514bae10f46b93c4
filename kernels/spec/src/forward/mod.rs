//! The forward: its table of kernels, their tiles, what they receive.
//!
//! A row is a decision someone made. Whoever needs all forward kernels walks [`FORWARD`] or expands
//! [`for_each_forward!`](crate::for_each_forward): the device crate makes an entry of each row, the
//! host finds the row that accepts a request. Kernels of 8-bit elements have a table of their own,
//! [`FORWARD8`], since they receive more; and so have those for all GPUs from Ampere on,
//! [`FORWARD_SM80`], since they receive addresses in place of tensor maps.

mod params;
mod table;
mod table8;
mod table_sm80;
mod tile;

use core::mem::size_of;

use crate::arch::Arch;
use crate::dtype::Dtype;
use crate::kernel::{self, Kernel};
use crate::launch::{LaunchSpec, WARPGROUP_ROWS};
use crate::mask::MaskClass;

pub use params::{
    Fwd8Params, FwdMmaParams, FwdParams, FwdScalars, QuantScalars, ScaleAddress, Source,
};
pub use tile::{KV_ROWS_LEAST, KV_ROWS_MOST, STEP_BYTES, SmemPlan, Tile, WARP_ROWS};

/// How a row's softmax finds the numbers that its exponents are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SoftmaxKind {
    /// The row's maximum so far, in every tile: the online softmax. Little code, and no
    /// probability above 1. Rows whose scores are too large for exponents of one rounding are lost,
    /// and computed again.
    Maxima,
    /// As `Maxima`, with differences of scores taken before they are scaled: an addition for each
    /// element more, right for scores of any size, and no second pass.
    Apart,
    /// The row's maximum until the row has settled, then that number for good unless the sums of a
    /// tile object: no maxima, no shuffles, nothing rescaled, but more code. Rows can be lost.
    Anchors,
    /// As `Anchors`, for rows of very many keys: the output is *parked* every so many keys, so that
    /// the tensor core's accumulator, which truncates, never holds more than these.
    Parked,
    /// As `Apart`, and parked likewise.
    ParkedMax,
}

impl SoftmaxKind {
    /// The name used in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            SoftmaxKind::Maxima => "maxima",
            SoftmaxKind::Apart => "apart",
            SoftmaxKind::Anchors => "anchors",
            SoftmaxKind::Parked => "parked",
            SoftmaxKind::ParkedMax => "parked-max",
        }
    }

    /// Whether rows may keep their anchors.
    pub const fn keeps_anchors(self) -> bool {
        matches!(self, SoftmaxKind::Anchors | SoftmaxKind::Parked)
    }

    /// Whether rows can be lost, so that the kernel has a second pass.
    pub const fn loses(self) -> bool {
        self.keeps_anchors() || matches!(self, SoftmaxKind::Maxima)
    }

    /// Whether the output is parked in shared memory now and then.
    pub const fn parks(self) -> bool {
        matches!(self, SoftmaxKind::Parked | SoftmaxKind::ParkedMax)
    }
}

/// One row of the table: one compiled kernel.
///
/// Registers are the first limit of its tile (scores kv_rows / 2, probabilities kv_rows / 4, output
/// head_dim / 2 of 232 with two consumers or 160 with three), shared memory the second. `cargo
/// xtask tiles` tries what fits.
///
/// Why a row is as it is: `kernels/PERFORMANCE.md`, "Which softmax, which tile", has the figures.
/// Short calls want little code, so that instructions stay in their cache: the rows `short` with
/// maxima (at head dim 256, causal, a second pass would spill: `Apart`). Long ones want little
/// work: anchors. Causal calls waste less on half-masked tiles with fewer KV rows. Rows of more
/// than [`LONG`] keys have kernels of their own, which park; at head dim 256 none of the shapes
/// tried has the registers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardRow {
    /// The PTX symbol, also the name of the PTX file.
    pub entry: &'static str,
    /// Architecture it is compiled for.
    pub arch: Arch,
    /// Element type of v as the product takes it; of the output too, if it has 16 bits.
    pub dtype: Dtype,
    /// Element type of q and k as their product takes them.
    pub scores: Dtype,
    /// Largest head dim it accepts; smaller ones are padded with zeros by TMA.
    pub head_dim: u32,
    /// The mask compiled in.
    pub mask: MaskClass,
    /// Its softmax.
    pub softmax: SoftmaxKind,
    /// Query rows of one job.
    pub q_rows: u32,
    /// Rows of K and V in one step.
    pub kv_rows: u32,
    /// Warps that compute.
    pub warps: u32,
    /// Buffers for Q, of one warpgroup's rows each.
    pub q_parts: u32,
    /// Buffers for K and for V.
    pub kv_stages: u32,
    /// Key length up to which it is preferred to the rows behind it, in calls without keyless query
    /// tiles or if it stores those.
    pub kv_len_limit: u32,
}

/// The key length limit of a variant that suits all lengths.
pub const ANY: u32 = u32::MAX;

/// Key length beyond which a kernel that parks its output is preferred. With values of mean 1 the
/// error of the others in f16 is 1.2 times as large here as with few keys, and 1.6 times at
/// [`LONGER`] (`kernels/PERFORMANCE.md`, "Long rows").
pub const LONG: u32 = 1 << 15;

/// The same where parking costs more than 2 % of the speed: head dim 192.
pub const LONGER: u32 = 1 << 16;

/// The same at head dim 64, where the error in f16 passes the limit of `verify` first, at 30,000
/// keys, and parking costs 1 % at most.
pub const SOONER: u32 = 1 << 14;

/// A row for Hopper without a tile yet, preferred at all lengths.
const fn sm90(dtype: Dtype, head_dim: u32, mask: MaskClass, softmax: SoftmaxKind) -> ForwardRow {
    ForwardRow {
        entry: "",
        arch: Arch::Sm90,
        dtype,
        scores: dtype,
        head_dim,
        mask,
        softmax,
        q_rows: 0,
        kv_rows: 0,
        warps: 0,
        q_parts: 0,
        kv_stages: 0,
        kv_len_limit: ANY,
    }
}

/// A row for all GPUs from Ampere on, likewise.
const fn sm80(dtype: Dtype, head_dim: u32, mask: MaskClass, softmax: SoftmaxKind) -> ForwardRow {
    ForwardRow { arch: Arch::Sm80, ..sm90(dtype, head_dim, mask, softmax) }
}

impl ForwardRow {
    /// The same row with q and k of this type.
    const fn scores(self, scores: Dtype) -> ForwardRow {
        ForwardRow { scores, ..self }
    }

    const fn tile(self, q_rows: u32, kv_rows: u32, q_parts: u32, kv_stages: u32) -> ForwardRow {
        ForwardRow { q_rows, kv_rows, warps: q_rows / 16, q_parts, kv_stages, ..self }
    }

    const fn mma(self, q_rows: u32, kv_rows: u32, warps: u32, kv_stages: u32) -> ForwardRow {
        ForwardRow { q_rows, kv_rows, warps, q_parts: q_rows / WARPGROUP_ROWS, kv_stages, ..self }
    }

    const fn to(self, kv_len_limit: u32) -> ForwardRow {
        ForwardRow { kv_len_limit, ..self }
    }

    const fn named(self, entry: &'static str) -> ForwardRow {
        ForwardRow { entry, ..self }
    }

    /// The row of an entry, at compile time.
    ///
    /// # Panics
    /// If the table has no such entry.
    pub const fn of_entry(entry: &str) -> ForwardRow {
        let tables = [FORWARD, FORWARD8, FORWARD_SM80];
        let mut table = 0;
        while table < tables.len() {
            let mut i = 0;
            while i < tables[table].len() {
                if kernel::same(tables[table][i].entry, entry) {
                    return tables[table][i];
                }
                i += 1;
            }
            table += 1;
        }
        panic!("the table has no such entry")
    }

    /// Whether it can compute a call with these properties.
    pub const fn accepts(&self, dtype: Dtype, mask: MaskClass, head_dim: u32) -> bool {
        self.dtype as u32 == dtype as u32
            && self.mask as u32 == mask as u32
            && self.head_dim >= head_dim
    }

    /// Whether it stores query tiles without keys beside its jobs. A kernel that does not computes
    /// each as a job of one masked tile: that is right and slow, but without the code for it causal
    /// calls of up to 1024 keys are 5 to 7 % faster (head dim 64).
    pub const fn stores_keyless(&self) -> bool {
        self.mask.rows_differ() && self.softmax.keeps_anchors()
    }

    /// Whether q and k, and maybe v, are multiplied as elements of 8 bits.
    pub const fn is_quantised(&self) -> bool {
        self.scores.bytes() == 1
    }

    /// The format's name in tables and records: of q and k, then of v if that is another.
    pub const fn format(&self) -> &'static str {
        match (self.scores, self.dtype) {
            (Dtype::I8, Dtype::E4m3) => "s8e4m3",
            (Dtype::I8, _) => "s8x16",
            (_, dtype) => dtype.name(),
        }
    }

    /// Its launch.
    pub const fn launch(&self) -> LaunchSpec {
        Tile::of(self).launch()
    }

    /// What builder, loader and reports know of it.
    pub const fn kernel(&self) -> Kernel {
        Kernel {
            entry: self.entry,
            arch: self.arch,
            family: if matches!(self.arch, Arch::Sm80) {
                family(self.head_dim)
            } else if self.is_quantised() {
                family8(self.head_dim)
            } else if matches!(self.mask, MaskClass::Window) {
                family_window(self.head_dim)
            } else {
                family(self.head_dim)
            },
            param_bytes: match self.arch {
                Arch::Sm80 => size_of::<FwdMmaParams>() as u32,
                Arch::Sm90 if self.is_quantised() => size_of::<Fwd8Params>() as u32,
                Arch::Sm90 => size_of::<FwdParams>() as u32,
            },
            launch: self.launch(),
        }
    }
}

/// Kernels of one head dim are compiled together.
const fn family(head_dim: u32) -> &'static str {
    match head_dim {
        64 => "d64",
        96 => "d96",
        128 => "d128",
        160 => "d160",
        192 => "d192",
        224 => "d224",
        256 => "d256",
        _ => panic!("head dims are multiples of 32 from 64 to 256"),
    }
}

/// The same for windows.
const fn family_window(head_dim: u32) -> &'static str {
    match head_dim {
        64 => "d64-window",
        96 => "d96-window",
        128 => "d128-window",
        192 => "d192-window",
        256 => "d256-window",
        _ => panic!("head dims of windows are 64, 96, 128, 192 and 256"),
    }
}

/// The same for kernels of 8 bits.
const fn family8(head_dim: u32) -> &'static str {
    match head_dim {
        64 => "d64-8bit",
        96 => "d96-8bit",
        128 => "d128-8bit",
        192 => "d192-8bit",
        256 => "d256-8bit",
        _ => panic!("head dims of 8 bits are 64, 96, 128, 192 and 256"),
    }
}

macro_rules! table {
    ($(#[$doc:meta])* $table:ident: $($entry:ident: $row:expr;)*) => {
        $(#[$doc])*
        pub const $table: &[ForwardRow] = {
            use {Dtype::*, MaskClass::*, SoftmaxKind::*};
            &[$($row.named(stringify!($entry))),*]
        };
        const _: () = {
            let mut i = 0;
            while i < $table.len() {
                tile::assert_possible(&Tile::of(&$table[i]));
                i += 1;
            }
        };
    };
}

macro_rules! table16 {
    ($($row:tt)*) => {
        table! {
            /// Every forward kernel of 16-bit elements, in order of preference.
            FORWARD: $($row)*
        }
    };
}
crate::for_each_forward!(table16);

macro_rules! table8 {
    ($($row:tt)*) => {
        table! {
            /// Every forward kernel of 8-bit elements, in order of preference.
            FORWARD8: $($row)*
        }
    };
}
crate::for_each_forward8!(table8);

macro_rules! table_sm80 {
    ($($row:tt)*) => {
        table! {
            /// Every forward kernel for all GPUs from Ampere on, in order of preference.
            FORWARD_SM80: $($row)*
        }
    };
}
crate::for_each_forward_sm80!(table_sm80);
