//! The threads of a block: what each is at, and who can run.

use std::ops::Range;

use corosensei::Yielder;

use super::pins::Pins;
use super::report::{Checked, Primitive, Site, broken, place};
use super::request::Request;

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
    /// Registers that it has named to the tensor core.
    pub pins: Pins,
}

impl Lane {
    fn new() -> Lane {
        Lane {
            state: State::Ready,
            primitive: Primitive::Code,
            site: None,
            request: None,
            result: [0; 4],
            woken_by: None,
            yielder: std::ptr::null(),
            questions: 0,
            issued: 0,
            pins: Pins::default(),
        }
    }
}

/// The threads of a block.
pub struct Lanes {
    lanes: Vec<Lane>,
    /// Threads that can run, a bit each, by warp.
    pub ready: Vec<u32>,
}

impl std::ops::Index<usize> for Lanes {
    type Output = Lane;

    fn index(&self, thread: usize) -> &Lane {
        &self.lanes[thread]
    }
}

impl std::ops::IndexMut<usize> for Lanes {
    fn index_mut(&mut self, thread: usize) -> &mut Lane {
        &mut self.lanes[thread]
    }
}

impl Lanes {
    /// Threads that can all run.
    pub fn new(threads: usize) -> Lanes {
        let lanes = (0..threads).map(|_| Lane::new()).collect();
        Lanes { lanes, ready: vec![u32::MAX; threads / 32] }
    }

    /// Threads of the block.
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// All threads, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    /// A thread can run again.
    pub fn wake(&mut self, thread: usize) {
        self.lanes[thread].state = State::Ready;
        self.ready[thread / 32] |= 1 << (thread % 32);
    }

    /// The first thread of a warp that waits for the others.
    pub fn first_collective(&self, warp: usize) -> Option<usize> {
        (warp * 32..warp * 32 + 32).find(|thread| self.lanes[*thread].state == State::Collective)
    }

    /// Whether all of `threads` are at the operation that `thread` is at. An error if some of them
    /// cannot come any more.
    pub fn all_here(&self, thread: usize, threads: Range<usize>) -> Checked<bool> {
        let mine = &self.lanes[thread];
        let mut all = true;
        for other in threads {
            let lane = &self.lanes[other];
            match lane.state {
                State::Collective => {
                    let agree = match (&mine.request, &lane.request) {
                        (Some(mine), Some(theirs)) => mine.agrees(theirs),
                        _ => false,
                    };
                    if lane.site == mine.site && agree {
                        continue;
                    }
                    // Another warp may still be at an operation of its own warp.
                    let narrow = lane.request.as_ref().is_some_and(|it| !it.is_warpgroup_wide());
                    if other / 32 != thread / 32 && narrow {
                        all = false;
                        continue;
                    }
                    return broken!(
                        Divergence,
                        "thread {other} is at {} at {} instead, or with other operands",
                        lane.primitive.name(),
                        lane.site.map_or(String::new(), place)
                    );
                }
                State::Done => {
                    return broken!(Divergence, "thread {other} has ended");
                }
                _ => all = false,
            }
        }
        Ok(all)
    }

    /// What the threads of a warp gave to a collective operation, one after another.
    pub fn given<T>(&self, warp: usize, what: impl Fn(&Request) -> Option<T>) -> Vec<T> {
        let lanes = self.lanes[warp * 32..(warp + 1) * 32].iter();
        lanes.filter_map(|lane| what(lane.request.as_ref()?)).collect()
    }
}
