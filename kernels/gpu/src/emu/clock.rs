//! Who has seen what: vector clocks over everyone who touches shared memory.
//!
//! An *agent* is a warp's share of the tensor core (its reads), an mbarrier (the copies that
//! complete on it: time is its phase), or a thread that initialised or wrote something itself. A
//! clock says, for every agent, up to which time its accesses are known to be over.

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
