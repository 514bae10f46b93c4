//! What a launch did, in numbers.

use std::collections::BTreeMap;

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Products that warpgroups issued.
    pub products: u64,
    /// Copies of the copy engine.
    pub copies: u64,
    /// Bytes that they brought to shared memory.
    pub copy_bytes: u64,
    /// Bytes of the boxes that they took from shared memory.
    pub store_bytes: u64,
    /// Arrivals at and waits for barriers: of a thread at an mbarrier, of a warp at a named one.
    pub barrier_operations: u64,
    /// Steps of the scheduler.
    pub steps: u64,
    /// Events that the kernel counts ([`count`](crate::planted::count)), by their names, once for
    /// each warp.
    pub events: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Adds those of another block.
    pub(crate) fn add(&mut self, other: &Stats) {
        self.products += other.products;
        self.copies += other.copies;
        self.copy_bytes += other.copy_bytes;
        self.store_bytes += other.store_bytes;
        self.barrier_operations += other.barrier_operations;
        self.steps += other.steps;
        for (name, count) in &other.events {
            *self.events.entry(name).or_default() += count;
        }
    }
}
