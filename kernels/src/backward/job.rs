//! The one job of a CTA: which rows it holds, and which it walks.

use super::shape::Shape;
use fulgurite_gpu::thread;
use fulgurite_spec::{
    Geometry,
    backward::{BwdScalars, Part},
};

/// A tensor, by the place of its map.
#[derive(Clone, Copy)]
pub enum Tensor {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// The output's gradient.
    DOut,
}

/// What a CTA computes.
#[derive(Clone, Copy)]
pub struct Job {
    /// The batch entry.
    pub batch: u32,
    /// The KV head.
    pub kv_head: u32,
    /// First query head: the one that is held, or that is walked first.
    pub first_head: u32,
    /// Query heads.
    pub head_count: u32,
    /// First of the rows that are held.
    pub held_row: u32,
    /// First of the tiles that are walked, of each head.
    pub begin: u32,
    /// End of these.
    pub end: u32,
}

impl Job {
    /// The job of this CTA. Within a head the longest come first.
    #[inline(always)]
    pub fn of<M: Geometry, S: Shape>(scalars: &BwdScalars) -> Job {
        let (tile, walked_rows) = const { (S::TILE, S::TILE.walked_rows) };
        let mask = M::new(scalars.q_len, scalars.kv_len, scalars.ends);
        let block = thread::block();
        let entry = scalars.tiles.divide(block);
        let index = block - entry * scalars.tiles.value;
        match const { S::TILE.part } {
            Part::DkDv => {
                let batch = scalars.kv_heads.divide(entry);
                let kv_head = entry - batch * scalars.kv_heads.value;
                let head_count = scalars.group_size.value;
                let held_row = index * tile.held_rows();
                let last_key = (held_row + tile.held_rows()).min(scalars.kv_len) - 1;
                Job {
                    batch,
                    kv_head,
                    first_head: kv_head * head_count,
                    head_count,
                    held_row,
                    begin: mask.first_row(held_row, scalars.q_len) / walked_rows,
                    end: mask.end_row(last_key, scalars.q_len).div_ceil(walked_rows),
                }
            }
            Part::Dq => {
                let batch = scalars.heads.divide(entry);
                let first_head = entry - batch * scalars.heads.value;
                let held_row = (scalars.tiles.value - 1 - index) * tile.held_rows();
                let last_row = (held_row + tile.held_rows()).min(scalars.q_len) - 1;
                Job {
                    batch,
                    kv_head: scalars.group_size.divide(first_head),
                    first_head,
                    head_count: 1,
                    held_row,
                    begin: mask.keys(held_row).start / walked_rows,
                    end: mask.keys(last_row).end.div_ceil(walked_rows),
                }
            }
        }
    }

    /// Coordinates of a panel of a tensor: its first column and row, of the `nth` query head.
    #[inline(always)]
    pub fn place(
        &self,
        scalars: &BwdScalars,
        tensor: Tensor,
        [column, row]: [u32; 2],
        nth: u32,
    ) -> [u32; 4] {
        let kv = match tensor {
            Tensor::Q | Tensor::DOut => return [column, row, self.first_head + nth, self.batch],
            Tensor::K => 0,
            Tensor::V => 1,
        };
        // 0 where the tensor has one head, or batch entry, for all.
        let head = self.kv_head & scalars.kv_head_masks[kv];
        [column, row, head, self.batch & scalars.kv_batch_masks[kv]]
    }
}
