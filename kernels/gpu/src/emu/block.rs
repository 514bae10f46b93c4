//! A running block: the one place where its parts meet.
//!
//! A part (barriers, memory, tensor core, copy engine, registers) owns its state, knows no other
//! part's, and returns what its operations bring about; here that reaches the threads.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::clock::Clocks;
use super::copy::{CopyEngine, Effect, Transfer};
use super::format::Format;
use super::global::Global;
use super::grid::Grid;
use super::lanes::{Lanes, State};
use super::matrix;
use super::mbarrier::{Completed, Mbarriers};
use super::mutation::{Change, Mutation, MutationSite};
use super::named::{Arrival, Coming, NamedBarriers};
use super::parameters::Parameters;
use super::register_file::RegisterFile;
use super::report::{Broken, Checked, Fault, Primitive, Site, broken};
use super::request::Request;
use super::schedule::Actor;
use super::shared::Shared;
use super::shuffle::Shuffle;
use super::stats::Stats;
use super::tensor_core::{ProductRequest, TensorCore};
use super::thread_copy::{ThreadCopies, ThreadCopy};
use super::warp_product;

/// A running block.
pub struct Block {
    pub index: u32,
    /// Blocks of the grid.
    pub grid: u32,
    seed: u64,
    /// The thread that runs.
    pub current: usize,
    pub lanes: Lanes,
    pub clocks: Clocks,
    pub parameters: Parameters,
    global: *const Global<'static>,
    pub shared: Shared,
    pub mbarriers: Mbarriers,
    pub named: NamedBarriers,
    pub copies: CopyEngine,
    pub thread_copies: ThreadCopies,
    pub tensor_core: TensorCore,
    pub registers: RegisterFile,
    mutation: Option<Mutation>,
    record: bool,
    pub sites: BTreeSet<MutationSite>,
    pub fault: Option<Fault>,
    pub stats: Stats,
}

impl Block {
    pub fn new(grid: &Grid, index: u32) -> Block {
        let threads = grid.threads as usize;
        let warps = threads / 32;
        Block {
            index,
            grid: grid.blocks,
            seed: grid.seed,
            current: 0,
            lanes: Lanes::new(threads),
            // The first agents are the warps' shares of the tensor core.
            clocks: Clocks::new(threads, warps),
            parameters: Parameters::new(grid.parameters),
            global: std::ptr::from_ref(grid.global).cast(),
            shared: Shared::new(grid.smem_bytes, warps),
            mbarriers: Mbarriers::default(),
            named: NamedBarriers::new(grid.threads),
            copies: CopyEngine::default(),
            thread_copies: ThreadCopies::new(grid.seed),
            tensor_core: TensorCore::new(warps, grid.accumulator),
            registers: RegisterFile::new(grid.threads),
            mutation: grid.mutation,
            record: grid.record,
            sites: BTreeSet::new(),
            fault: None,
            stats: Stats::default(),
        }
    }

    pub fn global(&self) -> &'static Global<'static> {
        // SAFETY: the launch borrows the memory for longer than the block lives, and what this
        // gives is used by methods of the block alone.
        unsafe { &*self.global }
    }

    /// The number of a thread in the grid, for the record of global memory.
    fn number_of(&self, thread: usize) -> u32 {
        self.index * 1024 + thread as u32
    }

    /// The number of the current thread in the grid.
    pub fn number(&self) -> u32 {
        self.number_of(self.current)
    }

    /// Everyone who can take a step.
    pub fn actors(&self, actors: &mut Vec<Actor>) {
        actors.clear();
        let warps = self.lanes.ready.iter().enumerate().filter(|(_, ready)| **ready != 0);
        actors.extend(warps.map(|(warp, _)| Actor::Warp(warp)));
        if self.copies.pending() > 0 {
            actors.push(Actor::Copy);
        }
        // Alone, products would compute for ever without anyone being nearer to an end.
        if !actors.is_empty() {
            actors.extend(self.tensor_core.busy().map(Actor::Tensor));
        }
    }

    /// A rule is broken; the first one counts.
    pub fn fail(
        &mut self,
        primitive: Primitive,
        site: Option<Site>,
        thread: Option<usize>,
        broken: Broken,
    ) {
        let Broken { kind, message } = broken;
        let thread = thread.map(|thread| thread as u32);
        let (block, seed) = (self.index, self.seed);
        let fault = Fault { kind, primitive, site, block, thread, message, seed };
        self.fault.get_or_insert(fault);
    }

    /// What is planted at a site; `name`: of its barrier or constant, if it has one.
    pub fn planted(
        &mut self,
        primitive: Primitive,
        site: Site,
        name: &'static str,
    ) -> Option<Change> {
        if !self.record && self.mutation.is_none() {
            return None;
        }
        let here = MutationSite::new(primitive, site, name);
        if self.record {
            self.sites.insert(here);
        }
        self.mutation.filter(|mutation| mutation.site == here).map(|mutation| mutation.change)
    }

    /// The current thread stores 16 bytes to shared memory.
    pub fn shared_store(&mut self, to: u32, bytes: &[u8; 16], site: Site) -> Checked {
        self.shared.store(&mut self.clocks, self.current, to, bytes, site)
    }

    /// The current thread loads 16 bytes of shared memory.
    pub fn shared_load(&mut self, from: u32) -> Checked<[u8; 16]> {
        self.shared.load(&mut self.clocks, self.current, from)
    }

    /// Makes the stores that the current thread knows of visible to the engines.
    pub fn proxy_fence(&mut self) {
        let now = self.clocks.event(self.current);
        self.shared.fence(self.clocks.of(self.current), now);
    }

    pub fn mbarrier_init(&mut self, bar: u32, arrivals: u32, site: Site) -> Checked {
        self.shared.check_range(bar, 8)?;
        let event = self.clocks.event(self.current);
        let agent = self.clocks.new_agent();
        self.mbarriers.init(bar, arrivals, event, agent, site)
    }

    /// Makes the current thread's initialisations visible to the copy engine.
    pub fn mbarrier_fence_init(&mut self) {
        self.mbarriers.fence_init(self.clocks.event(self.current));
    }

    pub fn mbarrier_arrive(&mut self, bar: u32, bytes: u32) -> Checked {
        self.stats.barrier_operations += 1;
        // What it did so far is known by the arrival, so that it must be an event.
        self.clocks.event(self.current);
        let completed = self.mbarriers.arrive(bar, bytes, self.clocks.of(self.current))?;
        self.clocks.release(self.current);
        self.completed(bar, completed)
    }

    /// Whether the phase of this parity is complete; if so, the thread learns what it brings.
    pub fn mbarrier_test(&mut self, bar: u32, parity: u32) -> Checked<bool> {
        self.stats.barrier_operations += 1;
        let learned = self.mbarriers.test(bar, parity, self.clocks.of(self.current))?;
        if let Some(learned) = learned {
            self.clocks.join(self.current, learned);
        }
        Ok(learned.is_some())
    }

    /// As [`mbarrier_test`](Self::mbarrier_test) for a thread that will not wait: it may also get
    /// the answer of a moment earlier. Under seed 0 it always does, unless it knows better,
    /// otherwise every other time, by a draw from the seed; the threads of a warpgroup draw the
    /// same, so that none of them hides what the others missed.
    pub fn mbarrier_ask(&mut self, bar: u32, parity: u32) -> Checked<bool> {
        let lane = &mut self.lanes[self.current];
        lane.questions += 1;
        let question = (self.current as u64 / 128) << 32 | lane.questions;
        let late = self.seed == 0 || Rng::with_seed(self.seed << 48 ^ question).bool();
        let earlier = self.mbarriers.earlier(bar, parity, self.clocks.of(self.current))?;
        if late && let Some(answer) = earlier {
            self.stats.barrier_operations += 1;
            return Ok(answer);
        }
        self.mbarrier_test(bar, parity)
    }

    /// Wakes who waits for a phase of an mbarrier, if it is complete.
    fn completed(&mut self, bar: u32, completed: Option<Completed>) -> Checked {
        let Some(Completed { parity, learned }) = completed else {
            return Ok(());
        };
        for thread in 0..self.lanes.count() {
            if self.lanes[thread].woken_by == Some(bar) {
                return broken!(
                    Barrier,
                    "{} completes another phase before thread {thread} has seen the last one: a \
                     device might miss it",
                    self.mbarriers.name(bar)
                );
            }
            if self.lanes[thread].state == (State::OnMbarrier { bar, parity }) {
                self.clocks.join(thread, &learned);
                self.lanes[thread].woken_by = Some(bar);
                self.lanes.wake(thread);
            }
        }
        Ok(())
    }

    /// The current thread issues the copy of a box to `to`; its bytes count for `bar`.
    pub fn tma_load(&mut self, to: u32, map: u64, bar: u32, at: [u32; 4], site: Site) -> Checked {
        let map = self.parameters.box_at(&self.shared, to, map)?;
        map.check_load(at)?;
        let (thread, number) = (self.current, self.number());
        let clock = self.clocks.of(thread);
        let time = self.mbarriers.for_copy(bar, clock, thread, site)?;
        let transfer = Transfer { map, smem: to, at, site, thread, number };
        self.copies.load(&mut self.shared, clock, transfer, bar, time)?;
        self.stats.copies += 1;
        self.stats.copy_bytes += u64::from(map.box_bytes());
        Ok(())
    }

    /// The current thread issues the copy of a box at `from` to global memory.
    pub fn tma_store(&mut self, from: u32, map: u64, at: [u32; 4], site: Site) -> Checked {
        let map = self.parameters.box_at(&self.shared, from, map)?;
        map.check_store(at)?;
        let (thread, number, global) = (self.current, self.number(), self.global());
        let transfer = Transfer { map, smem: from, at, site, thread, number };
        self.copies.store(&mut self.shared, global, &mut self.clocks, transfer)?;
        self.stats.copies += 1;
        self.stats.store_bytes += u64::from(map.box_bytes());
        Ok(())
    }

    /// The current thread closes its group of stores.
    pub fn close_stores(&mut self) {
        self.copies.close_stores(&mut self.clocks, self.current);
    }

    /// Whether all but the last `pending` groups of a thread's stores are complete, or with `read`
    /// have read shared memory; if so, the thread knows.
    pub fn stores_done(&mut self, thread: usize, pending: u32, read: bool) -> Checked<bool> {
        let (whose, global) = ((thread, self.number_of(thread)), self.global());
        self.copies.stores_done(global, &mut self.clocks, whose, pending, read)
    }

    /// The current thread starts a copy of its own.
    pub fn start_copy(&mut self, to: u32, from: u64, bytes: u32, site: Site) -> Checked {
        let (number, thread, global) = (self.number(), self.current, self.global());
        let copy = ThreadCopy { to, from, bytes, site, number };
        self.thread_copies.issue(&mut self.shared, global, &mut self.clocks, thread, copy)
    }

    /// The current thread waits for all of its groups of copies but the last `pending`.
    pub fn wait_copies(&mut self, pending: u32) -> Checked {
        let (thread, global) = (self.current, self.global());
        self.thread_copies.wait(&mut self.shared, global, &mut self.clocks, thread, pending)
    }

    /// Takes the pending copy `index` a step further; a broken rule is the copy's.
    pub fn step_copy(&mut self, index: usize) {
        let (primitive, site, thread) = self.copies.issued(index);
        let global = self.global();
        let effect = self.copies.step(&mut self.shared, global, index);
        if let Err(broken) = effect.and_then(|effect| self.copy_effect(effect)) {
            self.fail(primitive, Some(site), Some(thread), broken);
        }
    }

    fn copy_effect(&mut self, effect: Effect) -> Checked {
        match effect {
            Effect::Arrived { bar, bytes, phase } => {
                let completed = self.mbarriers.receive(bar, bytes, phase)?;
                self.completed(bar, completed)
            }
            Effect::Stored { thread } => {
                if let State::OnStores { pending, read } = self.lanes[thread].state
                    && self.stores_done(thread, pending, read)?
                {
                    self.lanes.wake(thread);
                }
                Ok(())
            }
        }
    }

    /// Computes the oldest product of a warpgroup.
    pub fn compute(&mut self, warpgroup: usize) {
        self.tensor_core.compute(&self.shared, warpgroup);
    }

    /// After the threads of a warp have run as far as they can: does what they have all come for.
    pub fn settle(&mut self, warp: usize) {
        let Some(thread) = self.lanes.first_collective(warp) else {
            return;
        };
        let (primitive, site) = (self.lanes[thread].primitive, self.lanes[thread].site);
        if let Err(broken) = self.try_settle(warp, thread) {
            self.fail(primitive, site, Some(thread), broken);
        }
    }

    fn try_settle(&mut self, warp: usize, thread: usize) -> Checked {
        if !self.lanes.all_here(thread, warp * 32..warp * 32 + 32)? {
            return Ok(());
        }
        let wide = self.lanes[thread].request.as_ref().is_some_and(Request::is_warpgroup_wide);
        let first = warp / 4 * 128;
        if wide && !self.lanes.all_here(thread, first..first + 128)? {
            return Ok(());
        }
        let site = self.lanes[thread].site.expect("set with the state");
        let request = self.lanes[thread].request.clone().expect("set with the state");
        self.execute(warp, request, site)
    }

    fn execute(&mut self, warp: usize, request: Request, site: Site) -> Checked {
        let threads = warp * 32..warp * 32 + 32;
        match request {
            Request::Shuffle { from, .. } => self.shuffle(warp, from),
            Request::Barrier { id, count, coming, .. } => {
                return self.barrier_arrive(warp, id, count, coming, site);
            }
            Request::Fence => {
                threads.clone().for_each(|thread| self.lanes[thread].pins.fence());
            }
            Request::Commit => self.tensor_core.commit(warp),
            Request::Wait { pending, width, .. } => self.wait_products(warp, pending, width)?,
            Request::Product(_) => return self.issue_product(warp / 4, site),
            Request::Registers { grow, count } => {
                return self.resize_registers(warp / 4, grow, count);
            }
            Request::LoadMatrices { transposed, .. } => self.load_matrices(warp, transposed)?,
            Request::StoreMatrices { transposed, .. } => {
                self.store_matrices(warp, transposed, site)?;
            }
            Request::WarpProduct { format, .. } => self.multiply_in_warp(warp, format),
        }
        threads.for_each(|thread| self.lanes.wake(thread));
        Ok(())
    }

    fn shuffle(&mut self, warp: usize, from: Shuffle) {
        let values: [u32; 32] =
            std::array::from_fn(|lane| match self.lanes[warp * 32 + lane].request {
                Some(Request::Shuffle { value, .. }) => value,
                _ => 0,
            });
        for (lane, value) in from.exchange(values).into_iter().enumerate() {
            self.lanes[warp * 32 + lane].result[0] = value;
        }
    }

    /// A warp arrives at a named barrier and, unless it passes, stays until the phase is complete.
    fn barrier_arrive(
        &mut self,
        warp: usize,
        id: u32,
        count: u32,
        coming: Coming,
        site: Site,
    ) -> Checked {
        self.stats.barrier_operations += 1;
        let votes =
            |request: &Request| Some(matches!(request, Request::Barrier { vote: true, .. }));
        let vote = self.lanes.given(warp, votes).contains(&true);
        let threads = warp * 32..(warp + 1) * 32;
        let arrival = Arrival { warp, id, count, coming, vote, site };
        let ended = self.named.arrive(arrival, self.clocks.of_all(threads.clone()))?;
        for thread in threads {
            self.clocks.release(thread);
            if coming == Coming::Pass {
                self.lanes.wake(thread);
            } else {
                self.lanes[thread].state = State::OnBarrier(id);
            }
        }
        let Some(ended) = ended else {
            return Ok(());
        };
        for thread in ended.warps.iter().flat_map(|warp| warp * 32..(warp + 1) * 32) {
            self.clocks.join(thread, &ended.learned);
            self.lanes[thread].result[0] = ended.any.into();
            self.lanes.wake(thread);
        }
        Ok(())
    }

    fn issue_product(&mut self, warpgroup: usize, site: Site) -> Checked {
        let threads = warpgroup * 128..warpgroup * 128 + 128;
        let take = |thread: usize| match self.lanes[thread].request.take() {
            Some(Request::Product(request)) => Some(request),
            _ => None,
        };
        let requests: Vec<ProductRequest> = threads.clone().filter_map(take).collect();
        self.stats.products += 1;
        let clocks = self.clocks.of_all(threads.clone());
        self.tensor_core.issue(&mut self.shared, clocks, warpgroup, &requests, site)?;
        threads.for_each(|thread| self.lanes.wake(thread));
        Ok(())
    }

    fn wait_products(&mut self, warp: usize, pending: u32, width: usize) -> Checked {
        let addresses = self.lanes.given(warp, |request| match request {
            Request::Wait { address, .. } => Some(*address),
            _ => None,
        });
        let complete = self.tensor_core.wait(&self.shared, warp, pending, width, &addresses)?;
        for thread in warp * 32..(warp + 1) * 32 {
            self.clocks.raise(thread, warp as u32, complete);
        }
        Ok(())
    }

    fn resize_registers(&mut self, warpgroup: usize, grow: bool, count: u32) -> Checked {
        let enough = self.registers.resize(warpgroup, grow, count)?;
        for thread in warpgroup * 128..warpgroup * 128 + 128 {
            match enough {
                true => self.lanes.wake(thread),
                false => self.lanes[thread].state = State::OnRegisters,
            }
        }
        if grow { Ok(()) } else { self.retry_registers() }
    }

    /// Lets those grow who wait for registers and for whom there are enough now.
    fn retry_registers(&mut self) -> Checked {
        for warpgroup in 0..self.lanes.count() / 128 {
            let lane = &self.lanes[warpgroup * 128];
            if let (State::OnRegisters, Some(Request::Registers { grow, count })) =
                (lane.state, &lane.request)
            {
                let (grow, count) = (*grow, *count);
                self.resize_registers(warpgroup, grow, count)?;
            }
        }
        Ok(())
    }

    fn multiply_in_warp(&mut self, warp: usize, format: Format) {
        self.stats.products += 1;
        let operands = self.lanes.given(warp, |request| match request {
            Request::WarpProduct { operands, .. } => Some(*operands),
            _ => None,
        });
        let sums = warp_product::multiply(format, self.tensor_core.accumulator, &operands);
        for (lane, sums) in sums.into_iter().enumerate() {
            self.lanes[warp * 32 + lane].result = sums;
        }
    }

    fn load_matrices(&mut self, warp: usize, transposed: bool) -> Checked {
        let rows = self.lanes.given(warp, |request| match request {
            Request::LoadMatrices { row, .. } => Some(*row),
            _ => None,
        });
        let words = matrix::load(&mut self.shared, &mut self.clocks, warp, &rows, transposed)?;
        for (lane, words) in words.into_iter().enumerate() {
            self.lanes[warp * 32 + lane].result = words;
        }
        Ok(())
    }

    fn store_matrices(&mut self, warp: usize, transposed: bool, site: Site) -> Checked {
        let parts = self.lanes.given(warp, |request| match request {
            Request::StoreMatrices { row, words, .. } => Some((*row, *words)),
            _ => None,
        });
        matrix::store(&mut self.shared, &mut self.clocks, warp, &parts, transposed, site)
    }
}
