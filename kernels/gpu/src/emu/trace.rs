//! What the warps of a block came to, step by step: the stuff of a timeline.

use super::block::{Block, State};
use super::report::{Primitive, Site};
use super::schedule::Actor;

/// What a warp came to at the end of one of its steps: it does this until its next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Index of the block in its grid.
    pub block: u32,
    /// The step of the block's scheduler.
    pub step: u64,
    /// Index of the warp in its block.
    pub warp: u32,
    /// The primitive that it has called last.
    pub primitive: Primitive,
    /// Where; none if it has not called any.
    pub site: Option<Site>,
    /// The barrier that it waits for there, by name and index, if it has a name.
    pub barrier: Option<(&'static str, u32)>,
    /// What it is at.
    pub doing: Doing,
}

/// What a warp is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It can go on.
    Runs,
    /// It waits for others.
    Waits,
    /// All its threads have ended.
    Ended,
}

impl Block {
    /// Notes what the warp that has just taken a step came to, if that is wanted.
    pub fn note_step(&mut self, actor: Actor) {
        let (true, Actor::Warp(warp)) = (self.record, actor) else { return };
        // The first thread that has not ended speaks for the warp.
        let mut lanes = self.lanes[warp * 32..(warp + 1) * 32].iter();
        let lane = lanes.find(|lane| lane.state != State::Done).unwrap_or(&self.lanes[warp * 32]);
        let barrier = match lane.state {
            State::OnMbarrier { bar, .. } => self.names.get(&bar).copied(),
            State::OnBarrier(id) => self.barrier_names.get(id as usize).copied().flatten(),
            _ => None,
        };
        let doing = match lane.state {
            State::Done => Doing::Ended,
            _ if self.ready[warp] != 0 => Doing::Runs,
            _ => Doing::Waits,
        };
        let (block, step, warp) = (self.index, self.stats.steps, warp as u32);
        let (primitive, site) = (lane.primitive, lane.site);
        self.trace.push(Event { block, step, warp, primitive, site, barrier, doing });
    }
}
