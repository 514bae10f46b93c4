//! What happens to a finished job: normalise, round, store, log-sum-exp.
//!
//! Rows go from registers straight to global memory. That needs no shared memory, so Q and K of
//! the next job can already be on their way, takes any strides, and cuts partial tiles by row.

use core::ops::Range;

use crate::{
    forward::shape::{Call, Shape},
    jobs::{Job, Kv, batch_and_head},
    softmax::Finished,
};
use fulgurite_gpu::{
    frag::{self, Accum, Shifts},
    global,
    product::Values,
    thread,
};
use fulgurite_spec::{FwdScalars, QuantScalars, ScaleAddress, launch::WARPGROUP_ROWS};

/// Stores the rows of a warpgroup; `rows` are the indices in the head of the two that this thread
/// holds, of which those are stored that `stored` says.
///
/// # Safety
/// The addresses and strides in `scalars` are those of the caller's output tensors, as the host
/// has checked them; rows that are stored lie below `q_len`; each row belongs to one warpgroup.
#[inline(always)]
pub unsafe fn store<S: Shape, const D: u32>(
    call: &Call<'_, impl Copy>,
    job: &Job,
    rows: [u32; 2],
    out: &mut Accum<D>,
    finished: &Finished,
    stored: [bool; 2],
) {
    let scalars = call.scalars;
    let address = out_addresses(scalars, job.batch_head);
    let addresses = [address(rows[0]), address(rows[1])];
    let mut lse = finished.lse;
    // SAFETY: the caller's contract: the rows lie inside the output tensor.
    unsafe {
        let columns = scalars.head_dim;
        match call.quant {
            Some(quant) if S::TILE.subtracts_means() => {
                let is_f16 = quant.out_is_f16 != 0;
                if S::TILE.transposes_v() {
                    let shifts = shifts::<D>(call, quant, job, finished);
                    S::Values::store_shifted(out, is_f16, &shifts, columns, stored, addresses);
                } else {
                    S::Values::store_rows(out, is_f16, finished.factor, columns, stored, addresses);
                }
                give_back(call, quant, job, rows, &mut lse);
            }
            Some(quant) => {
                let (batch, head) = job.batch_and_head(scalars);
                let kv_head = scalars.group_size.divide(head);
                let v_scale = scale_of(&quant.v_scale, batch, kv_head);
                let factor = finished.factor.map(|factor| factor * v_scale);
                let is_f16 = quant.out_is_f16 != 0;
                S::Values::store_rows(out, is_f16, factor, columns, stored, addresses);
            }
            None => {
                S::Values::store_rows(out, false, finished.factor, columns, stored, addresses);
            }
        }
    }
    if scalars.lse != 0 {
        let address = float_addresses(scalars.lse, scalars, job.batch_head);
        // SAFETY: and so inside the log-sum-exp tensor.
        unsafe { frag::store_per_row(lse, stored, |half| address(rows[half])) }
    }
}

/// What normalises the output of quantised elements, and gives it back the means of V.
///
/// # Safety
/// As [`store`]; scales and shifts are those of the call's tensors.
#[inline(always)]
unsafe fn shifts<const D: u32>(
    call: &Call<'_, impl Copy>,
    quant: &QuantScalars,
    job: &Job,
    finished: &Finished,
) -> Shifts {
    let (batch, kv_head) = job.kv_batch_and_head(call.scalars, Kv::V);
    let kv_heads = call.scalars.group_size.divide(call.scalars.head_count.value);
    // SAFETY: the caller's contract.
    let v_scale = unsafe { scale_of(&quant.v_scale, job.batch_and_head(call.scalars).0, kv_head) };
    let entry = u64::from(batch) * u64::from(kv_heads) + u64::from(kv_head);
    Shifts {
        factor: finished.factor.map(|factor| factor * v_scale),
        address: if quant.v_shift == 0 { 0 } else { quant.v_shift + 4 * u64::from(D) * entry },
        // A row without keys stays 0.
        weight: finished.factor.map(|factor| if factor == 0.0 { 0.0 } else { 1.0 }),
    }
}

/// Gives the log-sum-exp back what K's mean took.
///
/// # Safety
/// As [`shifts`].
#[inline(always)]
unsafe fn give_back(
    call: &Call<'_, impl Copy>,
    quant: &QuantScalars,
    job: &Job,
    rows: [u32; 2],
    lse: &mut [f32; 2],
) {
    if call.scalars.lse != 0 && quant.q_shift != 0 {
        let address = float_addresses(quant.q_shift, call.scalars, job.batch_head);
        let mut half = 0;
        while half < 2 {
            let row = rows[half].min(call.scalars.q_len - 1);
            // SAFETY: the caller's contract: a float for each row.
            lse[half] += unsafe { global::load_f32(address(row)) };
            half += 1;
        }
    }
}

/// The scale of a head; 1 if there is none.
///
/// # Safety
/// The address, if there is one, is that of scales with these strides.
#[inline(always)]
pub unsafe fn scale_of(scale: &ScaleAddress, batch: u32, head: u32) -> f32 {
    if scale.address == 0 {
        return 1.0;
    }
    // SAFETY: the caller's contract.
    unsafe { global::load_f32(scale.at(batch, head)) }
}

/// Which rows are inside of the head, not padding.
#[inline(always)]
pub fn inside(scalars: &FwdScalars, rows: [u32; 2]) -> [bool; 2] {
    [rows[0] < scalars.q_len, rows[1] < scalars.q_len]
}

/// Which of a job's rows, once stored, are lost: NaN in their first column says so. It is there as
/// well where V has a NaN in that column; such a row counts as lost too, on its own account.
///
/// # Safety
/// As [`store`], which has stored these rows; called by all threads of the warp.
#[inline(always)]
pub unsafe fn lost_rows<T: Values>(
    call: &Call<'_, impl Copy>,
    job: &Job,
    rows: [u32; 2],
) -> [bool; 2] {
    let scalars = call.scalars;
    let infinity = T::infinity_bits(call.quant.is_some_and(|quant| quant.out_is_f16 != 0));
    let address = out_addresses(scalars, job.batch_head);
    let inside = inside(scalars, rows);
    // SAFETY: the caller's contract.
    unsafe { frag::first_is_nan(infinity, inside, |half| address(rows[half])) }
}

/// Stores the query tiles without keys, in pieces of 64 rows, `tile_pieces` a tile, shared among
/// the last three warps of each block's first warpgroup.
///
/// # Safety
/// As [`store`]; called by all threads of these warps; nobody else writes these tiles.
#[inline(always)]
pub unsafe fn store_keyless_tiles(scalars: &FwdScalars, tile_pieces: u32) {
    let order = &scalars.order;
    // Fewer than 2³² pieces: so many have 4 TiB of output.
    let pieces_of_head = order.keyless_q_tiles * tile_pieces;
    let count = pieces_of_head * order.batch_head_count;
    let mut next = 3 * thread::block() + thread::warp() - 1;
    while next < count {
        let batch_head = next / pieces_of_head;
        let first_row = (next - batch_head * pieces_of_head) * WARPGROUP_ROWS;
        let rows = first_row..(first_row + WARPGROUP_ROWS).min(scalars.q_len);
        // SAFETY: the caller's contract; the warps take turns.
        unsafe { store_keyless(scalars, batch_head, rows) }
        next += 3 * thread::block_count();
    }
}

/// Stores rows of a head that have no keys: output 0, log-sum-exp `-inf`.
///
/// # Safety
/// As [`store`]; called by all threads of one warp.
#[inline(always)]
pub unsafe fn store_keyless(scalars: &FwdScalars, batch_head: u32, rows: Range<u32>) {
    let address = out_addresses(scalars, batch_head);
    // SAFETY: rows without keys lie below `q_len`, inside the output tensor.
    unsafe { frag::zero_rows(rows.clone(), scalars.head_dim, address) }
    if scalars.lse != 0 {
        let address = float_addresses(scalars.lse, scalars, batch_head);
        // SAFETY: and so inside the log-sum-exp tensor.
        unsafe { frag::fill_per_row(rows, f32::NEG_INFINITY, address) }
    }
}

/// Where the rows of a head's output start.
#[inline(always)]
fn out_addresses(scalars: &FwdScalars, batch_head: u32) -> impl Fn(u32) -> u64 {
    let (batch, head) = batch_and_head(scalars, batch_head);
    let base = scalars.out
        + 2 * (u64::from(batch) * scalars.out_batch_stride
            + u64::from(head) * scalars.out_head_stride);
    move |row| base + 2 * (u64::from(row) * scalars.out_row_stride)
}

/// Where the floats of a head's rows lie, the log-sum-exp or what it gets added: `q_len` per head,
/// contiguous, the first head's at `floats`.
#[inline(always)]
fn float_addresses(floats: u64, scalars: &FwdScalars, batch_head: u32) -> impl Fn(u32) -> u64 {
    let first = u64::from(batch_head) * u64::from(scalars.q_len);
    move |row| floats + 4 * (first + u64::from(row))
}
