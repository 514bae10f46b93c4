//! Which rows of K and V are copied into which buffer.

use core::marker::PhantomData;

use crate::forward::shape::Shape;
use fulgurite_gpu::{
    frag::{Panels, RowsOf},
    smem::Smem,
};
use fulgurite_spec::Source;

/// The rows of one head of a batch entry from `first` on.
#[inline(always)]
pub(super) fn rows_of_head(
    source: &Source,
    (batch, head): (u32, u32),
    columns: u32,
    first: u32,
) -> RowsOf {
    let offset = u64::from(batch) * source.batch_stride + u64::from(head) * source.head_stride;
    RowsOf::new(source.address + 2 * offset, 2 * source.row_stride, columns, first)
}

/// The buffers of K and V, and which rows go there next.
pub(super) struct Ring<S, const D: u32, const KV: u32> {
    pub(super) smem: Smem,
    pub(super) k: RowsOf,
    pub(super) v: RowsOf,
    /// Rows of the job's last tile that there are, or more.
    pub(super) there: u32,
    /// The buffer that is read in this step; the other one, if there is one, is filled.
    pub(super) stage: u32,
    pub(super) kind: PhantomData<S>,
}

/// All threads of the block copy together; the barriers are the caller's.
impl<S: Shape, const D: u32, const KV: u32> Ring<S, D, KV> {
    /// The buffer of K or V that is filled.
    #[inline(always)]
    fn buffer(&self, offset: u32, stage: u32) -> Panels {
        let at = offset + stage * const { S::TILE.k_stage_bytes() };
        Panels::new(self.smem.plus(at), KV)
    }

    #[inline(always)]
    pub(super) unsafe fn load_last_k(&self) {
        let to = self.buffer(S::PLAN.k, 0);
        // SAFETY: the caller's barriers; the tensor has the rows that are said to be there.
        unsafe { to.copy::<KV, D>(self.k, self.there, S::LAUNCH.threads) }
    }

    #[inline(always)]
    pub(super) unsafe fn load_last_v(&self) {
        let to = self.buffer(S::PLAN.v, 0);
        // SAFETY: the caller's barriers; the tensor has the rows that are said to be there.
        unsafe { to.copy::<KV, D>(self.v, self.there, S::LAUNCH.threads) }
    }

    /// Starts copying the next K.
    #[inline(always)]
    pub(super) unsafe fn load_k(&mut self) {
        let to = self.buffer(S::PLAN.k, self.next_stage());
        // SAFETY: the caller's barriers; the tensor has these rows.
        unsafe { to.copy_above::<KV, D>(&mut self.k, S::LAUNCH.threads) }
    }

    /// Starts copying the next V.
    #[inline(always)]
    pub(super) unsafe fn load_v(&mut self) {
        let to = self.buffer(S::PLAN.v, self.next_stage());
        // SAFETY: the caller's barriers; the tensor has these rows.
        unsafe { to.copy_above::<KV, D>(&mut self.v, S::LAUNCH.threads) }
    }

    /// The buffer that is filled in this step.
    #[inline(always)]
    fn next_stage(&self) -> u32 {
        if const { S::TILE.kv_stages == 2 } { self.stage ^ 1 } else { 0 }
    }

    #[inline(always)]
    pub(super) fn advance(&mut self) {
        self.stage = self.next_stage();
    }
}
