//! What is launched.

use super::accumulator::Accumulator;
use super::global::Global;
use super::mutation::Mutation;

/// What is launched: a grid of blocks, what its kernel is given, and how it runs.
#[derive(Clone, Copy, Debug)]
pub struct Grid<'a> {
    /// Blocks of the grid.
    pub blocks: u32,
    /// Threads of a block: a multiple of 128, at most 1024.
    pub threads: u32,
    /// Dynamic shared memory of a block in bytes.
    pub smem_bytes: u32,
    /// Address and length of the kernel's parameters, where its tensor maps lie; the address's
    /// provenance is exposed.
    pub parameters: (u64, usize),
    /// Global memory.
    pub global: &'a Global<'a>,
    /// The order of running: see [`Schedule`](super::Schedule).
    pub seed: u64,
    /// An error to plant.
    pub mutation: Option<Mutation>,
    /// Whether to list the sites where errors could be planted, and what the warps did.
    pub record: bool,
    /// How the tensor core adds.
    pub accumulator: Accumulator,
}
