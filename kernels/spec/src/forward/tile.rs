//! Tile shapes of the forward, and the shared-memory plan and launch that follow from them.

use super::{ForwardRow, SoftmaxKind};
use crate::arch::Arch;
use crate::dtype::Dtype;
use crate::launch::{LaunchSpec, WARPGROUP_ROWS, WARPGROUP_THREADS};
use crate::smem::SMEM_LIMIT_BYTES;

/// Fewest rows of K and V in one step: the narrowest `wgmma` that the device crate lists.
pub const KV_ROWS_LEAST: u32 = 48;

/// Bytes of both operands that one `wgmma` multiplies along K.
pub const STEP_BYTES: u32 = 32;

/// Rows of one warp's products.
pub const WARP_ROWS: u32 = 16;

/// Most rows of K and V in one step: the widest `wgmma`, and the longest TMA box.
pub const KV_ROWS_MOST: u32 = 256;

/// Registers of a consumer's thread beyond its fragments: softmax state, loop and addresses. Of 160
/// registers, fragments of 132 leave enough at head dim 96 (112 KV rows) and 12 bytes too few at
/// head dim 192 (48 KV rows); with fragments of 144 (64 KV rows) half a KiB spills.
const CONSUMER_STATE_REGISTERS: u32 = 28;

/// The shape of one kernel's work: how many rows of Q a CTA takes, how many rows of K and V it
/// takes at a time, how many of each it keeps in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Architecture of the kernel, which shared memory and launch depend on.
    pub arch: Arch,
    /// Element type of Q and K.
    pub scores: Dtype,
    /// Element type of V.
    pub values: Dtype,
    /// Parts of 64 query rows; on Hopper each is that of one consumer warpgroup.
    pub consumers: u32,
    /// Warps that compute.
    pub warps: u32,
    /// Rows of K and V in one step.
    pub kv_rows: u32,
    /// Columns of Q, K, V and the output that the products use.
    pub head_dim: u32,
    /// Buffers for Q, of one warpgroup's rows each, taken in turn: those beyond one for each
    /// consumer let the next job's Q load while this one computes.
    pub q_parts: u32,
    /// Buffers for K and for V.
    pub kv_stages: u32,
    /// Whether the output has room to be parked.
    pub parks: bool,
}

impl Tile {
    /// The tile of a row.
    pub const fn of(row: &ForwardRow) -> Tile {
        let &ForwardRow { softmax, head_dim, q_rows, kv_rows, q_parts, kv_stages, .. } = row;
        let tile = Tile::forward(softmax, head_dim, q_rows, kv_rows, q_parts, kv_stages);
        Tile { arch: row.arch, warps: row.warps, scores: row.scores, values: row.dtype, ..tile }
    }

    /// Hopper's forward tile of these numbers, in the order of the table's columns, for elements of
    /// 16 bits.
    pub const fn forward(
        softmax: SoftmaxKind,
        head_dim: u32,
        q_rows: u32,
        kv_rows: u32,
        q_parts: u32,
        kv_stages: u32,
    ) -> Tile {
        let (consumers, parks) = (q_rows / WARPGROUP_ROWS, softmax.parks());
        let (arch, warps) = (Arch::Sm90, q_rows / WARP_ROWS);
        let (scores, values) = (Dtype::Bf16, Dtype::Bf16);
        Tile {
            arch,
            scores,
            values,
            consumers,
            warps,
            kv_rows,
            head_dim,
            q_parts,
            kv_stages,
            parks,
        }
    }

    /// Registers that a consumer's thread needs at least: the fragments, and what it keeps besides.
    pub const fn consumer_registers(&self) -> u32 {
        let (scores, probabilities, out) =
            (self.kv_rows / 2, self.kv_rows * self.values.bytes() / 8, self.head_dim / 2);
        scores + probabilities + out + CONSUMER_STATE_REGISTERS
    }

    /// Whether a kernel of this shape may be worth compiling: the tensor core has products of these
    /// sizes, and neither shared memory nor, by this estimate, registers are short.
    pub const fn is_feasible(&self) -> bool {
        let sizes = self.kv_rows.is_multiple_of(STEP_BYTES / self.values.bytes())
            && KV_ROWS_LEAST <= self.kv_rows
            && self.kv_rows <= KV_ROWS_MOST
            && self.head_dim.is_multiple_of(32)
            && 64 <= self.head_dim
            && self.head_dim <= 256;
        let rings = self.q_parts >= self.consumers && self.kv_stages >= 2;
        sizes
            && rings
            && (self.consumers == 2 || self.consumers == 3)
            && SmemPlan::of(self).total_bytes <= SMEM_LIMIT_BYTES
            && self.consumer_registers() <= self.launch().consumer_registers
    }

    /// The launch of a kernel with this tile.
    pub const fn launch(&self) -> LaunchSpec {
        if matches!(self.arch, Arch::Sm80) {
            return LaunchSpec {
                threads: 32 * self.warps,
                // All registers of the multiprocessor: with one block of four warps nobody would
                // compute products while those are in their softmax.
                blocks_per_sm: if self.warps == 4 { 2 } else { 1 },
                smem_bytes: SmemPlan::of(self).total_bytes,
                producer_registers: 0,
                consumer_registers: 0,
            };
        }
        let (producer_registers, consumer_registers) = match self.consumers {
            // 24 for the producer left it with spills of 4 to 16 bytes.
            2 => (40, 232),
            3 => (32, 160),
            _ => panic!("two or three consumer warpgroups"),
        };
        LaunchSpec {
            threads: (1 + self.consumers) * WARPGROUP_THREADS,
            blocks_per_sm: 1,
            smem_bytes: SmemPlan::of(self).total_bytes,
            producer_registers,
            consumer_registers,
        }
    }

    /// Warps of all consumers.
    #[inline(always)]
    pub const fn consumer_warps(&self) -> u32 {
        self.consumers * WARPGROUP_THREADS / 32
    }

    /// Query rows of one job.
    #[inline(always)]
    pub const fn q_rows(&self) -> u32 {
        self.consumers * WARPGROUP_ROWS
    }

    /// Bytes of a row of a panel of Q or K: the widest swizzle of which few are wide enough.
    #[inline(always)]
    pub const fn score_panel_bytes(&self) -> u32 {
        let row = self.head_dim * self.scores.bytes();
        // 96 bytes are padded to one panel of 128; 64 and 192 are one and three of 64.
        if self.scores.bytes() == 2 || row == 96 || row.is_multiple_of(128) { 128 } else { 64 }
    }

    /// Columns of a panel of Q or K.
    #[inline(always)]
    pub const fn score_panel_columns(&self) -> u32 {
        self.score_panel_bytes() / self.scores.bytes()
    }

    /// Panels that hold a row of Q or K.
    #[inline(always)]
    pub const fn score_panels(&self) -> u32 {
        (self.head_dim * self.scores.bytes()).div_ceil(self.score_panel_bytes())
    }

    /// Whether V is kept transposed, with its keys permuted: products of 8-bit elements take both
    /// operands along their rows only.
    #[inline(always)]
    pub const fn transposes_v(&self) -> bool {
        self.values.bytes() == 1
    }

    /// Whether the quantiser has taken means from K, and from V where that is transposed.
    #[inline(always)]
    pub const fn subtracts_means(&self) -> bool {
        matches!(self.scores, Dtype::I8)
    }

    /// Bytes of a row of a panel of V; transposed, the widest swizzle that divides the keys.
    #[inline(always)]
    pub const fn value_panel_bytes(&self) -> u32 {
        if !self.transposes_v() || self.kv_rows.is_multiple_of(128) {
            128
        } else if self.kv_rows.is_multiple_of(64) {
            64
        } else {
            32
        }
    }

    /// Columns of a panel of V; transposed, keys.
    #[inline(always)]
    pub const fn value_panel_columns(&self) -> u32 {
        self.value_panel_bytes() / self.values.bytes()
    }

    /// Panels of a tile of V: side by side along its columns, or transposed along its keys.
    #[inline(always)]
    pub const fn value_panels(&self) -> u32 {
        let row = if self.transposes_v() { self.kv_rows } else { self.head_dim };
        (row * self.values.bytes()).div_ceil(self.value_panel_bytes())
    }

    /// Rows of a panel of V: keys, or transposed its columns.
    #[inline(always)]
    pub const fn value_panel_rows(&self) -> u32 {
        if self.transposes_v() { self.head_dim } else { self.kv_rows }
    }

    /// Bytes of one warpgroup's share of Q.
    #[inline(always)]
    pub const fn q_part_bytes(&self) -> u32 {
        WARPGROUP_ROWS * self.score_panel_bytes() * self.score_panels()
    }

    /// Bytes of one panel of K.
    #[inline(always)]
    pub const fn k_panel_bytes(&self) -> u32 {
        self.kv_rows * self.score_panel_bytes()
    }

    /// Bytes of one panel of V.
    #[inline(always)]
    pub const fn v_panel_bytes(&self) -> u32 {
        self.value_panel_rows() * self.value_panel_bytes()
    }

    /// Bytes of one stage of K.
    #[inline(always)]
    pub const fn k_stage_bytes(&self) -> u32 {
        self.k_panel_bytes() * self.score_panels()
    }

    /// Bytes of one stage of V.
    #[inline(always)]
    pub const fn v_stage_bytes(&self) -> u32 {
        self.v_panel_bytes() * self.value_panels()
    }

    /// Bytes of the parked output: 16 bits an element, if there is room for any.
    pub const fn parked_bytes(&self) -> u32 {
        if self.parks { 2 * self.q_rows() * self.head_dim } else { 0 }
    }
}

/// Byte offsets of every region in a CTA's dynamic shared memory.
///
/// Q is kept as `[part][panel]`, K and V as `[stage][panel]`; every panel starts on a
/// multiple of 1024 bytes, as the 128-byte swizzle asks, or of the 8 rows that a narrower one asks.
/// The parked output follows, 16 bytes of each consumer thread after those of the one before, then
/// barriers of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmemPlan {
    /// Q ring.
    pub q: u32,
    /// K ring.
    pub k: u32,
    /// V ring.
    pub v: u32,
    /// Parked output.
    pub parked: u32,
    /// `q_full[part]`: the rows have arrived.
    pub q_full: u32,
    /// `q_empty[part]`: their warpgroup has read them for the last time.
    pub q_empty: u32,
    /// `k_full[stage]`.
    pub k_full: u32,
    /// `k_empty[stage]`.
    pub k_empty: u32,
    /// `v_full[stage]`.
    pub v_full: u32,
    /// `v_empty[stage]`.
    pub v_empty: u32,
    /// Bytes to ask for at launch.
    pub total_bytes: u32,
}

impl SmemPlan {
    /// Lays out the regions of a tile.
    pub const fn of(tile: &Tile) -> SmemPlan {
        let q = 0;
        let k = q + tile.q_parts * tile.q_part_bytes();
        let v = k + tile.kv_stages * tile.k_stage_bytes();
        let parked = v + tile.kv_stages * tile.v_stage_bytes();
        if matches!(tile.arch, Arch::Sm80) {
            return SmemPlan::without_barriers(q, k, v, parked);
        }
        let q_full = parked + tile.parked_bytes();
        let q_empty = q_full + 8 * tile.q_parts;
        let k_full = q_empty + 8 * tile.q_parts;
        let k_empty = k_full + 8 * tile.kv_stages;
        let v_full = k_empty + 8 * tile.kv_stages;
        let v_empty = v_full + 8 * tile.kv_stages;
        let total_bytes = v_empty + 8 * tile.kv_stages;
        SmemPlan { q, k, v, parked, q_full, q_empty, k_full, k_empty, v_full, v_empty, total_bytes }
    }

    /// Of a kernel that copies by its own threads and parks nothing: all else is empty.
    const fn without_barriers(q: u32, k: u32, v: u32, end: u32) -> SmemPlan {
        let (parked, total_bytes) = (end, end);
        let (q_full, q_empty, k_full, k_empty, v_full, v_empty) = (end, end, end, end, end, end);
        SmemPlan { q, k, v, parked, q_full, q_empty, k_full, k_empty, v_full, v_empty, total_bytes }
    }
}

/// Refuses a tile that the kernel cannot work with.
pub(super) const fn assert_possible(tile: &Tile) {
    let plan = SmemPlan::of(tile);
    assert!(plan.k.is_multiple_of(1024) && plan.v.is_multiple_of(1024));
    assert!(tile.head_dim.is_multiple_of(32) && tile.head_dim <= 256);
    if matches!(tile.arch, Arch::Sm80) {
        assert!(tile.warps == 4 || tile.warps == 8);
        assert!(tile.q_rows().is_multiple_of(tile.warps * WARP_ROWS) && tile.kv_rows <= 128);
        // Each pass of the threads copies whole rows, four of each warp.
        assert!(tile.kv_rows.is_multiple_of(16) && tile.kv_rows.is_multiple_of(4 * tile.warps));
        assert!(!tile.parks && (tile.kv_stages == 1 || tile.kv_stages == 2));
        return;
    }
    assert!(
        tile.kv_rows.is_multiple_of(STEP_BYTES / tile.values.bytes())
            && KV_ROWS_LEAST <= tile.kv_rows
            && tile.kv_rows <= KV_ROWS_MOST,
        "no product has this number of KV rows"
    );
    assert!(tile.consumers == 2 || tile.consumers == 3);
    assert!(tile.q_parts >= tile.consumers);
}
