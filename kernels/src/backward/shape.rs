//! What every role of a kernel knows: its shape, at compile time and from its row of the table
//! alone, and the call.

use core::marker::PhantomData;

use crate::barriers::BarrierSpec;
use fulgurite_gpu::{element, registers::Budget, smem::Smem, tma::MapAddress};
use fulgurite_spec::{
    LaunchSpec,
    backward::{BackwardPlan, BackwardRow, BackwardTile, BwdScalars},
};

/// The shape of a kernel's work; each entry has a type that says it.
pub trait Shape {
    /// Its row of the table.
    const ROW: BackwardRow;
    /// Element type of all tensors.
    type Element: element::Element;
    /// The tile.
    const TILE: BackwardTile = BackwardTile::of(&Self::ROW);
    /// Its shared memory.
    const PLAN: BackwardPlan = BackwardPlan::of(&Self::TILE);
    /// Its launch.
    const LAUNCH: LaunchSpec = Self::TILE.launch();
}

/// The producer's register budget.
pub struct ProducerBudget<S>(PhantomData<S>);

/// A consumer's register budget.
pub struct ConsumerBudget<S>(PhantomData<S>);

impl<S: Shape> Budget for ProducerBudget<S> {
    const REGISTERS: u32 = S::LAUNCH.producer_registers;
}

impl<S: Shape> Budget for ConsumerBudget<S> {
    const REGISTERS: u32 = S::LAUNCH.consumer_registers;
}

/// What every role needs.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The parameters that threads read.
    pub scalars: &'a BwdScalars,
    /// Map of Q; those of K, V and dO follow.
    pub maps: MapAddress,
    /// The block's shared memory.
    pub smem: Smem,
}

impl Call<'_> {
    /// The barrier number `index` of the family at `offset`.
    #[inline(always)]
    pub fn bar(&self, offset: u32, index: u32) -> Smem {
        self.smem.plus(offset + 8 * index)
    }
}

/// Every barrier of a CTA.
///
/// | name | who arrives | who waits |
/// |---|---|---|
/// | `held_full` | producer, with the bytes of all that is held | consumers |
/// | `first_full[stage]`, `second_full[stage]` | producer, with the bytes of a step | consumers |
/// | `first_empty[stage]`, `second_empty[stage]` | each warp of every consumer | producer |
pub const fn barriers(tile: &BackwardTile, plan: &BackwardPlan) -> [BarrierSpec; 5] {
    let (first, second, warps) = (tile.first_stages, tile.second_stages, tile.consumer_warps());
    [
        BarrierSpec { name: "held_full", offset: plan.held_full, count: 1, arrivals: 1 },
        BarrierSpec { name: "first_full", offset: plan.first_full, count: first, arrivals: 1 },
        BarrierSpec {
            name: "first_empty",
            offset: plan.first_empty,
            count: first,
            arrivals: warps,
        },
        BarrierSpec { name: "second_full", offset: plan.second_full, count: second, arrivals: 1 },
        BarrierSpec {
            name: "second_empty",
            offset: plan.second_empty,
            count: second,
            arrivals: warps,
        },
    ]
}
