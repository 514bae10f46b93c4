//! Forward attention on Hopper.
//!
//! One step, for a tile of queries and one tile of keys and values:
//! `S = Q Kᵀ`, `P = 2^(S·scale − max)`, `O = O·rescale + P V`; after the last one `O / sum`.
//! As in FlashAttention-3 (Shah et al. 2024, sections 3.1 and 3.2) the producer warpgroup feeds a
//! ring of K and V through TMA, the consumer warpgroups own 64 query rows each, a step issues the
//! next tile's `Q Kᵀ` before this tile's `P V`, and consumers take turns at issuing (ping-pong),
//! so that one's softmax runs under another's products.
//!
//! The grid is persistent, and the pipeline runs on across jobs: the first `Q Kᵀ` of the next job
//! is issued together with the last `P V` of this one and computes while this one is stored.
//!
//! Roles: warpgroup 0 produces with one warp and few registers, the others consume; budgets in
//! `spec::LaunchSpec`. Barriers: [`barriers`], and the named barriers `TURN + w`: "consumer `w` may
//! issue", `SETTLED + w`: its warps vote on whether rows have settled, and `VERDICT`: all consumers
//! vote on whether rows are lost.

mod consumer;

use core::marker::PhantomData;

use super::{Job, Jobs};
use crate::{epilogue, ring::Cursor};
use consumer::consume;
use fulgurite_gpu::{
    barrier,
    element::Element,
    mbarrier,
    registers::{self, Budget},
    smem::Smem,
    thread,
    tma::{self, Keep, MapAddress},
};
use fulgurite_spec::{
    ForwardRow, FwdScalars, Geometry, LaunchSpec, SmemPlan, SoftmaxKind, Tile,
    launch::{WARPGROUP_ROWS, WARPGROUP_THREADS},
    smem::{PANEL_COLUMNS, PANEL_ROW_BYTES},
};

/// Named barrier of consumer 0's turn; 0 is the block's.
const TURN: u32 = 1;

/// Named barrier of the consumers' verdict: the one after the turns of at most three.
const VERDICT: u32 = TURN + 3;

/// Named barrier at which the warps of consumer 0 say whether their rows have settled.
const SETTLED: u32 = VERDICT + 1;

/// A family of barriers in shared memory.
struct BarrierSpec {
    /// What the emulator's reports call it.
    name: &'static str,
    /// Offset of the first one.
    offset: u32,
    /// How many there are.
    count: u32,
    /// Arrivals that complete a phase.
    arrivals: u32,
}

/// Every barrier of a CTA.
///
/// | name | who arrives | who waits |
/// |---|---|---|
/// | `q_full[part]` | producer, with the bytes of the rows | the consumer in turn |
/// | `q_empty[part]` | each warp of that consumer | producer |
/// | `k_full[stage]`, `v_full[stage]` | producer, with the bytes of the tile | consumers |
/// | `k_empty[stage]`, `v_empty[stage]` | each warp of every consumer | producer |
const fn barriers(tile: &Tile, plan: &SmemPlan) -> [BarrierSpec; 6] {
    let warps = WARPGROUP_THREADS / 32;
    [
        BarrierSpec { name: "q_full", offset: plan.q_full, count: tile.q_parts, arrivals: 1 },
        BarrierSpec { name: "q_empty", offset: plan.q_empty, count: tile.q_parts, arrivals: warps },
        BarrierSpec { name: "k_full", offset: plan.k_full, count: tile.kv_stages, arrivals: 1 },
        BarrierSpec {
            name: "k_empty",
            offset: plan.k_empty,
            count: tile.kv_stages,
            arrivals: tile.consumer_warps(),
        },
        BarrierSpec { name: "v_full", offset: plan.v_full, count: tile.kv_stages, arrivals: 1 },
        BarrierSpec {
            name: "v_empty",
            offset: plan.v_empty,
            count: tile.kv_stages,
            arrivals: tile.consumer_warps(),
        },
    ]
}

/// The shape of a variant's work; each entry has a type that says it.
pub trait Shape {
    /// Its row of the table.
    const ROW: ForwardRow;
    /// The tile.
    const TILE: Tile = Tile::of(&Self::ROW);
    /// The softmax.
    const SOFTMAX: SoftmaxKind = Self::ROW.softmax;
    /// Its shared memory.
    const PLAN: SmemPlan = SmemPlan::of(&Self::TILE);
    /// Its launch.
    const LAUNCH: LaunchSpec = Self::TILE.launch();
}

/// The register budgets of a variant's roles.
struct ProducerBudget<S>(PhantomData<S>);
struct ConsumerBudget<S>(PhantomData<S>);

impl<S: Shape> Budget for ProducerBudget<S> {
    const REGISTERS: u32 = S::LAUNCH.producer_registers;
}

impl<S: Shape> Budget for ConsumerBudget<S> {
    const REGISTERS: u32 = S::LAUNCH.consumer_registers;
}

/// What every role needs.
#[derive(Clone, Copy)]
struct Call<'a> {
    scalars: &'a FwdScalars,
    /// Map of Q; those of K and V follow.
    maps: MapAddress,
    smem: Smem,
}

impl Call<'_> {
    /// The barrier number `index` of the family at `offset`.
    #[inline(always)]
    fn bar(&self, offset: u32, index: u32) -> Smem {
        self.smem.plus(offset + 8 * index)
    }
}

/// The kernel.
///
/// # Safety
/// Launched with the variant's [`LaunchSpec`]; `maps` are Q's, K's and V's as the host encodes
/// them for this tile; `scalars` describe the same call. `D` and `KV` are the tile's `head_dim` and
/// `kv_rows`.
#[inline(always)]
pub unsafe fn run<T: Element, M: Geometry, S: Shape, const D: u32, const KV: u32>(
    maps: MapAddress,
    scalars: &FwdScalars,
) {
    const { assert!(S::TILE.head_dim == D && S::TILE.kv_rows == KV) };
    const { assert!(!M::FIRST, "every job goes down to tile 0") };
    let call = Call { scalars, maps, smem: Smem::base() };
    // SAFETY: every thread of the block comes here, then takes exactly one role.
    unsafe {
        if thread::index() == 0 {
            start::<S>(&call);
        }
        barrier::sync_all();
        let warpgroup = thread::warpgroup();
        if warpgroup == 0 {
            producer::<M, S>(&call)
        } else {
            consume::<T, M, S, D, KV>(&call, warpgroup - 1)
        }
    }
}

/// Initialises the barriers and brings the tensor maps into the descriptor cache.
#[inline(always)]
unsafe fn start<S: Shape>(call: &Call) {
    let families = const { barriers(&S::TILE, &S::PLAN) };
    let mut family = 0;
    while family < families.len() {
        let spec = &families[family];
        let mut index = 0;
        while index < spec.count {
            let bar = call.bar(spec.offset, index);
            mbarrier::name(bar, spec.name, index);
            // SAFETY: the plan reserves these bytes; one thread runs this.
            unsafe { mbarrier::init(bar, spec.arrivals) }
            index += 1;
        }
        family += 1;
    }
    let mut consumer = 0;
    while consumer < const { S::TILE.consumers } {
        barrier::name(TURN + consumer, "turn", consumer);
        barrier::name(SETTLED + consumer, "settled", consumer);
        consumer += 1;
    }
    barrier::name(VERDICT, "verdict", 0);
    // SAFETY: this thread initialised the barriers; the maps follow each other.
    unsafe {
        mbarrier::fence_init();
        tma::prefetch(call.maps);
        tma::prefetch(call.maps.plus(1));
        tma::prefetch(call.maps.plus(2));
    }
}

/// Feeds the consumers for the first pass over the jobs. The warps that have no part in that store
/// the query tiles without keys, if those are no jobs.
#[inline(always)]
unsafe fn producer<M: Geometry, S: Shape>(call: &Call) {
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
        unsafe { store_keyless::<S>(call) }
    }
}

/// Stores the query tiles without keys, in pieces of 64 rows, shared among the three warps of each
/// block that call it.
///
/// # Safety
/// Called by all threads of the producer's last three warps; nobody else writes these tiles.
#[inline(always)]
unsafe fn store_keyless<S: Shape>(call: &Call) {
    let order = &call.scalars.order;
    // Fewer than 2³² pieces: so many have 4 TiB of output.
    let pieces_of_head = order.keyless_q_tiles * const { S::TILE.consumers };
    let count = pieces_of_head * order.batch_head_count;
    let mut next = 3 * thread::block() + thread::warp() - 1;
    while next < count {
        let batch_head = next / pieces_of_head;
        let first_row = (next - batch_head * pieces_of_head) * WARPGROUP_ROWS;
        let rows = first_row..(first_row + WARPGROUP_ROWS).min(call.scalars.q_len);
        // SAFETY: the caller's contract; the warps of the grid take turns.
        unsafe { epilogue::store_keyless(call.scalars, batch_head, rows) }
        next += 3 * thread::block_count();
    }
}

/// Whether the whole producer warp walks the jobs and waits, though one thread loads. In code that
/// a single thread runs, ptxas moves the 7 operands of each copy to uniform registers first: 0.5
/// to 2 % at head dims up to 128. At head dim 256, full, one thread alone is 1 % faster.
const fn warp_loads(tile: &Tile, rows_differ: bool) -> bool {
    tile.panels() < 4 || rows_differ
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
    let mut jobs = Jobs::<M>::new(call.scalars, const { S::TILE });
    let mut job = jobs.next();
    while job.kv_tiles > 0 {
        let mut step = job.kv_tiles - 1;
        // SAFETY: the caller's contract.
        unsafe {
            load_k::<S>(call, &mut k, &job, step, leads);
            load_q::<S>(call, &mut q, &job, leads);
            while step > 0 {
                load_k::<S>(call, &mut k, &job, step - 1, leads);
                load_v::<S>(call, &mut v, &job, step, leads);
                step -= 1;
            }
            load_v::<S>(call, &mut v, &job, 0, leads);
        }
        job = jobs.next();
    }
}

/// Loads a job's Q, each consumer's rows as soon as that consumer has left the buffer.
///
/// # Safety
/// Called by one warp, or by some threads of it, in the order of the ring; one thread `leads`.
#[inline(always)]
unsafe fn load_q<S: Shape>(call: &Call, cursor: &mut Cursor, job: &Job, leads: bool) {
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
                while panel < tile.panels() {
                    let at = [panel * PANEL_COLUMNS, row, head, batch];
                    let to = to.plus(panel * WARPGROUP_ROWS * PANEL_ROW_BYTES);
                    tma::load(to, call.maps, full, at, Keep::Short);
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
unsafe fn load_k<S: Shape>(call: &Call, cursor: &mut Cursor, job: &Job, step: u32, leads: bool) {
    let region = const { [S::PLAN.k, S::PLAN.k_full, S::PLAN.k_empty] };
    // SAFETY: the caller's contract.
    unsafe { load_kv(call, &const { S::TILE }, region, 1, cursor, (job, step), leads) }
}

/// Loads a tile of V.
///
/// # Safety
/// As [`load_q`].
#[inline(always)]
unsafe fn load_v<S: Shape>(call: &Call, cursor: &mut Cursor, job: &Job, step: u32, leads: bool) {
    let region = const { [S::PLAN.v, S::PLAN.v_full, S::PLAN.v_empty] };
    // SAFETY: the caller's contract.
    unsafe { load_kv(call, &const { S::TILE }, region, 2, cursor, (job, step), leads) }
}

/// Loads one tile of K or V. `region`: offsets of the buffers, the full and the empty barriers;
/// `map`: which tensor map.
///
/// # Safety
/// As [`load_q`].
#[inline(always)]
unsafe fn load_kv(
    call: &Call,
    tile: &Tile,
    region: [u32; 3],
    map: u32,
    cursor: &mut Cursor,
    (job, step): (&Job, u32),
    leads: bool,
) {
    let [buffers, full, empty] = region;
    let (batch, head) = job.batch_and_head(call.scalars);
    let kv_head = call.scalars.group_size.divide(head);
    // 0 where the tensor has one batch entry for all.
    let kv_batch = batch & call.scalars.kv_batch_masks[map as usize - 1];
    let full = call.bar(full, cursor.stage);
    let to = call.smem.plus(buffers + cursor.stage * tile.kv_stage_bytes());
    // SAFETY: after the wait nobody uses the buffer; the boxes fill it exactly.
    unsafe {
        mbarrier::wait(call.bar(empty, cursor.stage), cursor.parity);
        if leads {
            mbarrier::arrive_expect(full, tile.kv_stage_bytes());
            let mut panel = 0;
            while panel < tile.panels() {
                let at = [panel * PANEL_COLUMNS, step * tile.kv_rows, kv_head, kv_batch];
                let to = to.plus(panel * tile.kv_panel_bytes());
                tma::load(to, call.maps.plus(map), full, at, Keep::Long);
                panel += 1;
            }
        }
    }
    cursor.advance(1, tile.kv_stages);
}
