//! How a thread's primitives reach the block that it runs in.

use std::cell::Cell;

use super::block::Block;
use super::lanes::State;
use super::mutation::Change;
use super::report::{Checked, Primitive, Site};
use super::request::Request;

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
