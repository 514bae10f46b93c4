//! The backward: its kernels, their tiles, what they receive, and where they leave what one of them
//! tells the others.
//!
//! Three kernels make the gradients of a call. The first one takes what belongs to a query row
//! alone ([`DELTA`]): the sum of `d_out · out`, and the log-sum-exp in base 2. Of the two others
//! ([`BACKWARD`]) each computes scores and probabilities again and sums one side's gradients in
//! registers, so that no sum depends on what other blocks do: a block of [`Part::DkDv`] *holds* a
//! tile of keys and *walks* the query tiles of all heads that read it, a block of [`Part::Dq`]
//! holds a tile of queries and walks the KV tiles.

mod params;
mod region;
mod table;
mod tile;

use core::mem::size_of;

use crate::arch::Arch;
use crate::dtype::Dtype;
use crate::kernel::{self, Kernel};
use crate::launch::LaunchSpec;
use crate::mask::MaskClass;

pub use params::{BwdParams, BwdScalars, DeltaParams, Gradient};
pub use region::{ROW_PAD, StatsRegion};
pub use tile::{BackwardPlan, BackwardTile};

/// Threads of a block of the first kernel.
pub const DELTA_THREADS: u32 = 256;

/// Query rows of such a block: four threads have one.
pub const DELTA_ROWS: u32 = DELTA_THREADS / 4;

/// The first kernel of a call, for one element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaRow {
    /// The PTX symbol, also the name of the PTX file.
    pub entry: &'static str,
    /// Element type of the output and of its gradient.
    pub dtype: Dtype,
}

impl DeltaRow {
    /// Its launch.
    pub const fn launch(&self) -> LaunchSpec {
        LaunchSpec {
            threads: DELTA_THREADS,
            blocks_per_sm: 4,
            smem_bytes: 0,
            producer_registers: 0,
            consumer_registers: 0,
        }
    }

    /// What builder, loader and reports know of it.
    pub const fn kernel(&self) -> Kernel {
        Kernel {
            entry: self.entry,
            arch: Arch::Sm90,
            family: "bwd-delta",
            param_bytes: size_of::<DeltaParams>() as u32,
            launch: self.launch(),
        }
    }
}

/// Which gradients a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Those of keys and values.
    DkDv,
    /// Those of queries.
    Dq,
}

/// One row of the table: one compiled kernel of the second or third launch.
///
/// Registers are the first limit: the gradients of 64 held rows (head_dim / 2 each of dk and dv, or
/// of dq), scores and their gradients (walked_rows / 2 each) and one of both rounded (a quarter of
/// the walked rows) of 232. Up to head dim 128 each consumer has 64 held rows of its own, and dk
/// and dv of them; above, dk and dv of 64 keys do not fit, and the two consumers share the keys:
/// one sums dv, the other dk, and both compute the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackwardRow {
    /// The PTX symbol, also the name of the PTX file.
    pub entry: &'static str,
    /// Architecture it is compiled for.
    pub arch: Arch,
    /// Which gradients it computes.
    pub part: Part,
    /// Element type of all tensors.
    pub dtype: Dtype,
    /// Largest head dim it accepts; smaller ones are padded with zeros by TMA.
    pub head_dim: u32,
    /// The mask compiled in.
    pub mask: MaskClass,
    /// Rows of a step: queries for [`Part::DkDv`], keys for [`Part::Dq`].
    pub walked_rows: u32,
    /// Buffers for Q, or K: what is multiplied a second time in each step.
    pub first_stages: u32,
    /// Buffers for dO, or V.
    pub second_stages: u32,
}

/// A row for Hopper.
const fn sm90(
    part: Part,
    dtype: Dtype,
    head_dim: u32,
    mask: MaskClass,
    [walked_rows, first_stages, second_stages]: [u32; 3],
) -> BackwardRow {
    let (entry, arch) = ("", Arch::Sm90);
    BackwardRow {
        entry,
        arch,
        part,
        dtype,
        head_dim,
        mask,
        walked_rows,
        first_stages,
        second_stages,
    }
}

impl BackwardRow {
    const fn named(self, entry: &'static str) -> BackwardRow {
        BackwardRow { entry, ..self }
    }

    /// The row of an entry, at compile time.
    ///
    /// # Panics
    /// If the table has no such entry.
    pub const fn of_entry(entry: &str) -> BackwardRow {
        let mut i = 0;
        while i < BACKWARD.len() {
            if kernel::same(BACKWARD[i].entry, entry) {
                return BACKWARD[i];
            }
            i += 1;
        }
        panic!("the table has no such entry")
    }

    /// Whether it can compute its part of a call with these properties.
    pub const fn accepts(&self, part: Part, dtype: Dtype, mask: MaskClass, head_dim: u32) -> bool {
        self.part as u32 == part as u32
            && self.dtype as u32 == dtype as u32
            && self.mask as u32 == mask as u32
            && self.head_dim >= head_dim
    }

    /// Its launch.
    pub const fn launch(&self) -> LaunchSpec {
        BackwardTile::of(self).launch()
    }

    /// What builder, loader and reports know of it.
    pub const fn kernel(&self) -> Kernel {
        Kernel {
            entry: self.entry,
            arch: self.arch,
            family: family(self.head_dim),
            param_bytes: size_of::<BwdParams>() as u32,
            launch: self.launch(),
        }
    }
}

/// Kernels of one head dim are compiled together.
const fn family(head_dim: u32) -> &'static str {
    match head_dim {
        64 => "bwd-d64",
        96 => "bwd-d96",
        128 => "bwd-d128",
        192 => "bwd-d192",
        256 => "bwd-d256",
        _ => panic!("head dims of the backward are 64, 96, 128, 192 and 256"),
    }
}

macro_rules! delta_table {
    ($($entry:ident: $dtype:ident;)*) => {
        /// The first kernel of a call, one for each element type.
        pub const DELTA: &[DeltaRow] = &[
            $(DeltaRow { entry: stringify!($entry), dtype: Dtype::$dtype }),*
        ];
    };
}
crate::for_each_delta!(delta_table);

macro_rules! backward_table {
    ($($entry:ident: $row:expr;)*) => {
        /// Every kernel of the second and third launch; of the same part, type and mask those of
        /// smaller head dims first.
        pub const BACKWARD: &[BackwardRow] = {
            use {Dtype::*, MaskClass::*, Part::*};
            &[$($row.named(stringify!($entry))),*]
        };
    };
}
crate::for_each_backward!(backward_table);

const _: () = {
    let mut i = 0;
    while i < BACKWARD.len() {
        tile::assert_possible(&BackwardTile::of(&BACKWARD[i]));
        i += 1;
    }
};
