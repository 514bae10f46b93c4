//! Named barriers: arrivals of whole warps.

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

/// A warp that comes to a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub warp: usize,
    pub id: u32,
    /// Threads that complete the phase.
    pub count: u32,
    pub coming: Coming,
    /// Whether some thread of the warp votes `true`.
    pub vote: bool,
    pub site: Site,
}

/// A phase that has just been completed.
#[derive(Debug)]
pub struct Ended {
    /// Warps that have waited for it.
    pub warps: Vec<usize>,
    /// What they learn.
    pub learned: Clock,
    /// Whether some thread of the phase has voted `true`.
    pub any: bool,
}

/// One of the block's barriers.
#[derive(Debug, Default)]
struct Named {
    name: Option<(&'static str, u32)>,
    /// Threads that complete the phase, as the first arrival of the phase said.
    count: u32,
    arrived: u32,
    /// Completed phases.
    phase: u32,
    /// Whether the phase is one of votes, as the first arrival of the phase said.
    votes: bool,
    /// Whether some thread of the phase has voted `true`.
    any: bool,
    clock: Clock,
    waiting: Vec<usize>,
    /// Where the phase's last arrival without a wait was made.
    last: Option<Site>,
}

impl Named {
    /// Refuses an arrival that does not fit those before it.
    fn check(&self, name: &str, arrival: Arrival) -> Checked {
        let phase = self.phase;
        let votes = arrival.coming == Coming::Vote;
        if self.arrived > 0 && self.votes != votes {
            let (mine, theirs) = if votes { ("with", "without") } else { ("without", "with") };
            return broken!(
                Barrier,
                "{name} phase {phase} {mine} a vote, but others came {theirs} one"
            );
        }
        if self.arrived > 0 && self.count != arrival.count {
            return broken!(
                Barrier,
                "{name} phase {phase} for {} threads, but others came for {}",
                arrival.count,
                self.count
            );
        }
        Ok(())
    }

    /// Opens the next phase.
    fn end(&mut self) -> Ended {
        self.arrived = 0;
        self.phase += 1;
        Ended {
            warps: std::mem::take(&mut self.waiting),
            learned: std::mem::take(&mut self.clock),
            any: std::mem::take(&mut self.any),
        }
    }
}

/// The block's 16 barriers.
#[derive(Debug)]
pub struct NamedBarriers {
    barriers: [Named; 16],
    /// Threads of the block.
    threads: u32,
}

impl NamedBarriers {
    pub fn new(threads: u32) -> NamedBarriers {
        NamedBarriers { barriers: Default::default(), threads }
    }

    pub fn set_name(&mut self, id: u32, family: &'static str, index: u32) {
        self.barriers[id as usize % 16].name = Some((family, index));
    }

    /// The barrier's family and its index in it, if it has a name.
    pub fn label(&self, id: u32) -> Option<(&'static str, u32)> {
        self.barriers.get(id as usize)?.name
    }

    /// The barrier's family, for mutations.
    pub fn family(&self, id: u32) -> &'static str {
        self.label(id).map_or("", |(family, _)| family)
    }

    /// The barrier's name, or its number.
    fn name(&self, id: u32) -> String {
        match self.label(id) {
            Some((family, index)) => format!("{family}[{index}]"),
            None => format!("barrier {id}"),
        }
    }

    /// A warp arrives whose threads know `clocks`; where it completes the phase, who goes on.
    pub fn arrive(&mut self, arrival: Arrival, clocks: &[Clock]) -> Checked<Option<Ended>> {
        let Arrival { warp, id, count, coming, vote, site } = arrival;
        let (name, threads) = (self.name(id), self.threads);
        let Some(barrier) = self.barriers.get_mut(id as usize) else {
            return broken!(Barrier, "barrier {id}: 0 to 15 are allowed");
        };
        if count == 0 || !count.is_multiple_of(32) || count > threads {
            return broken!(
                Barrier,
                "{name} for {count} threads: a multiple of 32 up to the block's {threads} is \
                 allowed"
            );
        }
        barrier.check(&name, arrival)?;
        (barrier.count, barrier.votes) = (count, coming == Coming::Vote);
        barrier.any |= vote;
        barrier.arrived += 32;
        for clock in clocks {
            barrier.clock.join(clock);
        }
        if coming == Coming::Pass {
            barrier.last = Some(site);
        } else {
            barrier.waiting.push(warp);
        }
        if barrier.arrived != barrier.count {
            return Ok(None);
        }
        if barrier.waiting.is_empty() {
            return broken!(
                Barrier,
                "{name} phase {} is complete with nobody waiting; another arrival was at {}",
                barrier.phase,
                barrier.last.map_or(String::new(), place)
            );
        }
        Ok(Some(barrier.end()))
    }

    /// What a barrier waits for, in words.
    pub fn missing(&self, id: u32) -> String {
        let Named { arrived, count, phase, .. } = &self.barriers[id as usize];
        format!("{} phase {phase}, {arrived} of {count} threads have come", self.name(id))
    }

    /// The first barrier with arrivals in an open phase: its name, how many threads, and where the
    /// last came.
    pub fn unfinished(&self) -> Option<(String, u32, Option<Site>)> {
        let open = |(_, barrier): &(u32, &Named)| barrier.arrived > 0;
        let (id, barrier) = (0..).zip(&self.barriers).find(open)?;
        Some((self.name(id), barrier.arrived, barrier.last))
    }
}
