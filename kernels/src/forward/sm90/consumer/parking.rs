//! Parking: what keeps the error of long rows from growing with their number of keys.
//!
//! The tensor core adds products to its accumulator with truncation, which pulls every element
//! towards zero by a part of a unit in its last place for every 16 keys. A row of 2^20 keys loses
//! so 1.2e-3 of its norm, four times what rounding costs in f16. The loss is relative to what the
//! accumulator holds: so from time to time most of it is moved to shared memory, in 16 bits, and
//! only the remainder stays (after the two-level accumulation of FP8 products in DeepSeek-V3, Liu
//! et al. 2024, section 3.3.2, which adds whole partial sums elsewhere).

use super::{Consumer, Shape};
use crate::softmax::OnlineSoftmax;
use fulgurite_gpu::{
    product::Values,
    smem::{self, Smem},
    thread,
};
use fulgurite_spec::launch::WARPGROUP_THREADS;

/// Units that are added between branches at head dim 256: else ptxas would load all of them before
/// it stores some, and spill.
const PIECE: u32 = 4;

impl<M, S: Shape, const D: u32, const KV: u32> Consumer<'_, M, S, D, KV> {
    const PARKS: bool = S::SOFTMAX.parks();

    /// Steps between two parkings: a power of two, so that a mask finds them.
    const PARKING_STEPS: u32 = 1 << (S::Values::PARKED_KEYS / KV).ilog2();

    /// Bytes from one of a thread's units of 16 bytes to the next.
    const PARKED_STRIDE: u32 = 16 * S::TILE.consumers * WARPGROUP_THREADS;

    /// This thread's first unit.
    #[inline(always)]
    fn parked(&self) -> Smem {
        let thread = thread::index() - WARPGROUP_THREADS;
        self.call.smem.plus(S::PLAN.parked).plus(16 * thread)
    }

    /// Before a job: nothing is parked.
    ///
    /// # Safety
    /// The whole warpgroup comes here; between jobs nothing of an older one is needed.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn clear_parked(&self) {
        let mut unit = 0;
        while Self::PARKS && unit < D / 16 {
            // SAFETY: the plan reserves these bytes for this thread.
            unsafe { smem::store_16(self.parked().plus(unit * Self::PARKED_STRIDE), [0; 4]) }
            unit += 1;
        }
    }

    /// The tile behind whose step the output is parked next, if `step` tiles are left; 0 if never.
    #[inline(always)]
    pub(super) fn parking_before(step: u32) -> u32 {
        if Self::PARKS { (step - 1) & !(Self::PARKING_STEPS - 1) } else { 0 }
    }

    /// Parks the output.
    ///
    /// # Safety
    /// No product with V is in flight.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn park(&mut self, softmax: &mut OnlineSoftmax) {
        if Self::PARKS {
            let factor = softmax.take_since_parked();
            // SAFETY: as `clear_parked`, which has filled these bytes.
            unsafe { self.add_parked::<true>(factor) }
        }
    }

    /// After a job: all of the output is in its registers again.
    ///
    /// # Safety
    /// As [`park`](Self::park).
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn unpark(&mut self, softmax: &mut OnlineSoftmax) {
        if Self::PARKS {
            let factor = softmax.take_since_parked();
            // SAFETY: as `park`.
            unsafe { self.add_parked::<false>(factor) }
        }
    }

    /// Adds what was parked to the output, and parks it again, or not.
    ///
    /// # Safety
    /// As [`park`](Self::park).
    #[inline(always)]
    #[track_caller]
    unsafe fn add_parked<const AGAIN: bool>(&mut self, factor: [f32; 2]) {
        let (at, stride) = (self.parked(), Self::PARKED_STRIDE);
        if D <= 192 {
            // SAFETY: as `clear_parked`, which has filled these bytes.
            return unsafe { self.out.add_parked::<AGAIN>(at, stride, factor) };
        }
        let mut first = 0;
        while first < const { D / 16 } {
            // Always so, but no compiler knows.
            if first == 0 || self.call.scalars.head_dim <= D {
                let mut unit = first;
                while unit < first + PIECE {
                    // SAFETY: as `clear_parked`, which has filled these bytes.
                    unsafe { self.out.add_parked_unit::<AGAIN>(at, stride, factor, unit) }
                    unit += 1;
                }
            }
            first += PIECE;
        }
    }
}
