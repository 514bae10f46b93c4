//! What the warps of a block came to, step by step: the stuff of a timeline.

use super::block::Block;
use super::lanes::State;
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

/// What the warp that has just taken a step came to; nothing if an engine took it.
pub fn event(block: &Block, actor: Actor) -> Option<Event> {
    let Actor::Warp(warp) = actor else { return None };
    // The first thread that has not ended speaks for the warp.
    let mut lanes = (warp * 32..(warp + 1) * 32).map(|thread| &block.lanes[thread]);
    let lane = lanes.find(|lane| lane.state != State::Done).unwrap_or(&block.lanes[warp * 32]);
    let barrier = match lane.state {
        State::OnMbarrier { bar, .. } => block.mbarriers.label(bar),
        State::OnBarrier(id) => block.named.label(id),
        _ => None,
    };
    let doing = match lane.state {
        State::Done => Doing::Ended,
        _ if block.lanes.ready[warp] != 0 => Doing::Runs,
        _ => Doing::Waits,
    };
    Some(Event {
        block: block.index,
        step: block.stats.steps,
        warp: warp as u32,
        primitive: lane.primitive,
        site: lane.site,
        barrier,
        doing,
    })
}
