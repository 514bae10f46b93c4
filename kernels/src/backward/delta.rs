//! What belongs to a query row alone: the sum of `d_out · out` less the gradient of the
//! log-sum-exp, and the log-sum-exp in base 2.

use core::f32::consts::LOG2_E;

use fulgurite_gpu::{element::Element, global, quad, thread};
use fulgurite_spec::backward::{DELTA_ROWS, DeltaParams};
use fulgurite_spec::params::Source;

/// One block's rows, four threads a row.
///
/// # Safety
/// Launched with [`fulgurite_spec::backward::DELTA_THREADS`], tensors and results as the parameters
/// say; a head has `blocks` blocks of rows, padding included.
#[inline(always)]
pub unsafe fn delta<T: Element>(params: &DeltaParams) {
    let block = thread::block();
    let entry = params.blocks.divide(block);
    let batch = params.heads.divide(entry);
    let head = entry - batch * params.heads.value;
    let row = (block - entry * params.blocks.value) * DELTA_ROWS + quad::index();
    let inside = row < params.q_len;
    // Padding is loaded as the last row: a load without a branch.
    let from = row.min(params.q_len - 1);
    let [out, d_out] = [&params.out, &params.d_out].map(|it| address(it, [batch, head, from]));
    let of_head = |length: u32| u64::from(entry) * u64::from(length);
    // SAFETY: the caller's contract; all threads of the warp are here.
    unsafe {
        let sum = quad::dot::<T>(out, d_out, params.head_dim);
        let at = 4 * (of_head(params.q_len) + u64::from(from));
        let lse = global::load_f32(params.lse + at);
        let d_lse = if params.d_lse == 0 { 0.0 } else { global::load_f32(params.d_lse + at) };
        if quad::leads() && row < params.q_pad {
            let has_keys = inside && lse != f32::NEG_INFINITY;
            let at = 4 * (of_head(params.q_pad) + u64::from(row));
            let lse2 = if has_keys { lse * LOG2_E } else { f32::INFINITY };
            global::store_f32(params.lse2 + at, lse2);
            global::store_f32(params.delta + at, if has_keys { sum - d_lse } else { 0.0 });
        }
    }
}

/// Device address of a row (batch entry, head, row) of 16-bit elements.
#[inline(always)]
fn address(source: &Source, [batch, head, row]: [u32; 3]) -> u64 {
    source.address
        + 2 * (u64::from(batch) * source.batch_stride
            + u64::from(head) * source.head_stride
            + u64::from(row) * source.row_stride)
}
