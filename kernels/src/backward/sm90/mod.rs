//! Gradients on Hopper: of keys and values, or of queries.
//!
//! A CTA has one job. The producer loads the rows that it holds once, and those that it walks
//! through two rings; each consumer owns 64 held rows (or a duty, see
//! [`BackwardTile::shares_rows`](fulgurite_spec::backward::BackwardTile::shares_rows)). Scores are
//! computed with held rows as rows, so that probabilities and gradients of scores are, rounded in
//! registers, the operand of the product that sums over what is walked; that one reads the same
//! buffers again, columns as rows.

mod consumer;
mod duty;
mod producer;
mod side;

use super::shape::{Call, ConsumerBudget, Shape, barriers};
use crate::barriers;
use fulgurite_gpu::{
    barrier, registers,
    smem::Smem,
    thread,
    tma::{self, MapAddress},
};
use fulgurite_spec::{
    Geometry,
    backward::{BwdScalars, Part},
};

/// The kernel.
///
/// # Safety
/// Launched with the shape's launch, a block for each job; `maps` are Q's, K's, V's and dO's as the
/// host encodes them for this tile; `scalars` describe the same call. `D` and `W` are the tile's
/// `head_dim` and `walked_rows`.
#[inline(always)]
pub unsafe fn run<M: Geometry, S: Shape, const D: u32, const W: u32>(
    maps: MapAddress,
    scalars: &BwdScalars,
) {
    const { assert!(S::TILE.head_dim == D && S::TILE.walked_rows == W) };
    let call = Call { scalars, maps, smem: Smem::base() };
    // SAFETY: every thread of the block comes here, then takes exactly one role.
    unsafe {
        if thread::index() == 0 {
            barriers::start(&const { barriers(&S::TILE, &S::PLAN) }, call.smem);
            let mut map = 0;
            while map < 4 {
                tma::prefetch(maps.plus(map));
                map += 1;
            }
        }
        barrier::sync_all();
        let warpgroup = thread::warpgroup();
        if warpgroup == 0 {
            producer::produce::<M, S>(&call)
        } else {
            registers::grow_to::<ConsumerBudget<S>>();
            match const { S::TILE.part } {
                Part::Dq => duty::queries::<M, S, D, W>(&call, warpgroup - 1),
                Part::DkDv if const { !S::TILE.shares_rows() } => {
                    duty::keys_and_values::<M, S, D, W>(&call, warpgroup - 1);
                }
                Part::DkDv if warpgroup == 1 => duty::values::<M, S, D, W>(&call),
                Part::DkDv => duty::keys::<M, S, D, W>(&call),
            }
        }
    }
}
