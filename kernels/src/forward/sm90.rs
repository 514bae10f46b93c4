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
//! Roles: warpgroup 0 produces with one thread and few registers, the others consume; budgets in
//! `spec::LaunchSpec`. Barriers: [`barriers`], and the named barriers `TURN + w`: "warpgroup `w`
//! may issue".

use core::marker::PhantomData;

use super::{Job, Jobs, rows};
use crate::{epilogue, mask::Mask, ring::Cursor, softmax::OnlineSoftmax};
use fulgurite_gpu::{
    barrier,
    element::Element,
    frag::{self, Accum, Packed},
    mbarrier,
    registers::{self, Budget},
    smem::Smem,
    thread,
    tma::{self, MapAddress},
    wgmma::{self, Operand},
};
use fulgurite_spec::{
    FwdScalars, LaunchSpec, SmemPlan, Tile,
    tile::{PANEL_COLUMNS, PANEL_ROW_BYTES, WARPGROUP_ROWS, WARPGROUP_THREADS},
};

/// Named barrier of consumer 0's turn; 0 is the block's.
const TURN: u32 = 1;

/// K of one `wgmma`: columns of Q and K, rows of V.
const STEP: u32 = 16;

/// A family of barriers in shared memory.
struct BarrierSpec {
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
        BarrierSpec { offset: plan.q_full, count: tile.q_parts, arrivals: 1 },
        BarrierSpec { offset: plan.q_empty, count: tile.q_parts, arrivals: warps },
        BarrierSpec { offset: plan.k_full, count: tile.kv_stages, arrivals: 1 },
        BarrierSpec {
            offset: plan.k_empty,
            count: tile.kv_stages,
            arrivals: warps * tile.consumers,
        },
        BarrierSpec { offset: plan.v_full, count: tile.kv_stages, arrivals: 1 },
        BarrierSpec {
            offset: plan.v_empty,
            count: tile.kv_stages,
            arrivals: warps * tile.consumers,
        },
    ]
}

/// What the compiler knows of a variant.
struct Shape<T, M, const D: u32>(PhantomData<(T, M)>);

impl<T: Element, M: Mask, const D: u32> Shape<T, M, D> {
    const TILE: Tile = Tile::forward(T::DTYPE, D, M::KIND);
    const PLAN: SmemPlan = SmemPlan::of(&Self::TILE);
    const LAUNCH: LaunchSpec = LaunchSpec::of_tile(&Self::TILE);
}

/// The register budgets of a variant's roles.
struct ProducerBudget<S>(PhantomData<S>);
struct ConsumerBudget<S>(PhantomData<S>);

impl<T: Element, M: Mask, const D: u32> Budget for ProducerBudget<Shape<T, M, D>> {
    const REGISTERS: u32 = Shape::<T, M, D>::LAUNCH.producer_registers;
}

impl<T: Element, M: Mask, const D: u32> Budget for ConsumerBudget<Shape<T, M, D>> {
    const REGISTERS: u32 = Shape::<T, M, D>::LAUNCH.consumer_registers;
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
/// them for this tile; `scalars` describe the same call. `KV` is the tile's `kv_rows`.
#[inline(always)]
pub unsafe fn run<T: Element, M: Mask, const D: u32, const KV: u32>(
    maps: MapAddress,
    scalars: &FwdScalars,
) {
    const { assert!(Shape::<T, M, D>::TILE.kv_rows == KV) };
    let call = Call { scalars, maps, smem: Smem::base() };
    // SAFETY: every thread of the block comes here, then takes exactly one role.
    unsafe {
        if thread::index() == 0 {
            start::<T, M, D>(&call);
        }
        barrier::sync_all();
        match thread::warpgroup() {
            0 => producer::<T, M, D>(&call),
            1 => consumer::<T, M, D, KV, 0>(&call),
            2 => consumer::<T, M, D, KV, 1>(&call),
            _ => {
                if const { Shape::<T, M, D>::TILE.consumers == 3 } {
                    consumer::<T, M, D, KV, 2>(&call)
                }
            }
        }
    }
}

/// Initialises the barriers and brings the tensor maps into the descriptor cache.
#[inline(always)]
unsafe fn start<T: Element, M: Mask, const D: u32>(call: &Call) {
    let families = const { barriers(&Shape::<T, M, D>::TILE, &Shape::<T, M, D>::PLAN) };
    let mut family = 0;
    while family < families.len() {
        let spec = &families[family];
        let mut index = 0;
        while index < spec.count {
            // SAFETY: the plan reserves these bytes; one thread runs this.
            unsafe { mbarrier::init(call.bar(spec.offset, index), spec.arrivals) }
            index += 1;
        }
        family += 1;
    }
    // SAFETY: this thread initialised the barriers; the maps follow each other.
    unsafe {
        mbarrier::fence_init();
        tma::prefetch(call.maps);
        tma::prefetch(call.maps.plus(1));
        tma::prefetch(call.maps.plus(2));
    }
}

/// Loads Q of every job, and K and V of every step, in the order in which consumers want them.
#[inline(always)]
unsafe fn producer<T: Element, M: Mask, const D: u32>(call: &Call) {
    let tile = const { Shape::<T, M, D>::TILE };
    let plan = const { Shape::<T, M, D>::PLAN };
    // SAFETY: the whole warpgroup comes here once.
    unsafe { registers::shrink_to::<ProducerBudget<Shape<T, M, D>>>() }
    if thread::index() != 0 {
        return;
    }
    let (mut q, mut k, mut v) = (Cursor::fill(), Cursor::fill(), Cursor::fill());
    let mut jobs = Jobs::<M>::new(call.scalars, tile);
    let mut job = jobs.next();
    while job.kv_tiles > 0 {
        let mut step = job.kv_tiles - 1;
        // SAFETY: each load waits until the consumers have left the buffer, and expects exactly
        // the bytes of its boxes.
        unsafe {
            let load_k = |cursor: &mut Cursor, step| {
                load_kv(call, &tile, [plan.k, plan.k_full, plan.k_empty], 1, cursor, &job, step);
            };
            let load_v = |cursor: &mut Cursor, step| {
                load_kv(call, &tile, [plan.v, plan.v_full, plan.v_empty], 2, cursor, &job, step);
            };
            load_k(&mut k, step);
            load_q(call, &tile, &plan, &mut q, &job);
            while step > 0 {
                load_k(&mut k, step - 1);
                load_v(&mut v, step);
                step -= 1;
            }
            load_v(&mut v, 0);
        }
        job = jobs.next();
    }
}

/// Loads a job's Q, each consumer's rows as soon as that consumer has left the buffer.
///
/// # Safety
/// Called by the producer thread in the order of the ring.
#[inline(always)]
unsafe fn load_q(call: &Call, tile: &Tile, plan: &SmemPlan, cursor: &mut Cursor, job: &Job) {
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
            mbarrier::arrive_expect(full, tile.q_part_bytes());
            let mut panel = 0;
            while panel < tile.panels() {
                let at = [panel * PANEL_COLUMNS, row, head, batch];
                let to = to.plus(panel * WARPGROUP_ROWS * PANEL_ROW_BYTES);
                tma::load(to, call.maps, full, at);
                panel += 1;
            }
        }
        cursor.advance(1, tile.q_parts);
        consumer += 1;
    }
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
    job: &Job,
    step: u32,
) {
    let [buffers, full, empty] = region;
    let (batch, head) = job.batch_and_head(call.scalars);
    let kv_head = call.scalars.group_size.divide(head);
    let full = call.bar(full, cursor.stage);
    let to = call.smem.plus(buffers + cursor.stage * tile.kv_stage_bytes());
    // SAFETY: after the wait nobody uses the buffer; the boxes fill it exactly.
    unsafe {
        mbarrier::wait(call.bar(empty, cursor.stage), cursor.parity);
        mbarrier::arrive_expect(full, tile.kv_stage_bytes());
        let mut panel = 0;
        while panel < tile.panels() {
            let at = [panel * PANEL_COLUMNS, step * tile.kv_rows, kv_head, batch];
            tma::load(to.plus(panel * tile.kv_panel_bytes()), call.maps.plus(map), full, at);
            panel += 1;
        }
    }
    cursor.advance(1, tile.kv_stages);
}

/// Registers and ring positions of one consumer; `W` is its number, a constant so that all
/// addresses stay in uniform registers.
struct Consumer<'a, T, M, const D: u32, const KV: u32, const W: u32> {
    call: &'a Call<'a>,
    scores: Accum<KV>,
    probs: Packed<KV>,
    out: Accum<D>,
    q: Cursor,
    k: Cursor,
    v: Cursor,
    kind: PhantomData<(T, M)>,
}

/// Computes the 64 rows of warpgroup `W` of every job.
#[inline(always)]
unsafe fn consumer<T: Element, M: Mask, const D: u32, const KV: u32, const W: u32>(call: &Call) {
    // SAFETY: the whole warpgroup comes here once.
    unsafe { registers::grow_to::<ConsumerBudget<Shape<T, M, D>>>() }
    let mut this = Consumer::<T, M, D, KV, W> {
        call,
        scores: Accum::zero(),
        probs: Packed::zero(),
        out: Accum::zero(),
        q: Cursor::read(W),
        k: Cursor::read(0),
        v: Cursor::read(0),
        kind: PhantomData,
    };
    let tile = const { Shape::<T, M, D>::TILE };
    let scalars = call.scalars;
    let mask = M::new(scalars.q_len, scalars.kv_len);
    let mut jobs = Jobs::<M>::new(scalars, tile);
    let mut job = jobs.next();
    if job.kv_tiles == 0 {
        return;
    }
    // SAFETY: all consumers run the same jobs and steps in the same order, so that turns, ring
    // positions and barrier phases agree.
    unsafe {
        if W + 1 == tile.consumers {
            this.pass_turn();
        }
        this.wait_q();
        this.wait_k();
        this.await_turn();
        this.issue_scores();
        this.pass_turn();
        wgmma::wait::<0, KV>(&mut this.scores);
        this.release_k();
        loop {
            let softmax = this.run_job(&job, mask);
            let next = jobs.next();
            if next.kv_tiles == 0 {
                return this.finish_last(&job, &softmax);
            }
            this.finish(&job, &softmax);
            job = next;
        }
    }
}

/// The parts of a consumer's loop. All are called by the whole warpgroup.
impl<T: Element, M: Mask, const D: u32, const KV: u32, const W: u32> Consumer<'_, T, M, D, KV, W> {
    const TILE: Tile = Shape::<T, M, D>::TILE;
    const PLAN: SmemPlan = Shape::<T, M, D>::PLAN;

    /// One job, from the scores of its last KV tile to the probabilities of its first.
    #[inline(always)]
    unsafe fn run_job(&mut self, job: &Job, mask: M) -> OnlineSoftmax {
        let scalars = self.call.scalars;
        let first_row = job.first_row + W * WARPGROUP_ROWS;
        let full = mask.segments(rows(first_row, WARPGROUP_ROWS, scalars.q_len), KV).full;
        let mut softmax = OnlineSoftmax::new(scalars.scale_log2);
        let mut step = job.kv_tiles - 1;
        // SAFETY: as `step`.
        unsafe {
            self.mask_tile(mask, first_row, step);
            softmax.step::<true, KV>(&mut self.scores);
            self.probs = self.scores.pack::<T>();
            self.out = Accum::zero();
            while M::EDGE_RUN && step > full {
                step -= 1;
                self.step::<true>(&mut softmax, mask, first_row, step);
            }
            while step > 0 {
                step -= 1;
                self.step::<false>(&mut softmax, mask, first_row, step);
            }
            self.release_q();
        }
        softmax
    }

    /// Ends a job that another follows: that one's first product computes while this one's
    /// output is stored.
    #[inline(always)]
    unsafe fn finish(&mut self, job: &Job, softmax: &OnlineSoftmax) {
        // SAFETY: as `step`; the rows are this warpgroup's own.
        unsafe {
            self.wait_v();
            self.await_turn();
            self.issue_out();
            self.wait_q();
            self.wait_k();
            self.issue_scores();
            self.pass_turn();
            wgmma::wait::<1, D>(&mut self.out);
            self.release_v();
            self.store(job, softmax);
            wgmma::wait::<0, KV>(&mut self.scores);
            self.release_k();
        }
    }

    /// Ends the last job.
    #[inline(always)]
    unsafe fn finish_last(&mut self, job: &Job, softmax: &OnlineSoftmax) {
        // SAFETY: as `finish`; nobody waits for a turn after the last consumer's.
        unsafe {
            self.wait_v();
            self.await_turn();
            self.issue_out();
            if W + 1 != Self::TILE.consumers {
                self.pass_turn();
            }
            wgmma::wait::<0, D>(&mut self.out);
            self.store(job, softmax);
        }
    }

    /// Stores the finished rows.
    #[inline(always)]
    unsafe fn store(&mut self, job: &Job, softmax: &OnlineSoftmax) {
        let first_row = job.first_row + W * WARPGROUP_ROWS;
        // SAFETY: the caller's contract.
        unsafe {
            epilogue::store::<T, D>(self.call.scalars, job, first_row, &mut self.out, softmax);
        }
    }

    /// One step: the scores of tile `step`, and the output of the tile before it.
    #[inline(always)]
    unsafe fn step<const EDGE: bool>(
        &mut self,
        softmax: &mut OnlineSoftmax,
        mask: M,
        first_row: u32,
        step: u32,
    ) {
        // SAFETY: the waits and releases below pair with the producer's, see `barriers`.
        unsafe {
            self.wait_k();
            self.await_turn();
            self.issue_scores();
            self.wait_v();
            self.issue_out();
            self.pass_turn();
            wgmma::wait::<1, KV>(&mut self.scores);
            self.release_k();
            if EDGE {
                self.mask_tile(mask, first_row, step);
            }
            let rescale = softmax.step::<EDGE, KV>(&mut self.scores);
            wgmma::wait::<0, D>(&mut self.out);
            self.release_v();
            self.probs = self.scores.pack::<T>();
            self.out.scale_rows(rescale);
        }
    }

    /// Sets the scores that the mask does not keep to `-inf`.
    #[inline(always)]
    fn mask_tile(&mut self, mask: M, first_row: u32, step: u32) {
        let [low, high] = frag::rows();
        let start = (step * KV) as i32;
        self.scores.mask_from([
            mask.keep_end(first_row + low) as i32 - start,
            mask.keep_end(first_row + high) as i32 - start,
        ]);
    }

    /// Issues `scores = Q Kᵀ` for the tile in turn, as one group.
    #[inline(always)]
    unsafe fn issue_scores(&mut self) {
        let q = Self::PLAN.q + self.q.stage * Self::TILE.q_part_bytes();
        let q = Operand::k_major(self.call.smem.plus(q));
        let k = Self::PLAN.k + self.k.stage * Self::TILE.kv_stage_bytes();
        let k = Operand::k_major(self.call.smem.plus(k));
        // SAFETY: earlier products on these registers have been waited for.
        unsafe { wgmma::begin(&mut self.scores) }
        let mut column = 0;
        while column < D {
            let panel = column / PANEL_COLUMNS;
            let inside = column % PANEL_COLUMNS * 2;
            let q = q.plus(panel * WARPGROUP_ROWS * PANEL_ROW_BYTES + inside);
            let k = k.plus(panel * Self::TILE.kv_panel_bytes() + inside);
            // SAFETY: the caller waited for Q and K and releases them after the product.
            unsafe {
                if column == 0 {
                    wgmma::issue_ss::<T, KV, false>(&mut self.scores, q, k);
                } else {
                    wgmma::issue_ss::<T, KV, true>(&mut self.scores, q, k);
                }
            }
            column += STEP;
        }
        // SAFETY: the whole warpgroup closes the group.
        unsafe { wgmma::commit() }
    }

    /// Issues `out += probs V` for the tile in turn, as one group.
    #[inline(always)]
    unsafe fn issue_out(&mut self) {
        let v = Self::PLAN.v + self.v.stage * Self::TILE.kv_stage_bytes();
        let v = Operand::n_major(self.call.smem.plus(v), Self::TILE.kv_panel_bytes());
        // SAFETY: earlier products on these registers have been waited for.
        unsafe { wgmma::begin_rs(&mut self.probs, &mut self.out) }
        let mut step = 0;
        while step < KV / STEP {
            let v = v.plus(step * STEP * PANEL_ROW_BYTES);
            // SAFETY: the caller waited for V and releases it after the product.
            unsafe { wgmma::issue_rs::<T, D>(&mut self.out, self.probs.operand(step), v) }
            step += 1;
        }
        // SAFETY: the whole warpgroup closes the group.
        unsafe { wgmma::commit() }
    }

    #[inline(always)]
    unsafe fn wait_q(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(Self::PLAN.q_full, self.q.stage), self.q.parity) }
    }

    #[inline(always)]
    unsafe fn wait_k(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(Self::PLAN.k_full, self.k.stage), self.k.parity) }
    }

    #[inline(always)]
    unsafe fn wait_v(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(Self::PLAN.v_full, self.v.stage), self.v.parity) }
    }

    /// Gives the job's Q back after its last product has been waited for.
    #[inline(always)]
    unsafe fn release_q(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { arrive_once_per_warp(self.call.bar(Self::PLAN.q_empty, self.q.stage)) }
        self.q.advance(Self::TILE.consumers, Self::TILE.q_parts);
    }

    #[inline(always)]
    unsafe fn release_k(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { arrive_once_per_warp(self.call.bar(Self::PLAN.k_empty, self.k.stage)) }
        self.k.advance(1, Self::TILE.kv_stages);
    }

    #[inline(always)]
    unsafe fn release_v(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { arrive_once_per_warp(self.call.bar(Self::PLAN.v_empty, self.v.stage)) }
        self.v.advance(1, Self::TILE.kv_stages);
    }

    /// Waits until the consumer before this one has issued.
    #[inline(always)]
    unsafe fn await_turn(&self) {
        // SAFETY: the two warpgroups that share the barrier each come once per phase.
        unsafe { barrier::sync(TURN + W, 2 * WARPGROUP_THREADS) }
    }

    /// Lets the next consumer issue.
    #[inline(always)]
    unsafe fn pass_turn(&self) {
        let next = (W + 1) % Self::TILE.consumers;
        // SAFETY: as `await_turn`.
        unsafe { barrier::arrive(TURN + next, 2 * WARPGROUP_THREADS) }
    }
}

/// One arrival for the whole warp.
///
/// # Safety
/// As [`mbarrier::arrive`].
#[inline(always)]
unsafe fn arrive_once_per_warp(bar: Smem) {
    if thread::is_warp_leader() {
        // SAFETY: the caller's contract.
        unsafe { mbarrier::arrive(bar) }
    }
}
