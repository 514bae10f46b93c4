//! The state of a running block, and how a thread's primitives reach it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use corosensei::Yielder;
use fulgurite_spec::Dtype;

use super::accumulator::Accumulator;
use super::clock::{Agent, Clock};
use super::copy::Copy;
use super::global::Global;
use super::mbarrier::Mbarrier;
use super::mutation::{Change, Mutation, MutationSite};
use super::named::{Coming, Named};
use super::report::{Broken, Checked, Fault, FaultKind, Primitive, Site};
use super::run::{Launch, Stats};
use super::schedule::Actor;
use super::shared::Shared;
use super::store::Stores;
use super::tensor_core::{Groups, Warpgroup};
use super::trace::Event;

/// What a thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can run.
    Ready,
    /// It waits for the rest of its warp or warpgroup.
    Collective,
    /// It waits for the phase of this parity.
    OnMbarrier { bar: u32, parity: u32 },
    /// It waits for a named barrier.
    OnBarrier(u32),
    /// It waits until at most so many of its groups of stores are not complete, or still read.
    OnStores { pending: u32, read: bool },
    /// It waits for registers.
    OnRegisters,
    /// It has ended.
    Done,
}

/// A collective operation, as one thread asks for it.
#[derive(Clone, Debug)]
pub enum Request {
    Shuffle { from: Shuffle, value: u32 },
    Barrier { id: u32, count: u32, coming: Coming, vote: bool },
    Fence,
    Commit,
    Wait { pending: u32, width: usize, address: usize },
    Product(ProductRequest),
    Registers { grow: bool, count: u32 },
    LoadMatrices { row: u32, transposed: bool },
    StoreMatrices { row: u32, words: [u32; 4], transposed: bool },
}

/// Whose value a shuffle gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Xor(u32),
    First,
    /// Not one's value but everyone's, a bit each.
    Ballot,
}

/// One thread's part in a product.
#[derive(Clone, Debug)]
pub struct ProductRequest {
    /// Where its accumulator's registers lie.
    pub address: usize,
    pub width: usize,
    /// Descriptor of A, unless A is in registers.
    pub a: u64,
    pub registers: Option<[u32; 4]>,
    pub b: u64,
    pub add: bool,
    pub dtype: Dtype,
    /// What the accumulator held, if no product into it was in flight.
    pub loaded: Option<Vec<u32>>,
}

impl Request {
    /// Whether both are the same instruction with the same uniform operands.
    pub fn agrees(&self, other: &Request) -> bool {
        match (self, other) {
            (Request::Shuffle { from: a, .. }, Request::Shuffle { from: b, .. }) => a == b,
            (
                Request::Barrier { id: a, count: m, coming: x, .. },
                Request::Barrier { id: b, count: n, coming: y, .. },
            ) => (a, m, x) == (b, n, y),
            (Request::Fence, Request::Fence) | (Request::Commit, Request::Commit) => true,
            (
                Request::Wait { pending: a, width: m, .. },
                Request::Wait { pending: b, width: n, .. },
            ) => (a, m) == (b, n),
            (Request::Product(a), Request::Product(b)) => {
                (a.width, a.a, a.b, a.add, a.dtype, a.registers.is_some())
                    == (b.width, b.a, b.b, b.add, b.dtype, b.registers.is_some())
            }
            (
                Request::Registers { grow: a, count: m },
                Request::Registers { grow: b, count: n },
            ) => (a, m) == (b, n),
            (
                Request::LoadMatrices { transposed: a, .. },
                Request::LoadMatrices { transposed: b, .. },
            )
            | (
                Request::StoreMatrices { transposed: a, .. },
                Request::StoreMatrices { transposed: b, .. },
            ) => a == b,
            _ => false,
        }
    }

    /// Whether the whole warpgroup must come.
    pub fn is_warpgroup_wide(&self) -> bool {
        matches!(self, Request::Product(_) | Request::Registers { .. })
    }
}

/// Registers that a fence made ready for products, and what they held.
#[derive(Debug)]
pub struct Pin {
    pub address: usize,
    pub words: Vec<u32>,
}

/// One thread.
pub struct Lane {
    pub state: State,
    pub primitive: Primitive,
    pub site: Option<Site>,
    pub request: Option<Request>,
    pub result: [u32; 4],
    /// The mbarrier whose phase woke it, until it runs.
    pub woken_by: Option<u32>,
    /// The way out of its fiber, once it runs.
    pub yielder: *const Yielder<(), ()>,
    /// How often it asked an mbarrier without waiting.
    pub questions: u64,
    /// Products that it has issued since it last closed a group.
    pub issued: u32,
    /// Registers named since its last fence.
    pub pinned: Vec<Pin>,
    /// Registers that its last fence covers.
    pub fenced: Vec<Pin>,
}

impl Lane {
    fn new() -> Lane {
        Lane {
            state: State::Ready,
            primitive: Primitive::Code,
            site: None,
            request: None,
            questions: 0,
            issued: 0,
            result: [0; 4],
            woken_by: None,
            yielder: std::ptr::null(),
            pinned: Vec::new(),
            fenced: Vec::new(),
        }
    }
}

/// A running block.
pub struct Block {
    pub index: u32,
    pub grid: u32,
    pub(super) seed: u64,
    pub lanes: Vec<Lane>,
    /// Threads that can run, a bit each, by warp.
    pub ready: Vec<u32>,
    pub current: usize,
    pub clocks: Vec<Clock>,
    agents: Vec<Option<Agent>>,
    agent_count: Agent,
    pub shared: Shared,
    pub mbarriers: BTreeMap<u32, Mbarrier>,
    pub names: BTreeMap<u32, (&'static str, u32)>,
    pub named: [Named; 16],
    pub barrier_names: [Option<(&'static str, u32)>; 16],
    pub copies: Vec<Copy>,
    /// By thread, of those that have issued or closed any.
    pub stores: BTreeMap<usize, Stores>,
    pub warpgroups: Vec<Warpgroup>,
    pub groups: Vec<Groups>,
    /// By warpgroup: a write that all of its threads are known to have seen.
    pub known: Vec<Cell<(Agent, u32)>>,
    /// Registers per thread of each warpgroup, and those that nobody has.
    pub budgets: Vec<u32>,
    pub spare_registers: u32,
    pub parameters: (u64, usize),
    pub accumulator: Accumulator,
    global: *const Global<'static>,
    mutation: Option<Mutation>,
    pub(super) record: bool,
    pub sites: BTreeSet<MutationSite>,
    /// What the warps came to, if that is recorded.
    pub trace: Vec<Event>,
    pub fault: Option<Fault>,
    pub stats: Stats,
}

/// Registers of one multiprocessor.
const REGISTER_FILE: u32 = 65_536;

impl Block {
    pub fn new(launch: &Launch, index: u32) -> Block {
        let threads = launch.threads as usize;
        let warps = threads / 32;
        let warpgroups = warps.div_ceil(4);
        // A block starts with an equal share per thread, in steps of 8.
        let share = REGISTER_FILE / launch.threads / 8 * 8;
        Block {
            index,
            grid: launch.grid,
            seed: launch.seed,
            lanes: (0..threads).map(|_| Lane::new()).collect(),
            ready: vec![u32::MAX; warps],
            current: 0,
            clocks: vec![Clock::default(); threads],
            agents: vec![None; threads],
            // The first agents are the warps' shares of the tensor core.
            agent_count: warps as Agent,
            shared: Shared::new(launch.smem_bytes, warps),
            mbarriers: BTreeMap::new(),
            names: BTreeMap::new(),
            named: Default::default(),
            barrier_names: [None; 16],
            copies: Vec::new(),
            stores: BTreeMap::new(),
            warpgroups: (0..warpgroups).map(|_| Warpgroup::default()).collect(),
            groups: vec![Groups::default(); warps],
            known: vec![Cell::new((0, 0)); warpgroups],
            budgets: vec![share.min(255); warpgroups],
            spare_registers: share.saturating_sub(255) * launch.threads,
            parameters: launch.parameters,
            accumulator: launch.accumulator,
            global: std::ptr::from_ref(launch.global).cast(),
            mutation: launch.mutation,
            record: launch.record,
            sites: BTreeSet::new(),
            trace: Vec::new(),
            fault: None,
            stats: Stats::default(),
        }
    }

    pub fn global(&self) -> &Global<'static> {
        // SAFETY: the launch borrows the memory for longer than the block lives.
        unsafe { &*self.global }
    }

    /// The number of the current thread in the grid, for the record of global writes.
    pub fn writer(&self) -> u32 {
        self.number_of(self.current)
    }

    /// The number of a thread in the grid.
    pub fn number_of(&self, thread: usize) -> u32 {
        self.index * 1024 + thread as u32
    }

    pub fn new_agent(&mut self) -> Agent {
        self.agent_count += 1;
        self.agent_count - 1
    }

    /// Something that a thread does now, as an event that others may learn of.
    pub fn event(&mut self, thread: usize) -> (Agent, u32) {
        let agent = match self.agents[thread] {
            Some(agent) => agent,
            None => {
                let agent = self.new_agent();
                self.agents[thread] = Some(agent);
                self.clocks[thread].raise(agent, 1);
                agent
            }
        };
        (agent, self.clocks[thread].time(agent))
    }

    /// A thread has told others what it knows; what it does from now on they do not know.
    pub fn release(&mut self, thread: usize) {
        if let Some(agent) = self.agents[thread] {
            let time = self.clocks[thread].time(agent) + 1;
            self.clocks[thread].raise(agent, time);
        }
    }

    pub fn wake(&mut self, thread: usize) {
        self.lanes[thread].state = State::Ready;
        self.ready[thread / 32] |= 1 << (thread % 32);
    }

    /// Everyone who can take a step.
    pub fn actors(&self, actors: &mut Vec<Actor>) {
        actors.clear();
        let warps = self.ready.iter().enumerate().filter(|(_, ready)| **ready != 0);
        actors.extend(warps.map(|(warp, _)| Actor::Warp(warp)));
        if !self.copies.is_empty() {
            actors.push(Actor::Copy);
        }
        // Alone, products would compute for ever without anyone being nearer to an end.
        if !actors.is_empty() {
            let busy = self.warpgroups.iter().enumerate().filter(|(_, it)| it.has_products());
            actors.extend(busy.map(|(warpgroup, _)| Actor::Tensor(warpgroup)));
        }
    }

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
}

thread_local! {
    /// The block that runs on this OS thread.
    static CURRENT: Cell<*mut Block> = const { Cell::new(std::ptr::null_mut()) };
}

/// Makes a block the one that primitives on this OS thread reach; returns the one before.
pub fn enter(block: *mut Block) -> *mut Block {
    CURRENT.replace(block)
}

/// Does something with the state of the running block.
pub fn with<T>(f: impl FnOnce(&mut Block) -> T) -> T {
    let block = CURRENT.get();
    assert!(!block.is_null(), "a device primitive was called outside of `emu::launch`");
    // SAFETY: the launcher keeps the block alive while it is current, and holds no reference to
    // it while a fiber runs; fibers of one OS thread run one at a time and never suspend in `f`.
    f(unsafe { &mut *block })
}

/// What is planted at a site of arithmetic; nothing outside of a launch, where arithmetic is free
/// to everyone.
pub fn planted(primitive: Primitive, site: Site) -> Option<Change> {
    if CURRENT.get().is_null() {
        return None;
    }
    with(|block| block.planted(primitive, site, ""))
}

/// Does something that may break a rule; if it does, the thread never goes on.
pub fn act<T>(primitive: Primitive, site: Site, f: impl FnOnce(&mut Block) -> Checked<T>) -> T {
    let result = with(|block| {
        let current = block.current;
        f(block).map_err(|broken| block.fail(primitive, Some(site), Some(current), broken))
    });
    match result {
        Ok(value) => value,
        Err(()) => loop {
            suspend();
        },
    }
}

/// Gives the OS thread to the scheduler.
pub fn suspend() {
    let yielder = with(|block| block.lanes[block.current].yielder);
    // SAFETY: the pointer is that of the running fiber's own yielder, which lives as long as it.
    unsafe { (*yielder).suspend(()) }
}

/// Waits in `state` until the scheduler resumes the thread.
pub fn wait(primitive: Primitive, site: Site, state: State) {
    with(|block| {
        let lane = &mut block.lanes[block.current];
        (lane.primitive, lane.site, lane.state) = (primitive, Some(site), state);
    });
    suspend();
}

/// Takes part in a collective operation and returns its result for this thread.
pub fn collective(primitive: Primitive, site: Site, request: Request) -> [u32; 4] {
    with(|block| {
        let current = block.current;
        block.lanes[current].request = Some(request);
    });
    wait(primitive, site, State::Collective);
    with(|block| block.lanes[block.current].result)
}

/// What `broken!` makes of a panic in the kernel's code.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> Broken {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Broken::new(FaultKind::Panic, text)
}
