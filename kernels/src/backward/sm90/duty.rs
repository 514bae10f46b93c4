//! What a consumer can be for: the gradients of 64 keys and their values, of one of these, or of 64
//! queries.

use super::{
    consumer::{Consumer, store},
    side::{Columns, Rows},
};
use crate::backward::{
    job::Job,
    shape::{Call, Shape},
};
use core::ops::Range;
use fulgurite_gpu::{
    frag::{self, Accum},
    global,
};
use fulgurite_spec::{Geometry, backward::Gradient, launch::WARPGROUP_ROWS};

/// Gradients of this consumer's keys and values.
#[inline(always)]
pub(super) unsafe fn keys_and_values<M: Geometry, S: Shape, const D: u32, const W: u32>(
    call: &Call,
    number: u32,
) {
    let job = &Job::of::<M, S>(call.scalars);
    let (mut keys, mut values) = (Accum::<D>::zero(), Accum::<D>::zero());
    let first_key = job.held_row + number * WARPGROUP_ROWS;
    // SAFETY: the whole warpgroup comes here; all consumers take the job's steps in order.
    unsafe {
        let mut consumer = Consumer::<S, D, W>::start(call, number);
        let mut nth = 0;
        while nth < job.head_count {
            let mut step = job.begin;
            while step < job.end {
                let (side, masked) = columns::<M, W>(call, job, first_key, [nth, step]);
                if masked {
                    consumer.sum_both::<true>(&side, &mut keys, &mut values);
                } else {
                    consumer.sum_both::<false>(&side, &mut keys, &mut values);
                }
                step += 1;
            }
            nth += 1;
        }
        store_keys::<M, S, D>(call, number, keys);
        store_values::<M, S, D>(call, number, &values);
    }
}

/// Gradients of the values of the block's keys. Every step tests its elements: with a second copy
/// of the step for those that need no tests, head dim 256 spills 4 to 8 bytes.
#[inline(always)]
pub(super) unsafe fn values<M: Geometry, S: Shape, const D: u32, const W: u32>(call: &Call) {
    let job = &Job::of::<M, S>(call.scalars);
    let mut values = Accum::<D>::zero();
    // SAFETY: as `keys_and_values`.
    unsafe {
        let mut consumer = Consumer::<S, D, W>::start(call, 0);
        let mut nth = 0;
        while nth < job.head_count {
            let mut step = job.begin;
            while step < job.end {
                let (side, _) = columns::<M, W>(call, job, job.held_row, [nth, step]);
                consumer.sum_values::<true>(&side, &mut values);
                step += 1;
            }
            nth += 1;
        }
        store_values::<M, S, D>(call, 0, &values);
    }
}

/// Gradients of the block's keys. Every step tests its elements, as in [`values`].
#[inline(always)]
pub(super) unsafe fn keys<M: Geometry, S: Shape, const D: u32, const W: u32>(call: &Call) {
    let job = &Job::of::<M, S>(call.scalars);
    let mut keys = Accum::<D>::zero();
    // SAFETY: as `keys_and_values`.
    unsafe {
        let mut consumer = Consumer::<S, D, W>::start(call, 0);
        let mut nth = 0;
        while nth < job.head_count {
            let mut step = job.begin;
            while step < job.end {
                let (side, _) = columns::<M, W>(call, job, job.held_row, [nth, step]);
                consumer.sum_first::<true>(&side, &mut keys);
                step += 1;
            }
            nth += 1;
        }
        store_keys::<M, S, D>(call, 0, keys);
    }
}

/// Gradients of this consumer's queries.
#[inline(always)]
pub(super) unsafe fn queries<M: Geometry, S: Shape, const D: u32, const W: u32>(
    call: &Call,
    number: u32,
) {
    let job = &Job::of::<M, S>(call.scalars);
    let scalars = call.scalars;
    let mask = M::new(scalars.q_len, scalars.kv_len, scalars.ends);
    let first_row = job.held_row + number * WARPGROUP_ROWS;
    let rows = frag::rows().map(|row| first_row + row);
    let entry = job.batch * scalars.heads.value + job.first_head;
    let at = |floats: u64, row: u32| {
        floats + 4 * (u64::from(entry) * u64::from(scalars.q_pad) + u64::from(row))
    };
    let mut sums = Accum::<D>::zero();
    // SAFETY: as `keys_and_values`; a head has numbers for all rows of its last tile.
    unsafe {
        let lse2 = rows.map(|row| global::load_f32(at(scalars.lse2, row)));
        let delta = rows.map(|row| global::load_f32(at(scalars.delta, row)));
        let mut consumer = Consumer::<S, D, W>::start(call, number);
        // All of this consumer's rows see the keys between where its last one begins and where its
        // first one ends.
        let all_see = mask.keys(first_row + WARPGROUP_ROWS - 1).start..mask.keys(first_row).end;
        let keys = rows.map(|row| mask.keys(row));
        let mut step = job.begin;
        while step < job.end {
            let start = (step * W) as i32;
            let kept = [0, 1].map(|half: usize| {
                let Range { start: first, end } = &keys[half];
                *first as i32 - start..*end as i32 - start
            });
            let side = Rows { scale_log2: scalars.scale_log2, lse2, delta, kept };
            if step * W < all_see.start || (step + 1) * W > all_see.end {
                consumer.sum_first::<true>(&side, &mut sums);
            } else {
                consumer.sum_first::<false>(&side, &mut sums);
            }
            step += 1;
        }
        sums.scale_rows([scalars.scale; 2]);
        let (place, size) = ([job.batch, job.first_head], [scalars.q_len, scalars.head_dim]);
        store::<S::Element, D>(&sums, &scalars.first, place, first_row, size);
    }
}

/// What a step of the `nth` head knows of its queries, for 64 keys; whether some elements are left
/// out.
#[inline(always)]
fn columns<M: Geometry, const W: u32>(
    call: &Call,
    job: &Job,
    first_key: u32,
    [nth, step]: [u32; 2],
) -> (Columns, bool) {
    let scalars = call.scalars;
    let mask = M::new(scalars.q_len, scalars.kv_len, scalars.ends);
    let first_row = step * W;
    let entry = job.batch * scalars.heads.value + job.first_head + nth;
    let offset = 4 * (u64::from(entry) * u64::from(scalars.q_pad) + u64::from(first_row));
    let kept = frag::rows().map(|row| -> Range<i32> {
        let first = mask.first_row(first_key + row, scalars.q_len);
        let end = mask.end_row(first_key + row, scalars.q_len);
        first as i32 - first_row as i32..end as i32 - first_row as i32
    });
    let side = Columns {
        scale_log2: scalars.scale_log2,
        lse2: scalars.lse2 + offset,
        delta: scalars.delta + offset,
        kept,
    };
    // Padding keys have probabilities, and padding rows could have NaN if a key has infinity.
    let masked = mask.keys(first_row).end < first_key + WARPGROUP_ROWS
        || first_row + W > scalars.q_len
        || mask.keys(first_row + W - 1).start > first_key;
    (side, masked)
}

/// Stores the gradients of 64 keys, the block's or those of its consumer `number`.
///
/// # Safety
/// As [`store`].
#[inline(always)]
unsafe fn store_keys<M: Geometry, S: Shape, const D: u32>(
    call: &Call,
    number: u32,
    mut keys: Accum<D>,
) {
    keys.scale_rows([call.scalars.scale; 2]);
    // SAFETY: the caller's contract.
    unsafe { store_held::<M, S, D>(call, &call.scalars.first, number, &keys) }
}

/// Stores the gradients of the values of these keys.
///
/// # Safety
/// As [`store`].
#[inline(always)]
unsafe fn store_values<M: Geometry, S: Shape, const D: u32>(
    call: &Call,
    number: u32,
    values: &Accum<D>,
) {
    // SAFETY: the caller's contract.
    unsafe { store_held::<M, S, D>(call, &call.scalars.second, number, values) }
}

/// Stores a gradient of 64 held keys. Where they lie is found again: kept in registers over all
/// steps, head dim 256 spills.
///
/// # Safety
/// As [`store`].
#[inline(always)]
unsafe fn store_held<M: Geometry, S: Shape, const D: u32>(
    call: &Call,
    gradient: &Gradient,
    number: u32,
    sums: &Accum<D>,
) {
    let job = Job::of::<M, S>(call.scalars);
    let first_key = job.held_row + number * WARPGROUP_ROWS;
    let size = [call.scalars.kv_len, call.scalars.head_dim];
    // SAFETY: the caller's contract.
    unsafe {
        store::<S::Element, D>(sums, gradient, [job.batch, job.kv_head], first_key, size);
    }
}
