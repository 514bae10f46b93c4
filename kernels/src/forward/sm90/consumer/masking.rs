//! Which KV tiles of a job a consumer's rows need, and which elements of them.

use super::{Consumer, Shape};
use crate::{
    jobs::{Job, rows},
    softmax::OnlineSoftmax,
};
use fulgurite_gpu::{
    frag::{self, Accum},
    product::Scores,
};
use fulgurite_spec::{Geometry, launch::WARPGROUP_ROWS};

impl<M: Geometry, S: Shape, const D: u32, const KV: u32> Consumer<'_, M, S, D, KV> {
    /// End of the KV tiles of a job that this warpgroup's rows need; behind its first tile if all
    /// are padding.
    #[inline(always)]
    pub(super) fn own_tiles(&self, job: &Job, mask: M) -> u32 {
        let q_len = self.call.scalars.q_len;
        let first_row = self.first_row(job);
        if !M::ROWS_DIFFER {
            job.kv_tiles
        } else if first_row >= q_len {
            if M::FIRST {
                return job.first_tile + 1;
            }
            1
        } else {
            mask.segments(rows(first_row, WARPGROUP_ROWS, q_len), KV).end
        }
    }

    /// Sets the scores that the mask does not keep to `-inf`.
    #[inline(always)]
    pub(super) fn mask_tile(
        &self,
        softmax: &mut OnlineSoftmax,
        scores: &mut Accum<KV>,
        (mask, first_row, step): (M, u32, u32),
    ) {
        let [low, high] = frag::rows();
        let start = (step * KV) as i32;
        let end = [
            mask.keys(first_row + low).end as i32 - start,
            mask.keys(first_row + high).end as i32 - start,
        ];
        let mut unseen = [end[0] <= 0, end[1] <= 0];
        if M::FIRST {
            let first = [low, high].map(|row| mask.keys(first_row + row).start as i32 - start);
            scores.mask_outside(first, end);
            unseen = [unseen[0] || first[0] >= KV as i32, unseen[1] || first[1] >= KV as i32];
        } else {
            scores.mask_from(end);
        }
        if S::Scores::OWN_FACTORS {
            softmax.drop_factors(unseen);
        }
    }
}
