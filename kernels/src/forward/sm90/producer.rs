//! The producer: one warp that loads, three that store the query tiles without keys.

use crate::{
    epilogue,
    forward::shape::{Call, ProducerBudget, Shape},
    jobs::{Job, Jobs, Kv},
    ring::Cursor,
};
use fulgurite_gpu::{
    mbarrier, registers, thread,
    tma::{self, Keep},
};
use fulgurite_spec::{Geometry, Tile, launch::WARPGROUP_ROWS};

/// Feeds the consumers for the first pass over the jobs. The warps that have no part in that store
/// the query tiles without keys, if those are no jobs.
#[inline(always)]
pub unsafe fn produce<M: Geometry, S: Shape>(call: &Call) {
    // SAFETY: the whole warpgroup comes here once.
    unsafe { registers::shrink_to::<ProducerBudget<S>>() }
    if thread::warp() == 0 {
        let leads = thread::index() == 0;
        if const { warp_loads(&S::TILE, M::ROWS_DIFFER) } || leads {
            // SAFETY: this warp alone loads, until consumers do for a second pass.
            unsafe { load_jobs::<M, S>(call, leads) }
        }
    } else if const { S::ROW.stores_keyless() } {
        // SAFETY: jobs have rows of other query tiles.
        unsafe { epilogue::store_keyless_tiles(call.scalars, const { S::TILE.consumers }) }
    }
}

/// Whether the whole producer warp walks the jobs and waits, though one thread loads. In code that
/// a single thread runs, ptxas moves the 7 operands of each copy to uniform registers first: 0.5
/// to 2 % at head dims up to 128. At head dim 256, full, one thread alone is 1 % faster.
const fn warp_loads(tile: &Tile, rows_differ: bool) -> bool {
    tile.score_panels() < 4 || rows_differ
}

/// Loads Q of every job, and K and V of every step, in the order in which consumers want them.
///
/// # Safety
/// Called by all threads of one warp or by some; one of them `leads`, for the whole block. Those
/// that do not lead may not fall behind in a wait: a warp asks a barrier once for all its threads,
/// by one instruction with one address, so that they leave the wait together.
#[inline(always)]
unsafe fn load_jobs<M: Geometry, S: Shape>(call: &Call, leads: bool) {
    let (mut q, mut k, mut v) = (Cursor::fill(), Cursor::fill(), Cursor::fill());
    let mut jobs = Jobs::<M>::new(call.scalars, call.ends, const { S::TILE });
    let mut job = jobs.next();
    while job.kv_tiles > 0 {
        let mut step = job.kv_tiles - 1;
        // SAFETY: the caller's contract.
        unsafe {
            load_k::<S>(call, &mut k, &job, step, leads);
            load_q::<S>(call, &mut q, &job, leads);
            while step > 0 {
                if M::FIRST && step == job.first_tile {
                    break;
                }
                load_k::<S>(call, &mut k, &job, step - 1, leads);
                load_v::<S>(call, &mut v, &job, step, leads);
                step -= 1;
            }
            if M::FIRST {
                load_v::<S>(call, &mut v, &job, step, leads);
            } else {
                load_v::<S>(call, &mut v, &job, 0, leads);
            }
        }
        job = jobs.next();
    }
}

/// Loads a job's Q, each consumer's rows as soon as that consumer has left the buffer.
///
/// # Safety
/// Called by one warp, or by some threads of it, in the order of the ring; one thread `leads`.
#[inline(always)]
pub unsafe fn load_q<S: Shape>(call: &Call, cursor: &mut Cursor, job: &Job, leads: bool) {
    let (tile, plan) = const { (S::TILE, S::PLAN) };
    let (batch, head) = job.batch_and_head(call.scalars);
    let mut consumer = 0;
    while consumer < tile.consumers {
        let part = cursor.stage;
        let full = call.bar(plan.q_full, part);
        let row = job.first_row + consumer * WARPGROUP_ROWS;
        let to = call.smem.plus(plan.q + part * tile.q_part_bytes());
        // SAFETY: after the wait nobody uses the buffer; the boxes fill it exactly.
        unsafe {
            mbarrier::wait(call.bar(plan.q_empty, part), cursor.parity);
            if leads {
                mbarrier::arrive_expect(full, tile.q_part_bytes());
                let mut panel = 0;
                while panel < tile.score_panels() {
                    let at = [panel * tile.score_panel_columns(), row, head, batch];
                    let to = to.plus(panel * WARPGROUP_ROWS * tile.score_panel_bytes());
                    tma::load(to, call.inputs, full, at, Keep::Short);
                    panel += 1;
                }
            }
        }
        cursor.advance(1, tile.q_parts);
        consumer += 1;
    }
}

/// Loads a tile of K.
///
/// # Safety
/// As [`load_q`].
#[inline(always)]
pub unsafe fn load_k<S: Shape>(
    call: &Call,
    cursor: &mut Cursor,
    job: &Job,
    step: u32,
    leads: bool,
) {
    let tensor = const {
        Tensor {
            kind: Kv::K,
            region: [S::PLAN.k, S::PLAN.k_full, S::PLAN.k_empty],
            panels: S::TILE.score_panels(),
            panel_columns: S::TILE.score_panel_columns(),
            panel_bytes: S::TILE.k_panel_bytes(),
            transposed: false,
        }
    };
    // SAFETY: the caller's contract.
    unsafe { load_kv(call, &const { S::TILE }, &tensor, cursor, (job, step), leads) }
}

/// Loads a tile of V.
///
/// # Safety
/// As [`load_q`].
#[inline(always)]
pub unsafe fn load_v<S: Shape>(
    call: &Call,
    cursor: &mut Cursor,
    job: &Job,
    step: u32,
    leads: bool,
) {
    let tensor = const {
        Tensor {
            kind: Kv::V,
            region: [S::PLAN.v, S::PLAN.v_full, S::PLAN.v_empty],
            panels: S::TILE.value_panels(),
            panel_columns: S::TILE.value_panel_columns(),
            panel_bytes: S::TILE.v_panel_bytes(),
            transposed: S::TILE.transposes_v(),
        }
    };
    // SAFETY: the caller's contract.
    unsafe { load_kv(call, &const { S::TILE }, &tensor, cursor, (job, step), leads) }
}

/// K or V, as a tile of it lies in shared memory.
struct Tensor {
    /// Which of them; the tensor maps follow Q's in this order.
    kind: Kv,
    /// Offsets of the buffers, the full and the empty barriers.
    region: [u32; 3],
    panels: u32,
    panel_columns: u32,
    panel_bytes: u32,
    /// Whether keys are columns of the tensor, else they are rows.
    transposed: bool,
}

/// Loads one tile of K or V.
///
/// # Safety
/// As [`load_q`].
#[inline(always)]
unsafe fn load_kv(
    call: &Call,
    tile: &Tile,
    tensor: &Tensor,
    cursor: &mut Cursor,
    (job, step): (&Job, u32),
    leads: bool,
) {
    let [buffers, full, empty] = tensor.region;
    let (kv_batch, kv_head) = job.kv_batch_and_head(call.scalars, tensor.kind);
    let map = 1 + tensor.kind as u32;
    let full = call.bar(full, cursor.stage);
    let stage_bytes = tensor.panels * tensor.panel_bytes;
    let to = call.smem.plus(buffers + cursor.stage * stage_bytes);
    // SAFETY: after the wait nobody uses the buffer; the boxes fill it exactly.
    unsafe {
        mbarrier::wait(call.bar(empty, cursor.stage), cursor.parity);
        if leads {
            mbarrier::arrive_expect(full, stage_bytes);
            let mut panel = 0;
            while panel < tensor.panels {
                let (column, first_key) = (panel * tensor.panel_columns, step * tile.kv_rows);
                let at = if tensor.transposed {
                    [first_key + column, 0, kv_head, kv_batch]
                } else {
                    [column, first_key, kv_head, kv_batch]
                };
                let to = to.plus(panel * tensor.panel_bytes);
                tma::load(to, call.inputs.plus(map), full, at, Keep::Long);
                panel += 1;
            }
        }
    }
    cursor.advance(1, tile.kv_stages);
}
