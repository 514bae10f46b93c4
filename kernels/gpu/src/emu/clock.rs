//! Who has seen what: vector clocks over everyone who touches shared memory.
//!
//! An *agent* is a warp's share of the tensor core (its reads), an mbarrier (the copies that
//! complete on it: time is its phase), or a thread that initialised or wrote something itself. A
//! clock says, for every agent, up to which time its accesses are known to be over.

use std::ops::Range;

/// Index of an agent in its block.
pub type Agent = u32;

/// Times by agent.
#[derive(Clone, Debug, Default)]
pub struct Clock(Vec<u32>);

impl Clock {
    /// Up to which time `agent` is known.
    pub fn time(&self, agent: Agent) -> u32 {
        self.0.get(agent as usize).copied().unwrap_or(0)
    }

    /// Whether nothing in `other` is unknown.
    pub fn covers(&self, other: &Clock) -> bool {
        (0..).zip(&other.0).all(|(agent, time)| self.time(agent) >= *time)
    }

    /// Learns that `agent` has come to `time`.
    pub fn raise(&mut self, agent: Agent, time: u32) {
        let agent = agent as usize;
        if self.0.len() <= agent {
            self.0.resize(agent + 1, 0);
        }
        self.0[agent] = self.0[agent].max(time);
    }

    /// Learns all that `other` knows.
    pub fn join(&mut self, other: &Clock) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }
}

/// What each thread of a block knows, and who of them are agents themselves.
#[derive(Debug)]
pub struct Clocks {
    clocks: Vec<Clock>,
    /// By thread: its own agent, once it has touched something itself.
    own: Vec<Option<Agent>>,
    agent_count: Agent,
}

impl Clocks {
    /// Threads that know nothing; the first `engines` agents are taken.
    pub fn new(threads: usize, engines: usize) -> Clocks {
        Clocks {
            clocks: vec![Clock::default(); threads],
            own: vec![None; threads],
            agent_count: engines as Agent,
        }
    }

    pub fn new_agent(&mut self) -> Agent {
        self.agent_count += 1;
        self.agent_count - 1
    }

    /// Something that a thread does now, as an event that others may learn of.
    pub fn event(&mut self, thread: usize) -> (Agent, u32) {
        let agent = match self.own[thread] {
            Some(agent) => agent,
            None => {
                let agent = self.new_agent();
                self.own[thread] = Some(agent);
                self.clocks[thread].raise(agent, 1);
                agent
            }
        };
        (agent, self.clocks[thread].time(agent))
    }

    /// A thread has told others what it knows; what it does from now on they do not know.
    pub fn release(&mut self, thread: usize) {
        if let Some(agent) = self.own[thread] {
            let time = self.clocks[thread].time(agent) + 1;
            self.clocks[thread].raise(agent, time);
        }
    }

    /// What a thread knows.
    pub fn of(&self, thread: usize) -> &Clock {
        &self.clocks[thread]
    }

    /// What some threads know.
    pub fn of_all(&self, threads: Range<usize>) -> &[Clock] {
        &self.clocks[threads]
    }

    /// Whether any thread knows that `agent` has passed `time`.
    pub fn anyone_passed(&self, agent: Agent, time: u32) -> bool {
        self.clocks.iter().any(|clock| clock.time(agent) > time)
    }

    /// A thread learns that `agent` has come to `time`.
    pub fn raise(&mut self, thread: usize, agent: Agent, time: u32) {
        self.clocks[thread].raise(agent, time);
    }

    /// A thread learns all that is known to `clock`.
    pub fn join(&mut self, thread: usize, clock: &Clock) {
        self.clocks[thread].join(clock);
    }
}
