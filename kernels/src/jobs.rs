//! The forward kernels: which job, and one file per architecture. No loops here.

use core::ops::Range;
use fulgurite_gpu::thread;
use fulgurite_spec::{Ends, FwdScalars, Geometry, JobCursor, Tile, order::QueryTile};

/// K or V.
#[derive(Clone, Copy)]
pub enum Kv {
    /// Keys.
    K,
    /// Values.
    V,
}

/// One query tile of one head.
#[derive(Clone, Copy)]
pub struct Job {
    /// First query row.
    pub first_row: u32,
    /// The KV tile that is visited last. Kernels whose mask keeps a prefix do not look at it: where
    /// a number stands in the place of a constant 0, the compiler orders their loops otherwise.
    pub first_tile: u32,
    /// End of the KV tiles to visit, from the last to the first; 0 says that there is no job.
    pub kv_tiles: u32,
    /// `batch * head_count + head`.
    pub batch_head: u32,
}

impl Job {
    /// A query tile's job.
    #[inline(always)]
    pub fn of<M: Geometry>(found: QueryTile, scalars: &FwdScalars, mask: M, tile: &Tile) -> Job {
        let first_row = found.q_tile * tile.q_rows();
        let rows = rows(first_row, tile.q_rows(), scalars.q_len);
        let segments = mask.segments(rows, tile.kv_rows);
        Job {
            first_row,
            first_tile: segments.begin,
            kv_tiles: segments.end,
            batch_head: found.batch_head,
        }
    }

    /// Batch entry and query head.
    #[inline(always)]
    pub fn batch_and_head(&self, scalars: &FwdScalars) -> (u32, u32) {
        batch_and_head(scalars, self.batch_head)
    }

    /// Batch entry and head of K or of V that the job reads.
    #[inline(always)]
    pub fn kv_batch_and_head(&self, scalars: &FwdScalars, tensor: Kv) -> (u32, u32) {
        let (batch, head) = self.batch_and_head(scalars);
        let kv_head = scalars.group_size.divide(head);
        // 0 where the tensor has one batch entry for all.
        (batch & scalars.kv_batch_masks[tensor as usize], kv_head)
    }
}

/// Batch entry and query head of `batch * head_count + head`.
#[inline(always)]
pub fn batch_and_head(scalars: &FwdScalars, batch_head: u32) -> (u32, u32) {
    let batch = scalars.head_count.divide(batch_head);
    (batch, batch_head - batch * scalars.head_count.value)
}

/// This CTA's jobs. Producer and consumers each walk them: all of it is arithmetic on parameters,
/// so that loop bounds stay in uniform registers. Handed over through shared memory they do not,
/// and every operand of `wgmma` is then moved there first (8 to 39 instructions a step).
pub struct Jobs<'a, M> {
    scalars: &'a FwdScalars,
    tile: Tile,
    mask: M,
    cursor: JobCursor,
}

impl<'a, M: Geometry> Jobs<'a, M> {
    /// Before the first job.
    #[inline(always)]
    pub fn new(scalars: &'a FwdScalars, ends: Ends, tile: Tile) -> Self {
        let mask = M::new(scalars.q_len, scalars.kv_len, ends);
        Jobs { scalars, tile, mask, cursor: JobCursor::new() }
    }

    /// The next job, one without KV tiles after the last.
    #[allow(clippy::should_implement_trait, reason = "an iterator's `Option` costs registers")]
    #[inline(always)]
    pub fn next(&mut self) -> Job {
        let order = &self.scalars.order;
        let Some(found) = self.cursor.next(order, thread::block(), thread::block_count()) else {
            return Job { first_row: 0, first_tile: 0, kv_tiles: 0, batch_head: 0 };
        };
        Job::of(found, self.scalars, self.mask, &self.tile)
    }
}

/// The `count` query rows from `start` on, cut at `q_len` but never empty.
#[inline(always)]
pub fn rows(start: u32, count: u32, q_len: u32) -> Range<u32> {
    start..(start + count).min(q_len).max(start + 1)
}
