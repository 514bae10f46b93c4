//! Who runs next, from a seed.

use fastrand::Rng;

/// An order of running, all of it from one number, so that this number replays a run.
///
/// Seed 0 is round robin with the engines as late as they may be; odd seeds choose at random;
/// even ones give everyone a priority and change it now and then (PCT, Burckhardt et al. 2010).
#[derive(Debug)]
pub struct Schedule {
    rng: Rng,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    RoundRobin { last: usize },
    Random,
    Priorities(Vec<u64>),
}

/// One that can take the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A warp with threads that can run.
    Warp(usize),
    /// The copy engine: one of its pending copies.
    Copy,
    /// The tensor core of a warpgroup: its oldest product.
    Tensor(usize),
}

impl Actor {
    fn number(self) -> usize {
        match self {
            Actor::Warp(warp) => warp,
            Actor::Copy => 32,
            Actor::Tensor(warpgroup) => 33 + warpgroup,
        }
    }
}

impl Schedule {
    /// The schedule of `seed` for a block.
    pub fn new(seed: u64, block: u32) -> Schedule {
        let mut rng =
            Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(block) << 32));
        let kind = match seed {
            0 => Kind::RoundRobin { last: 0 },
            seed if seed % 2 == 1 => Kind::Random,
            _ => Kind::Priorities((0..48).map(|_| rng.u64(1 << 32..)).collect()),
        };
        Schedule { rng, kind }
    }

    /// One of `actors`, which is not empty.
    pub fn next(&mut self, actors: &[Actor]) -> Actor {
        match &mut self.kind {
            Kind::Random => actors[self.rng.usize(..actors.len())],
            Kind::RoundRobin { last } => {
                let warps = actors.iter().filter(|actor| matches!(actor, Actor::Warp(_)));
                let after = warps.clone().find(|actor| actor.number() > *last);
                // A warp, else a copy, and a product only when it is waited for.
                let next = *after.or(warps.clone().next()).unwrap_or(&actors[0]);
                *last = next.number();
                next
            }
            Kind::Priorities(priorities) => {
                let highest = actors.iter().max_by_key(|actor| priorities[actor.number()]);
                let next = *highest.unwrap_or(&actors[0]);
                if self.rng.u32(..48) == 0 {
                    // Below everyone who has not been lowered yet.
                    let below = priorities.iter().min().copied().unwrap_or(1);
                    priorities[next.number()] = below.saturating_sub(1);
                }
                next
            }
        }
    }

    /// Which of `count` pending copies completes next: the oldest in round robin.
    pub fn copy(&mut self, count: usize) -> usize {
        match self.kind {
            Kind::RoundRobin { .. } => 0,
            _ => self.rng.usize(..count),
        }
    }
}
