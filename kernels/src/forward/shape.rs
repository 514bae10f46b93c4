//! What every role of a kernel knows: its shape, at compile time and from its row of the table
//! alone, and the call.

use core::marker::PhantomData;

use fulgurite_gpu::{
    product::{Scores, Values},
    registers::Budget,
    smem::Smem,
    tma::MapAddress,
};
use fulgurite_spec::{
    Ends, ForwardRow, FwdScalars, LaunchSpec, QuantScalars, SmemPlan, SoftmaxKind, Tile,
};

/// The shape of a kernel's work; each entry has a type that says it.
pub trait Shape {
    /// Its row of the table.
    const ROW: ForwardRow;
    /// Element type of Q and K.
    type Scores: Scores;
    /// Element type of V.
    type Values: Values;
    /// The tile.
    const TILE: Tile = Tile::of(&Self::ROW);
    /// The softmax.
    const SOFTMAX: SoftmaxKind = Self::ROW.softmax;
    /// Its shared memory.
    const PLAN: SmemPlan = SmemPlan::of(&Self::TILE);
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

/// What every role needs; `I`: what says where Q, K and V are.
#[derive(Clone, Copy)]
pub struct Call<'a, I = MapAddress> {
    /// The parameters that threads read.
    pub scalars: &'a FwdScalars,
    /// The numbers of the mask.
    pub ends: Ends,
    /// Scales and shifts of elements of 8 bits, if they have such.
    pub quant: Option<&'a QuantScalars>,
    /// Where Q, K and V are; on Hopper the map of Q, which those of K and V follow.
    pub inputs: I,
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
