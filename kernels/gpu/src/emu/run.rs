//! Runs a grid: every thread a fiber, every block on one OS thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use rayon::prelude::*;

use super::accumulator::Accumulator;
use super::block::{Block, State, enter, panic_message};
use super::global::Global;
use super::mutation::{Mutation, MutationSite};
use super::report::{Fault, Primitive};
use super::schedule::{Actor, Schedule};
use super::trace::Event;

/// Bytes of a fiber's stack. Memory is only used where a kernel's frames reach, but frames are
/// large: an accumulator alone has 512 bytes, and without optimisation every move is a copy.
const STACK_BYTES: usize = 256 << 10;

/// What is launched.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks of the grid.
    pub grid: u32,
    /// Threads of a block: a multiple of 128, at most 1024.
    pub threads: u32,
    /// Dynamic shared memory of a block in bytes.
    pub smem_bytes: u32,
    /// Address and length of the kernel's parameters, where its tensor maps lie; the address's
    /// provenance is exposed.
    pub parameters: (u64, usize),
    /// Global memory.
    pub global: &'a Global<'a>,
    /// The order of running: see [`Schedule`].
    pub seed: u64,
    /// An error to plant.
    pub mutation: Option<Mutation>,
    /// Whether to list the sites where errors could be planted, and what the warps did.
    pub record: bool,
    /// How the tensor core adds.
    pub accumulator: Accumulator,
}

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Products that warpgroups issued.
    pub products: u64,
    /// Copies of the copy engine.
    pub copies: u64,
    /// Bytes that they brought to shared memory.
    pub copy_bytes: u64,
    /// Bytes of the boxes that they took from shared memory.
    pub store_bytes: u64,
    /// Arrivals at and waits for barriers: of a thread at an mbarrier, of a warp at a named one.
    pub barrier_operations: u64,
    /// Steps of the scheduler.
    pub steps: u64,
    /// Events that the kernel counts ([`count`](crate::planted::count)), by their names, once for
    /// each warp.
    pub events: BTreeMap<&'static str, u64>,
}

impl Stats {
    fn add(&mut self, other: &Stats) {
        self.products += other.products;
        self.copies += other.copies;
        self.copy_bytes += other.copy_bytes;
        self.store_bytes += other.store_bytes;
        self.barrier_operations += other.barrier_operations;
        self.steps += other.steps;
        for (name, count) in &other.events {
            *self.events.entry(name).or_default() += count;
        }
    }
}

/// What is known after a launch without faults.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Counts of all blocks.
    pub stats: Stats,
    /// Sites where errors could be planted, if they were asked for.
    pub sites: BTreeSet<MutationSite>,
    /// What the warps of each block did, step by step, likewise.
    pub trace: Vec<Event>,
}

/// Runs `kernel` as every thread of the grid.
///
/// # Errors
/// The first broken rule of the block with the lowest index that has one.
pub fn launch(launch: &Launch, kernel: &(dyn Fn() + Sync)) -> Result<Outcome, Box<Fault>> {
    assert!(
        launch.threads.is_multiple_of(128) && (128..=1024).contains(&launch.threads),
        "a block has whole warpgroups, at most eight"
    );
    let blocks = (0..launch.grid).into_par_iter();
    let results: Vec<_> = blocks.map(|block| run_block(launch, block, kernel)).collect();
    let mut whole = Outcome::default();
    for result in results {
        let outcome = result?;
        whole.stats.add(&outcome.stats);
        whole.sites.extend(outcome.sites);
        whole.trace.extend(outcome.trace);
    }
    Ok(whole)
}

type Fiber = Coroutine<(), (), (), DefaultStack>;

thread_local! {
    /// Stacks of finished fibers.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// A kernel whose borrow the fibers do not know of.
#[derive(Clone, Copy)]
struct Body(*const (dyn Fn() + Sync));

/// A fiber that runs the kernel as one thread of the block.
fn fiber(block: *mut Block, thread: usize, body: Body) -> Fiber {
    let pooled = STACKS.with_borrow_mut(Vec::pop);
    let stack = pooled.unwrap_or_else(|| {
        DefaultStack::new(STACK_BYTES).expect("the system gives memory for a fiber's stack")
    });
    Coroutine::with_stack(stack, move |yielder, ()| {
        // SAFETY: the scheduler holds no reference to the block while a fiber runs.
        unsafe { (&mut *block).lanes[thread].yielder = std::ptr::from_ref(yielder) };
        let body = body;
        // SAFETY: `run_block` ends all fibers before its borrow of the kernel does.
        unsafe { (*body.0)() }
    })
}

/// Ends a fiber wherever it is and keeps its stack.
fn retire(mut fiber: Fiber) {
    if fiber.started() && !fiber.done() {
        // SAFETY: frames of kernels and primitives hold nothing that must be dropped, or whose
        // leak would be unsound: vectors of a primitive at most.
        unsafe { fiber.force_reset() }
    }
    if fiber.done() {
        STACKS.with_borrow_mut(|stacks| stacks.push(fiber.into_stack()));
    }
}

fn run_block(
    launch: &Launch,
    index: u32,
    kernel: &(dyn Fn() + Sync),
) -> Result<Outcome, Box<Fault>> {
    let block: *mut Block = Box::into_raw(Box::new(Block::new(launch, index)));
    // SAFETY: only the lifetime is taken off; all fibers end in this function.
    let body = Body(unsafe {
        std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync + 'static)>(
            std::ptr::from_ref(kernel),
        )
    });
    let mut fibers: Vec<Fiber> =
        (0..launch.threads as usize).map(|thread| fiber(block, thread, body)).collect();
    let before = enter(block);
    run_fibers(block, &mut fibers, Schedule::new(launch.seed, index));
    enter(before);
    fibers.into_iter().for_each(retire);
    // SAFETY: the block came from a box above, and no fiber is left that knows it.
    let mut block = unsafe { Box::from_raw(block) };
    match block.fault.take() {
        Some(fault) => Err(Box::new(fault)),
        None => Ok(Outcome {
            stats: block.stats.clone(),
            sites: std::mem::take(&mut block.sites),
            trace: std::mem::take(&mut block.trace),
        }),
    }
}

/// Takes steps until all threads have ended or a rule is broken.
fn run_fibers(block: *mut Block, fibers: &mut [Fiber], mut schedule: Schedule) {
    let mut actors = Vec::new();
    loop {
        // SAFETY: no fiber runs; the reference ends before one does.
        let state = unsafe { &mut *block };
        if state.fault.is_some() {
            return;
        }
        if state.lanes.iter().all(|lane| lane.state == State::Done) {
            return state.finish();
        }
        state.actors(&mut actors);
        if actors.is_empty() {
            return state.deadlock();
        }
        state.stats.steps += 1;
        let actor = schedule.next(&actors);
        match actor {
            Actor::Warp(warp) => run_warp(block, fibers, warp),
            Actor::Tensor(warpgroup) => state.do_product(warpgroup),
            Actor::Copy => {
                let index = schedule.copy(state.copies.len());
                state.step_copy(index);
            }
        }
        // SAFETY: as above.
        unsafe { (&mut *block).note_step(actor) }
    }
}

/// Runs every thread of a warp that can run until it suspends, then does what they came for.
fn run_warp(block: *mut Block, fibers: &mut [Fiber], warp: usize) {
    // SAFETY: here and below, no fiber runs while the reference lives.
    let mut ready = unsafe { std::mem::take(&mut (&mut *block).ready[warp]) };
    while ready != 0 {
        let lane = ready.trailing_zeros();
        ready &= ready - 1;
        let thread = warp * 32 + lane as usize;
        // SAFETY: as above.
        unsafe {
            (&mut *block).current = thread;
            (&mut *block).lanes[thread].woken_by = None;
        }
        let result = catch_unwind(AssertUnwindSafe(|| fibers[thread].resume(())));
        // SAFETY: as above.
        let state = unsafe { &mut *block };
        match result {
            Ok(CoroutineResult::Return(())) => state.lanes[thread].state = State::Done,
            Ok(CoroutineResult::Yield(())) => {
                if state.lanes[thread].state == State::Ready {
                    state.ready[warp] |= 1 << lane;
                }
            }
            Err(panic) => {
                let site = state.lanes[thread].site;
                let broken = panic_message(&*panic);
                state.fail(Primitive::Code, site, Some(thread), broken);
            }
        }
        if state.fault.is_some() {
            return;
        }
    }
    // SAFETY: as above.
    let state = unsafe { &mut *block };
    if state.ready[warp] == 0 {
        state.settle(warp);
    }
}
