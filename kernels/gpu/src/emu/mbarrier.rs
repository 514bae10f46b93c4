//! Barriers that count arrivals and bytes.

use fastrand::Rng;

use super::block::{Block, State};
use super::clock::{Agent, Clock};
use super::report::{Checked, Site, broken, place};

/// An initialised mbarrier.
#[derive(Debug)]
pub struct Mbarrier {
    pub agent: Agent,
    arrivals: u32,
    /// Arrivals that the current phase still waits for.
    pub pending: u32,
    /// Bytes that the current phase still waits for; negative if copies were faster than the
    /// arrival that expects them.
    pub bytes: i64,
    /// Completed phases.
    pub phase: u32,
    /// What those who arrived in the current phase knew.
    arriving: Clock,
    /// What one learns by waiting for the last completed phase.
    completed: Clock,
    /// What those who arrived in the last completed phase knew.
    arrived: Clock,
    /// The initialisation as an event of the thread that did it.
    init: (Agent, u32, Site),
    /// The phase, place and thread of the last copy that completes on it.
    pub last_copy: Option<(u32, Site, usize)>,
    /// The fence that makes it visible to the copy engine, likewise.
    fence: Option<(Agent, u32)>,
}

impl Block {
    /// The barrier's name, or its address.
    pub fn mbarrier_name(&self, bar: u32) -> String {
        match self.names.get(&bar) {
            Some((family, index)) => format!("{family}[{index}]"),
            None => format!("mbarrier {bar:#x}"),
        }
    }

    /// The barrier's family, for mutations.
    pub fn mbarrier_family(&self, bar: u32) -> &'static str {
        self.names.get(&bar).map_or("", |(family, _)| family)
    }

    pub fn mbarrier_init(&mut self, bar: u32, arrivals: u32, site: Site) -> Checked {
        self.shared.check_range(bar, 8)?;
        if !bar.is_multiple_of(8) {
            return broken!(Malformed, "an mbarrier at {bar:#x}, which is no multiple of 8");
        }
        if arrivals == 0 || arrivals >= 1 << 20 {
            return broken!(Barrier, "{arrivals} arrivals: from 1 to 2^20 - 1 are allowed");
        }
        if let Some(old) = self.mbarriers.get(&bar) {
            let (name, before) = (self.mbarrier_name(bar), place(old.init.2));
            return broken!(Barrier, "{name} was already initialised at {before}");
        }
        let (event_agent, time) = self.event(self.current);
        let agent = self.new_agent();
        let barrier = Mbarrier {
            agent,
            arrivals,
            pending: arrivals,
            bytes: 0,
            phase: 0,
            arriving: Clock::default(),
            completed: Clock::default(),
            arrived: Clock::default(),
            init: (event_agent, time, site),
            last_copy: None,
            fence: None,
        };
        self.mbarriers.insert(bar, barrier);
        Ok(())
    }

    /// Makes this thread's initialisations visible to the copy engine.
    pub fn mbarrier_fence_init(&mut self) {
        let (agent, time) = self.event(self.current);
        for barrier in self.mbarriers.values_mut() {
            if barrier.init.0 == agent {
                barrier.fence.get_or_insert((agent, time));
            }
        }
    }

    /// The barrier, if the current thread may use it.
    fn mbarrier(&mut self, bar: u32) -> Checked<&mut Mbarrier> {
        let name = self.mbarrier_name(bar);
        let clock = &self.clocks[self.current];
        let Some(barrier) = self.mbarriers.get_mut(&bar) else {
            return broken!(Barrier, "{name} was never initialised");
        };
        let (agent, time, site) = barrier.init;
        if clock.time(agent) < time {
            return broken!(
                Race,
                "uses {name}, whose initialisation at {} nothing orders before this",
                place(site)
            );
        }
        Ok(barrier)
    }

    pub fn mbarrier_arrive(&mut self, bar: u32, bytes: u32) -> Checked {
        self.stats.barrier_operations += 1;
        self.mbarrier(bar)?;
        let name = self.mbarrier_name(bar);
        self.event(self.current);
        let clock = &self.clocks[self.current];
        let barrier = self.mbarriers.get_mut(&bar).expect("looked up above");
        if barrier.pending == 0 {
            return broken!(
                Barrier,
                "{name} phase {} is over-arrived: all {} arrivals have come, {} bytes are missing",
                barrier.phase,
                barrier.arrivals,
                barrier.bytes
            );
        }
        barrier.arriving.join(clock);
        barrier.pending -= 1;
        barrier.bytes += i64::from(bytes);
        self.release(self.current);
        self.complete(bar)
    }

    /// Whether the phase of this parity is complete; if so, the thread learns what it brings.
    pub fn mbarrier_test(&mut self, bar: u32, parity: u32) -> Checked<bool> {
        self.stats.barrier_operations += 1;
        let current = self.current;
        if parity > 1 {
            return broken!(Barrier, "parity {parity}: 0 and 1 are allowed");
        }
        let barrier = self.mbarrier(bar)?;
        if barrier.phase & 1 == parity {
            return Ok(false);
        }
        let completed = barrier.completed.clone();
        self.clocks[current].join(&completed);
        Ok(true)
    }

    /// As [`mbarrier_test`](Self::mbarrier_test) for a thread that will not wait: it may also get
    /// the answer of a moment earlier, before the last phase completed, unless it knows of that:
    /// by a wait, or because all arrivals are ordered before the question and no copy was awaited.
    /// Under seed 0 it always does, otherwise every other time, by a draw from the seed; the
    /// threads of a warpgroup draw the same, so that none of them hides what the others missed.
    pub fn mbarrier_ask(&mut self, bar: u32, parity: u32) -> Checked<bool> {
        let lane = &mut self.lanes[self.current];
        lane.questions += 1;
        let question = (self.current as u64 / 128) << 32 | lane.questions;
        let late = self.seed == 0 || Rng::with_seed(self.seed << 48 ^ question).bool();
        self.mbarrier(bar)?;
        let Mbarrier { agent, phase, arrived, last_copy, .. } = &self.mbarriers[&bar];
        let phase = *phase;
        let clock = &self.clocks[self.current];
        let copied = last_copy.is_some_and(|(of, ..)| of + 1 == phase);
        let knows = clock.time(*agent) >= phase || !copied && clock.covers(arrived);
        if late && !knows {
            self.stats.barrier_operations += 1;
            return Ok((phase - 1) & 1 != parity);
        }
        self.mbarrier_test(bar, parity)
    }

    /// The copy engine is given a barrier: its agent and the phase that will see the copy.
    pub fn mbarrier_for_copy(&mut self, bar: u32, site: Site) -> Checked<(Agent, u32)> {
        let name = self.mbarrier_name(bar);
        let current = self.current;
        let barrier = self.mbarrier(bar)?;
        let (agent, phase, fence) = (barrier.agent, barrier.phase, barrier.fence);
        barrier.last_copy = Some((phase, site, current));
        let clock = &self.clocks[self.current];
        if fence.is_none_or(|(agent, time)| clock.time(agent) < time) {
            return broken!(
                Race,
                "gives {name} to the copy engine, but no mbarrier::fence_init after its \
                 initialisation is ordered before this"
            );
        }
        Ok((agent, phase))
    }

    /// A copy of `bytes` bytes, issued in `phase`, has arrived.
    pub fn mbarrier_receive(&mut self, bar: u32, bytes: u32, phase: u32) -> Checked {
        let name = self.mbarrier_name(bar);
        let barrier = self.mbarriers.get_mut(&bar).expect("checked when the copy was issued");
        if barrier.phase != phase {
            return broken!(
                Barrier,
                "{bytes} bytes for phase {phase} of {name} arrive in phase {}: the phase expected \
                 fewer bytes than its copies bring, or fewer arrivals than it gets",
                barrier.phase
            );
        }
        barrier.bytes -= i64::from(bytes);
        self.complete(bar)
    }

    /// Closes the phase if nothing is missing, and wakes who waits for it.
    fn complete(&mut self, bar: u32) -> Checked {
        let name = self.mbarrier_name(bar);
        let barrier = self.mbarriers.get_mut(&bar).expect("the caller has it");
        if barrier.pending > 0 || barrier.bytes != 0 {
            return Ok(());
        }
        let parity = barrier.phase & 1;
        barrier.phase += 1;
        barrier.pending = barrier.arrivals;
        let arriving = std::mem::take(&mut barrier.arriving);
        barrier.completed.join(&arriving);
        barrier.arrived = arriving;
        barrier.completed.raise(barrier.agent, barrier.phase);
        let completed = barrier.completed.clone();
        for thread in 0..self.lanes.len() {
            if self.lanes[thread].woken_by == Some(bar) {
                return broken!(
                    Barrier,
                    "{name} completes another phase before thread {thread} has seen the last one: \
                     a device might miss it"
                );
            }
            if self.lanes[thread].state == (State::OnMbarrier { bar, parity }) {
                self.clocks[thread].join(&completed);
                self.lanes[thread].woken_by = Some(bar);
                self.wake(thread);
            }
        }
        Ok(())
    }

    /// What an mbarrier waits for, in words.
    pub fn mbarrier_missing(&self, bar: u32) -> String {
        let Some(barrier) = self.mbarriers.get(&bar) else {
            return String::new();
        };
        let Mbarrier { phase, pending, arrivals, bytes, .. } = barrier;
        format!("phase {phase} misses {pending} of {arrivals} arrivals and {bytes} bytes")
    }
}
