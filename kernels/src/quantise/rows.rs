//! Q and K: rotated rows as signed integers.

use super::{Part, finite, row_address};
use fulgurite_gpu::{
    barrier,
    element::Element,
    global, math,
    quad::{self, QuadRow},
    smem,
    smem::Smem,
    thread,
};
use fulgurite_spec::quantise::{BLOCK_ROWS, QuantiseParams, S8_MAX, THREADS};

/// Rows that a block has at a time.
const ROWS: u32 = THREADS / quad::THREADS;

/// What integers are multiplied with to be the numbers again, and what those are multiplied with
/// to be integers, where the largest number has this size. NaN if that is no number; where all are
/// zeros the scale is the least normal number, and the factor no infinity.
#[inline(always)]
fn scale_and_factor(largest: f32) -> [f32; 2] {
    let largest = finite(math::max_nan(largest, S8_MAX * f32::MIN_POSITIVE));
    [largest / S8_MAX, S8_MAX / largest]
}

/// One block's rows of Q.
///
/// # Safety
/// As [`super::quantise`].
#[inline(always)]
pub(super) unsafe fn quantise_q<T: Element, const UNITS: usize>(
    params: &QuantiseParams,
    part: Part,
) {
    let batch = part.batch.min(params.k_batch - 1);
    let kv_entry = batch * params.kv_heads.value + params.group_size.divide(part.head);
    let shift_place = u64::from(kv_entry) * u64::from(QuadRow::<UNITS>::COLUMNS);
    let first = part.part * BLOCK_ROWS + quad::index();
    let mut turn = 0;
    while turn < BLOCK_ROWS / ROWS {
        let row = first + turn * ROWS;
        let inside = row < params.q_len;
        let from = row_address(&params.q, part.batch, part.head, row.min(params.q_len - 1));
        let place = u64::from(part.entry) * u64::from(params.q_len) + u64::from(row);
        // SAFETY: the caller's contract; rows beyond the last are loaded as the last and not
        // stored; all threads of the warp are here.
        unsafe {
            let mut q = QuadRow::<UNITS>::load::<T>(from, params.head_dim);
            if params.q_shift != 0 {
                let shift = q.dot(params.k_shift + 4 * shift_place) * params.scale;
                if inside && quad::leads() {
                    global::store_f32(params.q_shift + 4 * place, shift);
                }
            }
            q.rotate();
            let [scale, factor] = scale_and_factor(quad::largest::<false>(q.own_largest()));
            if inside {
                q.store_s8(params.q8 + place * u64::from(QuadRow::<UNITS>::COLUMNS), factor);
                if quad::leads() {
                    global::store_f32(params.q_scale + 4 * place, scale);
                }
            }
        }
        turn += 1;
    }
}

/// One block's KV tile of K. The tile is read twice, the second time from caches, because the scale
/// must be known before the first row is rounded.
///
/// # Safety
/// As [`super::quantise`].
#[inline(always)]
pub(super) unsafe fn quantise_k<T: Element, const UNITS: usize>(
    params: &QuantiseParams,
    part: Part,
) {
    let columns = u64::from(QuadRow::<UNITS>::COLUMNS);
    let mean = match params.k_shift {
        0 => 0,
        means => means + 4 * u64::from(part.entry) * columns,
    };
    let first = part.part * params.kv_rows;
    let rows = (params.kv_len - first).min(params.kv_rows);
    // Rows beyond the last are loaded as the last.
    let address =
        |row: u32| row_address(&params.k, part.batch, part.head, first + row.min(rows - 1));
    let mut largest = 0.0;
    let mut turn = 0;
    while turn < rows {
        // SAFETY: the caller's contract; all threads of the warp are here.
        let k = unsafe { rotated_k::<T, UNITS>(address(turn + quad::index()), params, mean) };
        largest = math::max_nan(largest, k.own_largest());
        turn += ROWS;
    }
    // SAFETY: all threads of the block are here.
    let [scale, factor] = scale_and_factor(unsafe { largest_of_block(largest) });
    if thread::index() == 0 {
        let place = u64::from(part.entry) * u64::from(params.k_blocks.value) + u64::from(part.part);
        // SAFETY: the tile's scale, which this thread alone writes.
        unsafe { global::store_f32(params.k_scale + 4 * place, scale) }
    }
    let mut turn = 0;
    while turn < rows {
        let row = turn + quad::index();
        // SAFETY: as above.
        let k = unsafe { rotated_k::<T, UNITS>(address(row), params, mean) };
        if row < rows {
            let place = u64::from(part.entry) * u64::from(params.kv_len) + u64::from(first + row);
            // SAFETY: a row of the tile, which this quad alone writes.
            unsafe { k.store_s8(params.k8 + place * columns, factor) }
        }
        turn += ROWS;
    }
}

/// A row of K less the means, if they have an address, rotated.
///
/// # Safety
/// The addresses are those of a row of K and of its head's means; all threads of the warp call it.
#[inline(always)]
unsafe fn rotated_k<T: Element, const UNITS: usize>(
    address: u64,
    params: &QuantiseParams,
    mean: u64,
) -> QuadRow<UNITS> {
    // SAFETY: the caller's contract.
    unsafe {
        let mut k = QuadRow::load::<T>(address, params.head_dim);
        if mean != 0 {
            k.subtract(mean);
        }
        k.rotate();
        k
    }
}

/// The largest value of the block's threads; NaN if there is one.
///
/// # Safety
/// All threads of the block call it, once, with 16 bytes of shared memory for each warp.
#[inline(always)]
unsafe fn largest_of_block(value: f32) -> f32 {
    // SAFETY: one thread of each warp writes its place; all have met before any is read.
    unsafe {
        let value = quad::largest::<true>(value);
        if thread::leads_warp() {
            let at = Smem::base().plus(thread::index() / 32 * 16);
            smem::store_16(at, [value.to_bits(), 0, 0, 0]);
        }
        barrier::sync_all();
        let mut largest = 0.0;
        let mut warp = 0;
        while warp < THREADS / 32 {
            let [bits, ..] = smem::load_16(Smem::base().plus(16 * warp));
            largest = math::max_nan(largest, f32::from_bits(bits));
            warp += 1;
        }
        largest
    }
}
