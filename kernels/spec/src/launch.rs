//! How a variant is launched, as data: the builder stamps it into the PTX, the host passes it to
//! the driver, the kernel sets its registers from it.

use crate::tile::{SmemPlan, Tile, WARPGROUP_THREADS};
use crate::variants::{VARIANTS, Variant};

/// Registers of one multiprocessor.
const REGISTER_FILE: u32 = 65_536;

/// Block size, shared memory and register budget of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchSpec {
    /// Threads of a block: one producer warpgroup and the consumers.
    pub threads: u32,
    /// Blocks that fit on one multiprocessor.
    pub blocks_per_sm: u32,
    /// Dynamic shared memory of a block in bytes.
    pub smem_bytes: u32,
    /// Registers per thread that the producer keeps (`setmaxnreg.dec`).
    pub producer_registers: u32,
    /// Registers per thread that a consumer takes (`setmaxnreg.inc`).
    pub consumer_registers: u32,
}

impl LaunchSpec {
    /// The launch of a variant.
    pub const fn of(variant: &Variant) -> LaunchSpec {
        LaunchSpec::of_tile(&Tile::of(variant))
    }

    /// The launch of a tile.
    pub const fn of_tile(tile: &Tile) -> LaunchSpec {
        let (producer_registers, consumer_registers) = match tile.consumers {
            // 24 for the producer left it with spills of 4 to 16 bytes.
            2 => (40, 232),
            3 => (32, 160),
            _ => panic!("two or three consumer warpgroups"),
        };
        LaunchSpec {
            threads: (1 + tile.consumers) * WARPGROUP_THREADS,
            blocks_per_sm: 1,
            smem_bytes: SmemPlan::of(tile).total_bytes,
            producer_registers,
            consumer_registers,
        }
    }
}

const _: () = {
    let mut i = 0;
    while i < VARIANTS.len() {
        let spec = LaunchSpec::of(&VARIANTS[i]);
        let consumers = spec.threads / WARPGROUP_THREADS - 1;
        let asked = spec.producer_registers + consumers * spec.consumer_registers;
        // A block starts with an equal share per thread, in steps of 8; roles trade inside that.
        let share = REGISTER_FILE / spec.threads / 8 * 8;
        assert!(
            asked * WARPGROUP_THREADS <= share * spec.threads,
            "setmaxnreg would wait for ever"
        );
        i += 1;
    }
};
