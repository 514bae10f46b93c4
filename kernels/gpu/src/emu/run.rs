//! Runs a grid: every thread a fiber, every block on one OS thread.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use rayon::prelude::*;

use super::block::Block;
use super::current::enter;
use super::ending;
use super::grid::Grid;
use super::lanes::State;
use super::mutation::MutationSite;
use super::report::{Broken, Fault, FaultKind, Primitive};
use super::schedule::{Actor, Schedule};
use super::stats::Stats;
use super::trace::{self, Event};

/// Bytes of a fiber's stack. Memory is only used where a kernel's frames reach, but frames are
/// large: an accumulator alone has 512 bytes, and without optimisation every move is a copy.
const STACK_BYTES: usize = 256 << 10;

/// What is known after a launch without faults.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Counts of all blocks.
    pub stats: Stats,
    /// Sites where errors could be planted, if they were asked for.
    pub sites: BTreeSet<MutationSite>,
    /// What the warps of each block did, step by step, likewise.
    pub trace: Vec<Event>,
}

impl Summary {
    /// Adds what is known of other blocks, or of another launch.
    pub fn add(&mut self, other: Summary) {
        self.stats.add(&other.stats);
        self.sites.extend(other.sites);
        self.trace.extend(other.trace);
    }
}

/// Runs `kernel` as every thread of the grid.
///
/// # Errors
/// The first broken rule of the block with the lowest index that has one.
pub fn launch(grid: &Grid, kernel: &(dyn Fn() + Sync)) -> Result<Summary, Box<Fault>> {
    assert!(
        grid.threads.is_multiple_of(128) && (128..=1024).contains(&grid.threads),
        "a block has whole warpgroups, at most eight"
    );
    let blocks = (0..grid.blocks).into_par_iter();
    let results: Vec<_> = blocks.map(|block| run_block(grid, block, kernel)).collect();
    let mut whole = Summary::default();
    for result in results {
        whole.add(result?);
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

/// What `broken!` makes of a panic in the kernel's code.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> Broken {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Broken::new(FaultKind::Panic, text)
}

fn run_block(grid: &Grid, index: u32, kernel: &(dyn Fn() + Sync)) -> Result<Summary, Box<Fault>> {
    let block: *mut Block = Box::into_raw(Box::new(Block::new(grid, index)));
    // SAFETY: only the lifetime is taken off; all fibers end in this function.
    let body = Body(unsafe {
        std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync + 'static)>(
            std::ptr::from_ref(kernel),
        )
    });
    let mut fibers: Vec<Fiber> =
        (0..grid.threads as usize).map(|thread| fiber(block, thread, body)).collect();
    let before = enter(block);
    let mut trace = grid.record.then(Vec::new);
    run_fibers(block, &mut fibers, Schedule::new(grid.seed, index), trace.as_mut());
    enter(before);
    fibers.into_iter().for_each(retire);
    // SAFETY: the block came from a box above, and no fiber is left that knows it.
    let mut block = unsafe { Box::from_raw(block) };
    match block.fault.take() {
        Some(fault) => Err(Box::new(fault)),
        None => Ok(Summary {
            stats: block.stats.clone(),
            sites: std::mem::take(&mut block.sites),
            trace: trace.unwrap_or_default(),
        }),
    }
}

/// Takes steps until all threads have ended or a rule is broken; notes what warps came to in
/// `trace`.
fn run_fibers(
    block: *mut Block,
    fibers: &mut [Fiber],
    mut schedule: Schedule,
    mut trace: Option<&mut Vec<Event>>,
) {
    let mut actors = Vec::new();
    loop {
        // SAFETY: no fiber runs; the reference ends before one does.
        let state = unsafe { &mut *block };
        if state.fault.is_some() {
            return;
        }
        if state.lanes.iter().all(|lane| lane.state == State::Done) {
            return ending::finish(state);
        }
        state.actors(&mut actors);
        if actors.is_empty() {
            return ending::deadlock(state);
        }
        state.stats.steps += 1;
        let actor = schedule.next(&actors);
        match actor {
            Actor::Warp(warp) => run_warp(block, fibers, warp),
            Actor::Tensor(warpgroup) => state.compute(warpgroup),
            Actor::Copy => {
                let index = schedule.copy(state.copies.pending());
                state.step_copy(index);
            }
        }
        if let Some(trace) = &mut trace {
            // SAFETY: as above.
            trace.extend(trace::event(unsafe { &*block }, actor));
        }
    }
}

/// Runs every thread of a warp that can run until it suspends, then does what they came for.
fn run_warp(block: *mut Block, fibers: &mut [Fiber], warp: usize) {
    // SAFETY: here and below, no fiber runs while the reference lives.
    let mut ready = unsafe { std::mem::take(&mut (&mut *block).lanes.ready[warp]) };
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
                    state.lanes.ready[warp] |= 1 << lane;
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
    if state.lanes.ready[warp] == 0 {
        state.settle(warp);
    }
}
