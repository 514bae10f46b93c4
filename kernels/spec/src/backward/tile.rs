//! Tile shapes of the backward, and the shared-memory plan and launch that follow from them.

use super::{BackwardRow, Part, ROW_PAD};
use crate::launch::{LaunchSpec, WARPGROUP_ROWS, WARPGROUP_THREADS};
use crate::smem::{PANEL_COLUMNS, PANEL_ROW_BYTES, SMEM_LIMIT_BYTES};

/// Consumer warpgroups of every kernel.
pub const CONSUMERS: u32 = 2;

/// Registers of a producer's thread, and of a consumer's.
const PRODUCER_REGISTERS: u32 = 40;
const CONSUMER_REGISTERS: u32 = 232;

/// Largest head dim whose dk and dv of 64 keys one consumer holds.
const WHOLE_HEAD_DIM: u32 = 128;

/// The shape of one kernel's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackwardTile {
    /// Which gradients it computes.
    pub part: Part,
    /// Columns that the products use.
    pub head_dim: u32,
    /// Rows of a step.
    pub walked_rows: u32,
    /// Buffers for what is walked and multiplied twice in a step: Q or K.
    pub first_stages: u32,
    /// Buffers for what is walked and multiplied once or twice: dO or V.
    pub second_stages: u32,
}

impl BackwardTile {
    /// The tile of a row.
    pub const fn of(row: &BackwardRow) -> BackwardTile {
        let &BackwardRow { part, head_dim, walked_rows, first_stages, second_stages, .. } = row;
        BackwardTile { part, head_dim, walked_rows, first_stages, second_stages }
    }

    /// Whether the consumers share the held rows, each with a duty of its own.
    #[inline(always)]
    pub const fn shares_rows(&self) -> bool {
        matches!(self.part, Part::DkDv) && self.head_dim > WHOLE_HEAD_DIM
    }

    /// Buffers of 64 held rows of each of two tensors.
    #[inline(always)]
    pub const fn held_parts(&self) -> u32 {
        if self.shares_rows() { 1 } else { CONSUMERS }
    }

    /// Rows that a block holds.
    #[inline(always)]
    pub const fn held_rows(&self) -> u32 {
        self.held_parts() * WARPGROUP_ROWS
    }

    /// Panels that hold a row.
    #[inline(always)]
    pub const fn panels(&self) -> u32 {
        self.head_dim.div_ceil(PANEL_COLUMNS)
    }

    /// Bytes of one panel of 64 held rows.
    #[inline(always)]
    pub const fn held_panel_bytes(&self) -> u32 {
        WARPGROUP_ROWS * PANEL_ROW_BYTES
    }

    /// Bytes of 64 held rows of one tensor.
    #[inline(always)]
    pub const fn held_part_bytes(&self) -> u32 {
        self.held_panel_bytes() * self.panels()
    }

    /// Bytes of one panel of a step's rows.
    #[inline(always)]
    pub const fn walked_panel_bytes(&self) -> u32 {
        self.walked_rows * PANEL_ROW_BYTES
    }

    /// Bytes of a step's rows of one tensor.
    #[inline(always)]
    pub const fn stage_bytes(&self) -> u32 {
        self.walked_panel_bytes() * self.panels()
    }

    /// Warps of all consumers.
    #[inline(always)]
    pub const fn consumer_warps(&self) -> u32 {
        CONSUMERS * WARPGROUP_THREADS / 32
    }

    /// The launch of a kernel with this tile.
    pub const fn launch(&self) -> LaunchSpec {
        LaunchSpec {
            threads: (1 + CONSUMERS) * WARPGROUP_THREADS,
            blocks_per_sm: 1,
            smem_bytes: BackwardPlan::of(self).total_bytes,
            producer_registers: PRODUCER_REGISTERS,
            consumer_registers: CONSUMER_REGISTERS,
        }
    }

    /// Registers of a consumer's fragments at the most.
    const fn fragment_registers(&self) -> u32 {
        let sums = match self.part {
            Part::DkDv if !self.shares_rows() => self.head_dim,
            _ => self.head_dim / 2,
        };
        // Scores, their gradients, and one of both rounded.
        sums + self.walked_rows + self.walked_rows / 4
    }
}

/// Byte offsets of every region in a CTA's dynamic shared memory: what is held as
/// `[tensor][part][panel]`, rings as `[stage][panel]`, then barriers of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackwardPlan {
    /// Held rows of K, or Q.
    pub held_first: u32,
    /// Held rows of V, or dO.
    pub held_second: u32,
    /// Ring of Q, or K.
    pub first: u32,
    /// Ring of dO, or V.
    pub second: u32,
    /// `held_full`: both tensors' rows have arrived.
    pub held_full: u32,
    /// `first_full[stage]`.
    pub first_full: u32,
    /// `first_empty[stage]`.
    pub first_empty: u32,
    /// `second_full[stage]`.
    pub second_full: u32,
    /// `second_empty[stage]`.
    pub second_empty: u32,
    /// Bytes to ask for at launch.
    pub total_bytes: u32,
}

impl BackwardPlan {
    /// Lays out the regions of a tile.
    pub const fn of(tile: &BackwardTile) -> BackwardPlan {
        let held_bytes = tile.held_parts() * tile.held_part_bytes();
        let held_first = 0;
        let held_second = held_first + held_bytes;
        let first = held_second + held_bytes;
        let second = first + tile.first_stages * tile.stage_bytes();
        let held_full = second + tile.second_stages * tile.stage_bytes();
        let first_full = held_full + 8;
        let first_empty = first_full + 8 * tile.first_stages;
        let second_full = first_empty + 8 * tile.first_stages;
        let second_empty = second_full + 8 * tile.second_stages;
        let total_bytes = second_empty + 8 * tile.second_stages;
        BackwardPlan {
            held_first,
            held_second,
            first,
            second,
            held_full,
            first_full,
            first_empty,
            second_full,
            second_empty,
            total_bytes,
        }
    }
}

/// Refuses a tile that the kernel cannot work with.
pub(super) const fn assert_possible(tile: &BackwardTile) {
    let plan = BackwardPlan::of(tile);
    assert!(plan.first.is_multiple_of(1024) && plan.second.is_multiple_of(1024));
    assert!(tile.walked_rows.is_multiple_of(16) && 48 <= tile.walked_rows);
    assert!(tile.head_dim.is_multiple_of(32) && 64 <= tile.head_dim && tile.head_dim <= 256);
    assert!(tile.first_stages >= 1 && tile.second_stages >= 1);
    assert!(plan.total_bytes <= SMEM_LIMIT_BYTES, "too much shared memory");
    assert!(tile.fragment_registers() + 24 <= CONSUMER_REGISTERS, "too few registers");
    // Numbers of query rows are read for whole tiles.
    let q_rows = match tile.part {
        Part::DkDv => tile.walked_rows,
        Part::Dq => tile.held_rows(),
    };
    assert!(ROW_PAD.is_multiple_of(q_rows), "query tiles would read beyond their head");
}
