//! Copies that threads start from global to shared memory, in groups of each thread's own.
//!
//! A copy is done when it is issued or as late as its thread's wait, as the seed decides. Nobody
//! can tell whether it was in between: who looks at the bytes before that wait, and a barrier, is
//! reported whatever they hold.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::clock::{Agent, Clocks};
use super::global::Global;
use super::report::{Checked, Site, broken};
use super::shared::{Proxy, Shared, Write};

/// A copy, as its thread issues it.
#[derive(Clone, Copy, Debug)]
pub struct ThreadCopy {
    pub to: u32,
    pub from: u64,
    /// Bytes of the source: 16, or 0 for zeros.
    pub bytes: u32,
    pub site: Site,
    /// The thread's number in the grid.
    pub number: u32,
}

/// The copies of one thread.
#[derive(Debug)]
struct Copies {
    /// Its times are numbers of groups.
    agent: Agent,
    /// Groups that are closed; the open one is the next.
    closed: u32,
    /// The last copy, with its group.
    last: Option<(u32, Site)>,
    /// Copies that are not done, with their groups and granules.
    late: Vec<(u32, usize, ThreadCopy)>,
    issued: u64,
}

/// By thread: the copies of those that have issued or closed any.
#[derive(Debug)]
pub struct ThreadCopies {
    seed: u64,
    threads: BTreeMap<usize, Copies>,
}

/// Does a copy.
fn bring(shared: &mut Shared, global: &Global, granule: usize, copy: &ThreadCopy) -> Checked {
    let mut bytes = [0; 16];
    if copy.bytes > 0 {
        global.read(copy.from, &mut bytes, copy.number)?;
    }
    shared.bytes_mut(granule).copy_from_slice(&bytes);
    Ok(())
}

impl ThreadCopies {
    pub fn new(seed: u64) -> ThreadCopies {
        ThreadCopies { seed, threads: BTreeMap::new() }
    }

    fn of(&mut self, clocks: &mut Clocks, thread: usize) -> &mut Copies {
        self.threads.entry(thread).or_insert_with(|| {
            let (agent, late) = (clocks.new_agent(), Vec::new());
            Copies { agent, closed: 0, last: None, late, issued: 0 }
        })
    }

    /// A thread starts a copy.
    pub fn issue(
        &mut self,
        shared: &mut Shared,
        global: &Global,
        clocks: &mut Clocks,
        thread: usize,
        copy: ThreadCopy,
    ) -> Checked {
        let ThreadCopy { to, from, bytes, site, .. } = copy;
        if bytes != 0 && bytes != 16 {
            return broken!(Malformed, "a source of {bytes} bytes; 0 and 16 are allowed");
        }
        if !from.is_multiple_of(16) {
            return broken!(Malformed, "16 bytes at {from:#x}, which is no multiple of 16");
        }
        let seed = self.seed;
        let granule = shared.aligned_granule(to)?;
        let copies = self.of(clocks, thread);
        let group = copies.closed + 1;
        copies.last = Some((group, site));
        copies.issued += 1;
        let draw = seed << 40 ^ (thread as u64) << 24 ^ copies.issued;
        let write = Write { agent: copies.agent, time: group, site, proxy: Proxy::Generic };
        shared.will_write(granule, clocks.of(thread), write, to)?;
        if seed == 0 || Rng::with_seed(draw).bool() {
            // Nothing of what was there before may be taken for what is coming.
            shared.bytes_mut(granule).fill(0xff);
            copies.late.push((group, granule, copy));
            return Ok(());
        }
        bring(shared, global, granule, &copy)
    }

    /// A thread closes its group.
    pub fn close(&mut self, clocks: &mut Clocks, thread: usize) {
        self.of(clocks, thread).closed += 1;
    }

    /// A thread waits for all of its groups but the last `pending`.
    pub fn wait(
        &mut self,
        shared: &mut Shared,
        global: &Global,
        clocks: &mut Clocks,
        thread: usize,
        pending: u32,
    ) -> Checked {
        let copies = self.of(clocks, thread);
        let complete = copies.closed.saturating_sub(pending);
        let late = std::mem::take(&mut copies.late);
        let (done, late): (Vec<_>, Vec<_>) = late.into_iter().partition(|it| it.0 <= complete);
        copies.late = late;
        let agent = copies.agent;
        clocks.raise(thread, agent, complete);
        done.iter().try_for_each(|(_, granule, copy)| bring(shared, global, *granule, copy))
    }

    /// A copy that its thread has not waited for.
    pub fn open(&self, clocks: &Clocks) -> Option<(usize, Site)> {
        self.threads.iter().find_map(|(thread, copies)| {
            let (group, site) = copies.last?;
            (clocks.of(*thread).time(copies.agent) < group).then_some((*thread, site))
        })
    }
}
