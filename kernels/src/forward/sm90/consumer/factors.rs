//! Factors of scores of 8-bit elements: a row's times a KV tile's.
//!
//! Those of a job are read while its first product computes, those of a tile while the tile before
//! it does.

use super::{Consumer, Shape};
use crate::{epilogue::scale_of, jobs::Job, softmax::OnlineSoftmax};
use fulgurite_gpu::{frag, global, math, product::Scores};
use fulgurite_spec::{QuantScalars, launch::WARPGROUP_ROWS};

/// Factors as they were read for the next tile.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    /// Of this thread's rows, the softmax scale included, and that of K if tiles have none.
    rows: [f32; 2],
    /// Of the next tile.
    tile: f32,
    /// Where the tiles' factors lie.
    tiles: u64,
}

impl Factors {
    /// Before the first job.
    #[inline(always)]
    pub(super) fn none() -> Self {
        Factors { rows: [0.0; 2], tile: 0.0, tiles: 0 }
    }
}

impl<M, S: Shape, const D: u32, const KV: u32> Consumer<'_, M, S, D, KV> {
    /// Reads the factors of a job's rows and of its last tile, of `tiles` that this consumer needs.
    ///
    /// # Safety
    /// Addresses and strides are those of the call's scales.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn load_factors(&mut self, job: &Job, tiles: u32) {
        if let Some(quant) = self.call.quant {
            let (batch, head) = job.batch_and_head(self.call.scalars);
            let kv_head = self.call.scalars.group_size.divide(head);
            // SAFETY: the caller's contract.
            unsafe {
                let rows = self.row_scales(quant, job, [batch, head, kv_head]);
                self.factors.rows = rows.map(|scale| scale * self.call.scalars.scale_log2);
                if S::Scores::TILE_FACTORS {
                    self.factors.tiles = quant.k_scale.at(batch, kv_head);
                    self.factors.tile = self.tile_factor(tiles - 1);
                } else {
                    let tile = scale_of(&quant.k_scale, batch, kv_head);
                    self.factors.rows = self.factors.rows.map(|row| of_scores(row * tile));
                }
            }
        }
    }

    /// The scales of this thread's rows; padding has that of the last row.
    #[inline(always)]
    #[track_caller]
    unsafe fn row_scales(
        &self,
        quant: &QuantScalars,
        job: &Job,
        [batch, head, kv_head]: [u32; 3],
    ) -> [f32; 2] {
        // SAFETY: the caller's contract; rows lie below `q_len`.
        unsafe {
            if quant.q_scale_by_row == 0 {
                return [scale_of(&quant.q_scale, batch, kv_head); 2];
            }
            let first = quant.q_scale.at(batch, head);
            let last = self.call.scalars.q_len - 1;
            let first_row = job.first_row + self.number * WARPGROUP_ROWS;
            let [low, high] = frag::rows().map(|row| (first_row + row).min(last));
            [low, high].map(|row| global::load_f32(first + 4 * u64::from(row)))
        }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn tile_factor(&self, tile: u32) -> f32 {
        // SAFETY: the caller's contract: a float for each tile.
        unsafe { global::load_f32(self.factors.tiles + 4 * u64::from(tile)) }
    }

    /// The softmax of a job's rows.
    #[inline(always)]
    pub(super) fn new_softmax(&self) -> OnlineSoftmax {
        if S::Scores::OWN_FACTORS {
            OnlineSoftmax::of_exponents()
        } else {
            OnlineSoftmax::new(self.call.scalars.scale_log2)
        }
    }

    /// Gives the softmax the factors of tile `tile`, and reads those of the one in front of it.
    ///
    /// # Safety
    /// As [`load_factors`](Self::load_factors).
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn take_factors(&mut self, softmax: &mut OnlineSoftmax, tile: u32) {
        if S::Scores::OWN_FACTORS {
            let Factors { rows, tile: of_tile, .. } = self.factors;
            softmax.set_factor(match S::Scores::TILE_FACTORS {
                true => rows.map(|row| of_scores(row * of_tile)),
                false => rows,
            });
            if S::Scores::TILE_FACTORS {
                // SAFETY: the caller's contract.
                self.factors.tile = unsafe { self.tile_factor(tile.saturating_sub(1)) };
            }
        }
    }
}

/// The factor of a row's scores. One of 0 would make NaN of scores that a mask took. So small a one
/// leaves all keys the same weight, as they should have; NaN stays NaN.
#[inline(always)]
fn of_scores(factor: f32) -> f32 {
    math::max_nan(factor, f32::MIN_POSITIVE)
}
