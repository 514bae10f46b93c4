//! The producer: one thread that loads.

use crate::{
    backward::{
        job::{Job, Tensor},
        shape::{Call, ProducerBudget, Shape},
    },
    ring::Cursor,
};
use fulgurite_gpu::{
    mbarrier, registers,
    smem::Smem,
    thread,
    tma::{self, Keep},
};
use fulgurite_spec::{
    Geometry,
    backward::Part,
    launch::WARPGROUP_ROWS,
    smem::{PANEL_COLUMNS, PANEL_ROW_BYTES},
};

/// Loads what the job holds, and then a step's rows of two tensors in turn.
#[inline(always)]
pub(super) unsafe fn produce<M: Geometry, S: Shape>(call: &Call) {
    // SAFETY: the whole warpgroup comes here once.
    unsafe { registers::shrink_to::<ProducerBudget<S>>() }
    if thread::index() != 0 {
        return;
    }
    let job = &Job::of::<M, S>(call.scalars);
    let (held, walked) = match const { S::TILE.part } {
        Part::DkDv => ([Tensor::K, Tensor::V], [Tensor::Q, Tensor::DOut]),
        Part::Dq => ([Tensor::Q, Tensor::DOut], [Tensor::K, Tensor::V]),
    };
    let (tile, plan) = const { (S::TILE, S::PLAN) };
    let (mut first, mut second) = (Cursor::fill(), Cursor::fill());
    // SAFETY: one thread of the block loads, in the order in which consumers wait.
    unsafe {
        load_held::<S>(call, job, held);
        let mut nth = 0;
        while nth < job.head_count {
            let mut step = job.begin;
            while step < job.end {
                let ring = [plan.first, plan.first_full, plan.first_empty, tile.first_stages];
                load_step::<S>(call, job, walked[0], [nth, step], &mut first, ring);
                let ring = [plan.second, plan.second_full, plan.second_empty, tile.second_stages];
                load_step::<S>(call, job, walked[1], [nth, step], &mut second, ring);
                step += 1;
            }
            nth += 1;
        }
    }
}

/// Loads the rows that are held, of two tensors.
///
/// # Safety
/// Called once, by one thread of the block.
#[inline(always)]
unsafe fn load_held<S: Shape>(call: &Call, job: &Job, tensors: [Tensor; 2]) {
    let (tile, plan) = const { (S::TILE, S::PLAN) };
    let full = call.bar(plan.held_full, 0);
    // SAFETY: nobody uses the buffers before; the boxes fill them exactly.
    unsafe {
        mbarrier::arrive_expect(full, 2 * tile.held_parts() * tile.held_part_bytes());
        let mut which = 0;
        while which < 2 {
            let mut part = 0;
            while part < tile.held_parts() {
                let row = job.held_row + part * WARPGROUP_ROWS;
                let to = [plan.held_first, plan.held_second][which];
                let to = call.smem.plus(to + part * tile.held_part_bytes());
                let from = (tensors[which], row, 0);
                load_panels::<S>(call, job, from, to, full, WARPGROUP_ROWS);
                part += 1;
            }
            which += 1;
        }
    }
}

/// Loads a step's rows (of the `nth` head) of one tensor, once consumers have left the buffer.
///
/// # Safety
/// Called by one thread of the block, in the order of the ring.
#[inline(always)]
unsafe fn load_step<S: Shape>(
    call: &Call,
    job: &Job,
    tensor: Tensor,
    [nth, step]: [u32; 2],
    cursor: &mut Cursor,
    [buffers, full, empty, stages]: [u32; 4],
) {
    let tile = const { S::TILE };
    let full = call.bar(full, cursor.stage);
    let to = call.smem.plus(buffers + cursor.stage * tile.stage_bytes());
    let from = (tensor, step * tile.walked_rows, nth);
    // SAFETY: after the wait nobody uses the buffer; the boxes fill it exactly.
    unsafe {
        mbarrier::wait(call.bar(empty, cursor.stage), cursor.parity);
        mbarrier::arrive_expect(full, tile.stage_bytes());
        load_panels::<S>(call, job, from, to, full, tile.walked_rows);
    }
    cursor.advance(1, stages);
}

/// Loads the panels of so many rows of a tensor.
///
/// # Safety
/// As [`tma::load`], for all panels.
#[inline(always)]
unsafe fn load_panels<S: Shape>(
    call: &Call,
    job: &Job,
    (tensor, row, nth): (Tensor, u32, u32),
    to: Smem,
    full: Smem,
    rows: u32,
) {
    let mut panel = 0;
    while panel < const { S::TILE.panels() } {
        let at = job.place(call.scalars, tensor, [panel * PANEL_COLUMNS, row], nth);
        let to = to.plus(panel * rows * PANEL_ROW_BYTES);
        // SAFETY: the caller's contract; the maps follow each other in this order.
        unsafe { tma::load(to, call.maps.plus(tensor as u32), full, at, Keep::Long) }
        panel += 1;
    }
}
