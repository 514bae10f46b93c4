//! The barriers of a CTA with one producer and some consumers, as data.

use crate::barriers::BarrierSpec;
use fulgurite_spec::{SmemPlan, Tile, launch::WARPGROUP_THREADS};

/// Named barrier of consumer 0's turn; 0 is the block's.
pub const TURN: u32 = 1;

/// Named barrier of the consumers' verdict: the one after the turns of at most three.
pub const VERDICT: u32 = TURN + 3;

/// Named barrier at which the warps of consumer 0 say whether their rows have settled.
pub const SETTLED: u32 = VERDICT + 1;

/// Every barrier of a CTA.
///
/// | name | who arrives | who waits |
/// |---|---|---|
/// | `q_full[part]` | producer, with the bytes of the rows | the consumer in turn |
/// | `q_empty[part]` | each warp of that consumer | producer |
/// | `k_full[stage]`, `v_full[stage]` | producer, with the bytes of the tile | consumers |
/// | `k_empty[stage]`, `v_empty[stage]` | each warp of every consumer | producer |
pub const fn barriers(tile: &Tile, plan: &SmemPlan) -> [BarrierSpec; 6] {
    let warps = WARPGROUP_THREADS / 32;
    [
        BarrierSpec { name: "q_full", offset: plan.q_full, count: tile.q_parts, arrivals: 1 },
        BarrierSpec { name: "q_empty", offset: plan.q_empty, count: tile.q_parts, arrivals: warps },
        BarrierSpec { name: "k_full", offset: plan.k_full, count: tile.kv_stages, arrivals: 1 },
        BarrierSpec {
            name: "k_empty",
            offset: plan.k_empty,
            count: tile.kv_stages,
            arrivals: tile.consumer_warps(),
        },
        BarrierSpec { name: "v_full", offset: plan.v_full, count: tile.kv_stages, arrivals: 1 },
        BarrierSpec {
            name: "v_empty",
            offset: plan.v_empty,
            count: tile.kv_stages,
            arrivals: tile.consumer_warps(),
        },
    ]
}
