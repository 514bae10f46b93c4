//! Named barriers: arrivals of whole warps.

use super::block::{Block, Request, State};
use super::clock::Clock;
use super::report::{Checked, Site, broken, place};

/// How a warp comes to a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// It goes on at once.
    Pass,
    /// It waits for the end of the phase.
    Wait,
    /// It waits, and hears whether any thread of the phase voted `true`.
    Vote,
}

/// One of the block's 16 barriers.
#[derive(Debug, Default)]
pub struct Named {
    /// Threads that complete the phase, as the first arrival of the phase said.
    pub count: u32,
    pub arrived: u32,
    /// Completed phases.
    pub phase: u32,
    /// Whether the phase is one of votes, as the first arrival of the phase said.
    votes: bool,
    /// Whether some thread of the phase has voted `true`.
    any: bool,
    clock: Clock,
    waiting: Vec<usize>,
    /// Where the phase's last arrival without a wait was made.
    pub last: Option<Site>,
}

impl Block {
    /// The barrier's name, or its number.
    pub fn barrier_name(&self, id: u32) -> String {
        match self.barrier_names.get(id as usize).copied().flatten() {
            Some((family, index)) => format!("{family}[{index}]"),
            None => format!("barrier {id}"),
        }
    }

    /// A warp arrives and, unless it passes, stays until the phase is complete.
    pub fn barrier_arrive(
        &mut self,
        warp: usize,
        id: u32,
        count: u32,
        coming: Coming,
        site: Site,
    ) -> Checked {
        self.stats.barrier_operations += 1;
        let name = self.barrier_name(id);
        let threads = self.lanes.len() as u32;
        if id >= 16 {
            return broken!(Barrier, "barrier {id}: 0 to 15 are allowed");
        }
        if count == 0 || !count.is_multiple_of(32) || count > threads {
            return broken!(
                Barrier,
                "{name} for {count} threads: a multiple of 32 up to the block's {threads} is \
                 allowed"
            );
        }
        let votes = coming == Coming::Vote;
        let any = self.any_votes(warp);
        let barrier = &mut self.named[id as usize];
        if barrier.arrived > 0 && barrier.votes != votes {
            let (mine, theirs) = if votes { ("with", "without") } else { ("without", "with") };
            return broken!(
                Barrier,
                "{name} phase {} {mine} a vote, but others came {theirs} one",
                barrier.phase
            );
        }
        if barrier.arrived > 0 && barrier.count != count {
            return broken!(
                Barrier,
                "{name} phase {} for {count} threads, but others came for {}",
                barrier.phase,
                barrier.count
            );
        }
        (barrier.count, barrier.votes) = (count, votes);
        barrier.any |= any;
        barrier.arrived += 32;
        for clock in &self.clocks[warp * 32..(warp + 1) * 32] {
            barrier.clock.join(clock);
        }
        if coming == Coming::Pass {
            barrier.last = Some(site);
        } else {
            barrier.waiting.push(warp);
        }
        let done = barrier.arrived == barrier.count;
        if done && barrier.waiting.is_empty() {
            return broken!(
                Barrier,
                "{name} phase {} is complete with nobody waiting; another arrival was at {}",
                barrier.phase,
                barrier.last.map_or(String::new(), place)
            );
        }
        self.barrier_release(warp, id, coming, done);
        Ok(())
    }

    /// Whether some thread of a warp that has come to a barrier votes `true`.
    fn any_votes(&self, warp: usize) -> bool {
        let mut lanes = self.lanes[warp * 32..(warp + 1) * 32].iter();
        lanes.any(|lane| matches!(lane.request, Some(Request::Barrier { vote: true, .. })))
    }

    fn barrier_release(&mut self, warp: usize, id: u32, coming: Coming, done: bool) {
        for thread in warp * 32..(warp + 1) * 32 {
            self.release(thread);
            if coming == Coming::Pass {
                self.wake(thread);
            } else {
                self.lanes[thread].state = State::OnBarrier(id);
            }
        }
        if !done {
            return;
        }
        let barrier = &mut self.named[id as usize];
        barrier.arrived = 0;
        barrier.phase += 1;
        let any = std::mem::take(&mut barrier.any);
        let clock = std::mem::take(&mut barrier.clock);
        for warp in std::mem::take(&mut barrier.waiting) {
            for thread in warp * 32..(warp + 1) * 32 {
                self.clocks[thread].join(&clock);
                self.lanes[thread].result[0] = any.into();
                self.wake(thread);
            }
        }
    }
}
