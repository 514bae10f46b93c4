//! The two products of a step.

use core::array::from_fn;

use super::Warp;
use crate::forward::shape::Shape;
use fulgurite_gpu::{
    element::Element,
    frag::{self, Accum, Matrices, row_bytes},
    mma,
};
use fulgurite_spec::{Dtype, Geometry, forward::WARP_ROWS, launch::WARPGROUP_ROWS};

impl<M, S, const D: u32, const KV: u32, const PARTS: usize> Warp<'_, M, S, D, KV, PARTS>
where
    M: Geometry,
    S: Shape<Values: Element>,
{
    /// Whether the products of a tile are added up before they are added to the output: the tensor
    /// core truncates what it adds, floats are rounded to nearest. Without it the error of f16 at
    /// head dim 64 passes the limit of `verify` at 30,000 keys of mean 1 (by half a percent).
    const SUMS_BY_TILE: bool = D == 64 && matches!(S::ROW.dtype, Dtype::F16);

    /// `scores += Q Kᵀ`.
    #[inline(always)]
    pub(super) unsafe fn multiply_scores(&self, scores: &mut [Accum<KV>; PARTS], stage: u32) {
        let own = Self::rows_before();
        let q = Self::q_part(self.call.smem, own / WARPGROUP_ROWS);
        let q = q.rows_of_a(own % WARPGROUP_ROWS);
        let k = self.buffer(S::PLAN.k, stage).rows_of_b();
        let mut step = 0;
        while step < D / 16 {
            // SAFETY: the caller has passed the barrier behind the copies; the whole warp is here.
            let a: [[u32; 4]; PARTS] =
                from_fn(|part| unsafe { q.load(row_bytes(WARP_ROWS * part as u32), step) });
            let mut pair = 0;
            while pair < KV / 16 {
                // SAFETY: as above.
                let b = unsafe { k.load(row_bytes(16 * pair), step) };
                let mut part = 0;
                while part < PARTS {
                    // SAFETY: as above.
                    unsafe { multiply::<S::Values, KV>(&mut scores[part], pair, a[part], b) }
                    part += 1;
                }
                pair += 1;
            }
            step += 1;
        }
    }

    /// `out += P V`, the probabilities rounded.
    #[inline(always)]
    pub(super) unsafe fn multiply_out(
        &self,
        out: &mut [Accum<D>; PARTS],
        probs: &[Accum<KV>; PARTS],
        stage: u32,
    ) {
        let packed: [frag::Packed<KV>; PARTS] = from_fn(|part| probs[part].pack::<S::Values>());
        let v = self.buffer(S::PLAN.v, stage).columns_of_b();
        if const { Self::SUMS_BY_TILE } {
            let mut pair = 0;
            while pair < D / 16 {
                // SAFETY: as in `multiply_scores`.
                unsafe { Self::add_sums_of_tile(out, &packed, v, pair) }
                pair += 1;
            }
            return;
        }
        let mut step = 0;
        while step < KV / 16 {
            let mut pair = 0;
            while pair < D / 16 {
                // SAFETY: as in `multiply_scores`.
                let b = unsafe { v.load(row_bytes(16 * step), pair) };
                let mut part = 0;
                while part < PARTS {
                    let a = packed[part].operand(step);
                    // SAFETY: as in `multiply_scores`.
                    unsafe { multiply::<S::Values, D>(&mut out[part], pair, a, b) }
                    part += 1;
                }
                pair += 1;
            }
            step += 1;
        }
    }

    /// `out += P V` for the columns `16 pair ..`, with a sum of its own for the tile.
    #[inline(always)]
    unsafe fn add_sums_of_tile(
        out: &mut [Accum<D>; PARTS],
        packed: &[frag::Packed<KV>; PARTS],
        v: Matrices<true>,
        pair: u32,
    ) {
        let mut sums: [Accum<16>; PARTS] = from_fn(|_| Accum::zero());
        let mut step = 0;
        while step < KV / 16 {
            // SAFETY: as in `multiply_scores`.
            let b = unsafe { v.load(row_bytes(16 * step), pair) };
            let mut part = 0;
            while part < PARTS {
                let a = packed[part].operand(step);
                // SAFETY: as in `multiply_scores`.
                unsafe { multiply::<S::Values, 16>(&mut sums[part], 0, a, b) }
                part += 1;
            }
            step += 1;
        }
        let mut part = 0;
        while part < PARTS {
            out[part].add_columns(&sums[part], 16 * pair);
            part += 1;
        }
    }
}

/// `sums += A × B` for the columns `16 pair ..`.
///
/// # Safety
/// All threads of the warp call it.
#[inline(always)]
#[track_caller]
unsafe fn multiply<T: Element, const N: u32>(
    sums: &mut Accum<N>,
    pair: u32,
    a: [u32; 4],
    b: [u32; 4],
) {
    // SAFETY: the caller's contract.
    unsafe {
        mma::multiply::<T, N>(sums, 2 * pair, a, [b[0], b[1]]);
        mma::multiply::<T, N>(sums, 2 * pair + 1, a, [b[2], b[3]]);
    }
}
