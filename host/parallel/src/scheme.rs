//! What all ways to share a call have in common.

use fulgurite::Forward;

use crate::program::Program;

/// A way to share a call, decided the same on all ranks.
pub(crate) trait Scheme {
    /// Groups of KV heads that are computed one after another.
    fn groups(&self) -> usize;

    /// Groups that have room at the same time.
    fn slots(&self) -> usize;

    /// Bytes that go from one rank to another: before the launches, and behind them.
    fn bytes(&self, from: usize, to: usize) -> [u64; 2];

    /// Pairs of a query and a key that a rank multiplies, all heads of a batch entry together.
    fn pairs(&self, rank: usize) -> f64;

    /// Bytes of a rank's workspace.
    fn workspace_bytes(&self, rank: usize) -> u64;

    /// What a rank does, with the strides of its own tensors.
    fn program(&self, rank: usize, local: &Forward) -> Program;
}
