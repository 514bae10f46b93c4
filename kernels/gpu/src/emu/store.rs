//! Stores of the copy engine: boxes from shared to global memory, in groups of the thread that
//! issues them.
//!
//! A store reads shared memory and later writes global memory, each at any step until its thread
//! waits for it.

use super::block::{Block, State};
use super::clock::Agent;
use super::copy::{Copy, Kind, Rows};
use super::report::{Checked, Site};
use super::shared::{GRANULE, Load};
use super::tensor_map::MapFields;

/// The stores of one thread, numbered from 1 as they are issued.
#[derive(Debug)]
pub struct Stores {
    /// Its times are numbers of stores that have read shared memory.
    agent: Agent,
    /// Where each was issued.
    sites: Vec<Site>,
    /// The last store of each closed group.
    groups: Vec<u32>,
    /// Those whose results the thread does not know to be in global memory.
    open: Vec<(u32, MapFields, [u32; 4])>,
}

impl Stores {
    /// The last store of all groups but the last `pending`.
    fn covered(&self, pending: u32) -> u32 {
        let groups = self.groups.len().saturating_sub(pending as usize);
        groups.checked_sub(1).map_or(0, |last| self.groups[last])
    }
}

impl Block {
    fn stores_of(&mut self, thread: usize) -> &mut Stores {
        if !self.stores.contains_key(&thread) {
            let agent = self.new_agent();
            let (sites, groups, open) = (Vec::new(), Vec::new(), Vec::new());
            self.stores.insert(thread, Stores { agent, sites, groups, open });
        }
        self.stores.get_mut(&thread).expect("inserted above")
    }

    /// Issues the copy of a box at `from` to global memory.
    pub fn tma_store(&mut self, from: u32, map: u64, at: [u32; 4], site: Site) -> Checked {
        let map = self.box_at(from, map)?;
        map.check_store(at)?;
        let (thread, writer) = (self.current, self.writer());
        let stores = self.stores_of(thread);
        stores.sites.push(site);
        let (agent, number) = (stores.agent, stores.sites.len() as u32);
        stores.open.push((number, map, at));
        for row in 0..map.row_count() {
            let Some((address, part)) = map.stored_row(at, row) else {
                continue;
            };
            self.global().will_store(address, part.len(), writer)?;
            for unit in part.start / GRANULE..part.end.div_ceil(GRANULE) {
                let plain = from + row * map.row_bytes() + unit * GRANULE;
                let granule = self.shared.granule(map.swizzle.apply(plain))?;
                let clock = &self.clocks[thread];
                let known = |agent, time| clock.time(agent) >= time;
                self.shared.will_read(granule, 0..0, 0, known)?;
                self.shared.add_load(granule, Load { agent, time: number, store: Some(site) });
            }
        }
        self.stats.copies += 1;
        self.stats.store_bytes += u64::from(map.box_bytes());
        let kind = Kind::Store { number, data: None };
        self.copies.push(Copy { map, smem: from, at, site, thread, kind });
        Ok(())
    }

    /// The current thread closes its group.
    pub fn close_stores(&mut self) {
        let stores = self.stores_of(self.current);
        stores.groups.push(stores.sites.len() as u32);
    }

    /// Reads the box of a pending store, or writes it if it has been read.
    pub fn do_store(&mut self, index: usize, number: u32, data: Option<Rows>) -> Checked {
        let Copy { map, smem, at, thread, .. } = self.copies[index];
        if let Some(data) = data {
            for (address, bytes) in data {
                self.global().store(address, &bytes)?;
            }
            self.copies.remove(index);
        } else {
            let data = Some(self.read_box(&map, smem, at)?);
            self.copies[index].kind = Kind::Store { number, data };
        }
        if let State::OnStores { pending, read } = self.lanes[thread].state
            && self.stores_done(thread, pending, read)?
        {
            self.wake(thread);
        }
        Ok(())
    }

    /// What a store writes of a box, by rows, with their addresses.
    fn read_box(&self, map: &MapFields, smem: u32, at: [u32; 4]) -> Checked<Rows> {
        let mut data = Rows::new();
        for row in 0..map.row_count() {
            let Some((address, part)) = map.stored_row(at, row) else {
                continue;
            };
            let mut bytes = Vec::with_capacity(part.len());
            for byte in part {
                let plain = smem + row * map.row_bytes() + byte;
                let granule = self.shared.granule(map.swizzle.apply(plain))?;
                bytes.push(self.shared.bytes(granule)[(byte % GRANULE) as usize]);
            }
            data.push((address, bytes));
        }
        Ok(data)
    }

    /// Whether all but the last `pending` groups of a thread are complete, or with `read` have read
    /// shared memory; if so, the thread knows.
    pub fn stores_done(&mut self, thread: usize, pending: u32, read: bool) -> Checked<bool> {
        let Some(stores) = self.stores.get_mut(&thread) else {
            return Ok(true);
        };
        let covered = stores.covered(pending);
        let waits_for = |copy: &Copy| match &copy.kind {
            Kind::Store { number, data } => {
                copy.thread == thread && *number <= covered && !(read && data.is_some())
            }
            Kind::Load { .. } => false,
        };
        if self.copies.iter().any(waits_for) {
            return Ok(false);
        }
        let agent = stores.agent;
        let mut complete = Vec::new();
        if !read {
            let open = std::mem::take(&mut stores.open);
            (complete, stores.open) = open.into_iter().partition(|(number, ..)| *number <= covered);
        }
        self.clocks[thread].raise(agent, covered);
        for (_, map, at) in complete {
            for (address, part) in (0..map.row_count()).filter_map(|row| map.stored_row(at, row)) {
                self.global().stored(address, part.len(), self.number_of(thread))?;
            }
        }
        Ok(true)
    }

    /// A store that its thread has not waited for.
    pub fn unread_store(&self) -> Option<(usize, Site)> {
        self.stores.iter().find_map(|(thread, stores)| {
            let known = self.clocks[*thread].time(stores.agent) as usize;
            stores.sites.get(known).map(|site| (*thread, *site))
        })
    }

    /// After the end of the block: stores that have read shared memory are written all the same.
    pub fn end_stores(&mut self) {
        while let Some(index) = self.copies.len().checked_sub(1)
            && self.fault.is_none()
        {
            self.step_copy(index);
        }
    }
}
