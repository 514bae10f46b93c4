//! Stores of the copy engine, as the threads that issue them count them: in groups of each thread's
//! own.

use std::collections::BTreeMap;

use super::clock::{Agent, Clocks};
use super::report::Site;
use super::tensor_map::MapFields;

/// A box that a store writes.
pub type StoredBox = (MapFields, [u32; 4]);

/// The stores of one thread, numbered from 1 as they are issued.
#[derive(Debug)]
struct Stores {
    /// Its times are numbers of stores that have read shared memory.
    agent: Agent,
    /// Where each was issued.
    sites: Vec<Site>,
    /// The last store of each closed group.
    groups: Vec<u32>,
    /// Those whose results the thread does not know to be in global memory.
    open: Vec<(u32, StoredBox)>,
}

/// By thread: the stores of those that have issued or closed any.
#[derive(Debug, Default)]
pub struct StoreGroups(BTreeMap<usize, Stores>);

impl StoreGroups {
    fn of(&mut self, clocks: &mut Clocks, thread: usize) -> &mut Stores {
        self.0.entry(thread).or_insert_with(|| {
            let (sites, groups, open) = (Vec::new(), Vec::new(), Vec::new());
            Stores { agent: clocks.new_agent(), sites, groups, open }
        })
    }

    /// A thread issues a store: who reads shared memory for it, and its number.
    pub fn issue(
        &mut self,
        clocks: &mut Clocks,
        thread: usize,
        stored: StoredBox,
        site: Site,
    ) -> (Agent, u32) {
        let stores = self.of(clocks, thread);
        stores.sites.push(site);
        let number = stores.sites.len() as u32;
        stores.open.push((number, stored));
        (stores.agent, number)
    }

    /// A thread closes its group.
    pub fn close(&mut self, clocks: &mut Clocks, thread: usize) {
        let stores = self.of(clocks, thread);
        stores.groups.push(stores.sites.len() as u32);
    }

    /// The last store of all groups of a thread but the last `pending`; none: it has no stores.
    pub fn covered(&self, thread: usize, pending: u32) -> Option<u32> {
        let groups = &self.0.get(&thread)?.groups;
        let count = groups.len().saturating_sub(pending as usize);
        Some(count.checked_sub(1).map_or(0, |last| groups[last]))
    }

    /// A thread has waited until its stores up to `covered` have read shared memory, and unless
    /// `read`, written global memory; the boxes of which it knows that only now.
    pub fn waited(
        &mut self,
        clocks: &mut Clocks,
        thread: usize,
        covered: u32,
        read: bool,
    ) -> Vec<StoredBox> {
        let Some(stores) = self.0.get_mut(&thread) else {
            return Vec::new();
        };
        clocks.raise(thread, stores.agent, covered);
        if read {
            return Vec::new();
        }
        let open = std::mem::take(&mut stores.open);
        let (complete, open) = open.into_iter().partition(|(number, _)| *number <= covered);
        stores.open = open;
        let complete: Vec<_> = complete;
        complete.into_iter().map(|(_, stored)| stored).collect()
    }

    /// A store that its thread has not waited for.
    pub fn unread(&self, clocks: &Clocks) -> Option<(usize, Site)> {
        self.0.iter().find_map(|(thread, stores)| {
            let known = clocks.of(*thread).time(stores.agent) as usize;
            stores.sites.get(known).map(|site| (*thread, *site))
        })
    }
}
