//! Barriers that count arrivals and bytes.

use std::collections::BTreeMap;

use super::clock::{Agent, Clock};
use super::report::{Checked, Site, broken, place};

/// An initialised mbarrier.
#[derive(Debug)]
struct Mbarrier {
    agent: Agent,
    arrivals: u32,
    /// Arrivals that the current phase still waits for.
    pending: u32,
    /// Bytes that the current phase still waits for; negative if copies were faster than the
    /// arrival that expects them.
    bytes: i64,
    /// Completed phases.
    phase: u32,
    /// What those who arrived in the current phase knew.
    arriving: Clock,
    /// What one learns by waiting for the last completed phase.
    completed: Clock,
    /// What those who arrived in the last completed phase knew.
    arrived: Clock,
    /// The initialisation as an event of the thread that did it.
    init: (Agent, u32, Site),
    /// The phase, place and thread of the last copy that completes on it.
    last_copy: Option<(u32, Site, usize)>,
    /// The fence that makes it visible to the copy engine, likewise.
    fence: Option<(Agent, u32)>,
}

impl Mbarrier {
    /// Closes the phase if nothing is missing.
    fn complete(&mut self) -> Option<Completed> {
        if self.pending > 0 || self.bytes != 0 {
            return None;
        }
        let parity = self.phase & 1;
        self.phase += 1;
        self.pending = self.arrivals;
        let arriving = std::mem::take(&mut self.arriving);
        self.completed.join(&arriving);
        self.arrived = arriving;
        self.completed.raise(self.agent, self.phase);
        Some(Completed { parity, learned: self.completed.clone() })
    }
}

/// A phase that has just been completed.
#[derive(Debug)]
pub struct Completed {
    pub parity: u32,
    /// What those learn who wait for it.
    pub learned: Clock,
}

/// The mbarriers of a block, by address.
#[derive(Debug, Default)]
pub struct Mbarriers {
    barriers: BTreeMap<u32, Mbarrier>,
    names: BTreeMap<u32, (&'static str, u32)>,
}

impl Mbarriers {
    pub fn set_name(&mut self, bar: u32, family: &'static str, index: u32) {
        self.names.insert(bar, (family, index));
    }

    /// The barrier's family and its index in it, if it has a name.
    pub fn label(&self, bar: u32) -> Option<(&'static str, u32)> {
        self.names.get(&bar).copied()
    }

    /// The barrier's name, or its address.
    pub fn name(&self, bar: u32) -> String {
        match self.label(bar) {
            Some((family, index)) => format!("{family}[{index}]"),
            None => format!("mbarrier {bar:#x}"),
        }
    }

    /// The barrier's family, for mutations.
    pub fn family(&self, bar: u32) -> &'static str {
        self.label(bar).map_or("", |(family, _)| family)
    }

    /// Initialises the barrier at `bar`, in the block's memory; `event` is the initialisation as
    /// one of its thread, `agent` stands for the barrier from now on.
    pub fn init(
        &mut self,
        bar: u32,
        arrivals: u32,
        event: (Agent, u32),
        agent: Agent,
        site: Site,
    ) -> Checked {
        if !bar.is_multiple_of(8) {
            return broken!(Malformed, "an mbarrier at {bar:#x}, which is no multiple of 8");
        }
        if arrivals == 0 || arrivals >= 1 << 20 {
            return broken!(Barrier, "{arrivals} arrivals: from 1 to 2^20 - 1 are allowed");
        }
        if let Some(old) = self.barriers.get(&bar) {
            let (name, before) = (self.name(bar), place(old.init.2));
            return broken!(Barrier, "{name} was already initialised at {before}");
        }
        let barrier = Mbarrier {
            agent,
            arrivals,
            pending: arrivals,
            bytes: 0,
            phase: 0,
            arriving: Clock::default(),
            completed: Clock::default(),
            arrived: Clock::default(),
            init: (event.0, event.1, site),
            last_copy: None,
            fence: None,
        };
        self.barriers.insert(bar, barrier);
        Ok(())
    }

    /// Makes the initialisations of the thread that `event` is one of visible to the copy engine.
    pub fn fence_init(&mut self, event: (Agent, u32)) {
        for barrier in self.barriers.values_mut() {
            if barrier.init.0 == event.0 {
                barrier.fence.get_or_insert(event);
            }
        }
    }

    /// Refuses a barrier that someone who knows `clock` may not use.
    fn check(&self, bar: u32, clock: &Clock) -> Checked<&Mbarrier> {
        let Some(barrier) = self.barriers.get(&bar) else {
            return broken!(Barrier, "{} was never initialised", self.name(bar));
        };
        let (agent, time, site) = barrier.init;
        if clock.time(agent) < time {
            return broken!(
                Race,
                "uses {}, whose initialisation at {} nothing orders before this",
                self.name(bar),
                place(site)
            );
        }
        Ok(barrier)
    }

    /// As [`check`](Self::check), for a change.
    fn checked(&mut self, bar: u32, clock: &Clock) -> Checked<&mut Mbarrier> {
        self.check(bar, clock)?;
        Ok(self.barriers.get_mut(&bar).expect("looked up above"))
    }

    /// A thread that knows `clock` arrives and expects `bytes`.
    pub fn arrive(&mut self, bar: u32, bytes: u32, clock: &Clock) -> Checked<Option<Completed>> {
        let barrier = self.check(bar, clock)?;
        if barrier.pending == 0 {
            return broken!(
                Barrier,
                "{} phase {} is over-arrived: all {} arrivals have come, {} bytes are missing",
                self.name(bar),
                barrier.phase,
                barrier.arrivals,
                barrier.bytes
            );
        }
        let barrier = self.checked(bar, clock)?;
        barrier.arriving.join(clock);
        barrier.pending -= 1;
        barrier.bytes += i64::from(bytes);
        Ok(barrier.complete())
    }

    /// Whether the phase of this parity is complete: what one learns by it.
    pub fn test(&self, bar: u32, parity: u32, clock: &Clock) -> Checked<Option<&Clock>> {
        if parity > 1 {
            return broken!(Barrier, "parity {parity}: 0 and 1 are allowed");
        }
        let barrier = self.check(bar, clock)?;
        Ok((barrier.phase & 1 != parity).then_some(&barrier.completed))
    }

    /// The answer of a moment earlier, before the last phase completed, unless someone who knows
    /// `clock` knows of that: by a wait, or because all arrivals are ordered before the question
    /// and no copy was awaited.
    pub fn earlier(&self, bar: u32, parity: u32, clock: &Clock) -> Checked<Option<bool>> {
        let barrier = self.check(bar, clock)?;
        let phase = barrier.phase;
        let copied = barrier.last_copy.is_some_and(|(of, ..)| of + 1 == phase);
        let knows = clock.time(barrier.agent) >= phase || !copied && clock.covers(&barrier.arrived);
        Ok((!knows).then(|| (phase - 1) & 1 != parity))
    }

    /// The copy engine is given a barrier by `thread`, which knows `clock`: its agent and the phase
    /// that will see the copy.
    pub fn for_copy(
        &mut self,
        bar: u32,
        clock: &Clock,
        thread: usize,
        site: Site,
    ) -> Checked<(Agent, u32)> {
        let barrier = self.checked(bar, clock)?;
        let (agent, phase, fence) = (barrier.agent, barrier.phase, barrier.fence);
        barrier.last_copy = Some((phase, site, thread));
        if fence.is_none_or(|(agent, time)| clock.time(agent) < time) {
            return broken!(
                Race,
                "gives {} to the copy engine, but no mbarrier::fence_init after its \
                 initialisation is ordered before this",
                self.name(bar)
            );
        }
        Ok((agent, phase))
    }

    /// A copy of `bytes` bytes, issued in `phase`, has arrived.
    pub fn receive(&mut self, bar: u32, bytes: u32, phase: u32) -> Checked<Option<Completed>> {
        let barrier = self.barriers.get_mut(&bar).expect("checked when the copy was issued");
        if barrier.phase != phase {
            let now = barrier.phase;
            return broken!(
                Barrier,
                "{bytes} bytes for phase {phase} of {} arrive in phase {now}: the phase expected \
                 fewer bytes than its copies bring, or fewer arrivals than it gets",
                self.name(bar)
            );
        }
        barrier.bytes -= i64::from(bytes);
        Ok(barrier.complete())
    }

    /// What an mbarrier waits for, in words.
    pub fn missing(&self, bar: u32) -> String {
        let Some(barrier) = self.barriers.get(&bar) else {
            return String::new();
        };
        let Mbarrier { phase, pending, arrivals, bytes, .. } = barrier;
        format!("phase {phase} misses {pending} of {arrivals} arrivals and {bytes} bytes")
    }

    /// A copy whose completion nobody has seen, and its thread; `passed` tells whether someone
    /// knows that an agent has passed a time.
    pub fn unseen_copy(&self, passed: impl Fn(Agent, u32) -> bool) -> Option<(Site, usize)> {
        self.barriers.values().find_map(|barrier| {
            let (phase, site, thread) = barrier.last_copy?;
            (!passed(barrier.agent, phase)).then_some((site, thread))
        })
    }
}
