//! The copy engine: boxes of tensors, copied late and in any order.
//!
//! A load is done in one step. A store reads shared memory in one and writes global memory in a
//! later one, each at any time until its thread waits for it.

use super::clock::{Agent, Clock, Clocks};
use super::global::Global;
use super::report::{Checked, Primitive, Site};
use super::shared::{GRANULE, Load, Proxy, Shared, Write};
use super::store::StoreGroups;
use super::tensor_map::MapFields;

/// What a copy moves, for whom.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    pub map: MapFields,
    /// Where the box lies in shared memory.
    pub smem: u32,
    pub at: [u32; 4],
    pub site: Site,
    pub thread: usize,
    /// The thread's number in the grid, for the record of global memory.
    pub number: u32,
}

/// A copy that has been issued and not yet done.
#[derive(Debug)]
struct Copy {
    transfer: Transfer,
    direction: Direction,
}

/// Pieces of a box's rows, each with its global address.
type Rows = Vec<(u64, Vec<u8>)>;

/// The direction of a copy.
#[derive(Debug)]
enum Direction {
    /// To shared memory; `phase`: that of the barrier when it was issued.
    Load { bar: u32, phase: u32 },
    /// To global memory: the number of the thread's store, and once it has been read what goes to
    /// which address.
    Store { number: u32, data: Option<Rows> },
}

/// What a step of the engine brings about elsewhere.
#[derive(Debug)]
pub enum Effect {
    /// Bytes of a copy issued in `phase` have arrived at an mbarrier.
    Arrived { bar: u32, bytes: u32, phase: u32 },
    /// A store of this thread has come further.
    Stored { thread: usize },
}

/// The copies of a block that are not yet done.
#[derive(Debug, Default)]
pub struct CopyEngine {
    pending: Vec<Copy>,
    stores: StoreGroups,
}

impl CopyEngine {
    /// Copies that are not done.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Issues the copy of a box to shared memory, whose bytes count for `bar`; `time`: the barrier
    /// as an agent, and its phase.
    pub fn load(
        &mut self,
        shared: &mut Shared,
        clock: &Clock,
        transfer: Transfer,
        bar: u32,
        (agent, phase): (Agent, u32),
    ) -> Checked {
        let Transfer { map, smem: to, site, .. } = transfer;
        let first = shared.granule(to)?;
        let write = Write { agent, time: phase + 1, site, proxy: Proxy::Async };
        for granule in first..first + (map.box_bytes() / GRANULE) as usize {
            shared.will_write(granule, clock, write, to)?;
        }
        self.pending.push(Copy { transfer, direction: Direction::Load { bar, phase } });
        Ok(())
    }

    /// Issues the copy of a box to global memory.
    pub fn store(
        &mut self,
        shared: &mut Shared,
        global: &Global,
        clocks: &mut Clocks,
        transfer: Transfer,
    ) -> Checked {
        let Transfer { map, smem, at, site, thread, number: writer } = transfer;
        let (agent, number) = self.stores.issue(clocks, thread, (map, at), site);
        let clock = clocks.of(thread);
        let known = |agent, time| clock.time(agent) >= time;
        for row in 0..map.row_count() {
            let Some((address, part)) = map.stored_row(at, row) else {
                continue;
            };
            global.will_store(address, part.len(), writer)?;
            for unit in part.start / GRANULE..part.end.div_ceil(GRANULE) {
                let plain = smem + row * map.row_bytes() + unit * GRANULE;
                let granule = shared.granule(map.swizzle.apply(plain))?;
                shared.will_read(granule, 0..0, 0, known)?;
                shared.add_load(granule, Load { agent, time: number, store: Some(site) });
            }
        }
        self.pending.push(Copy { transfer, direction: Direction::Store { number, data: None } });
        Ok(())
    }

    /// A thread closes its group of stores.
    pub fn close_stores(&mut self, clocks: &mut Clocks, thread: usize) {
        self.stores.close(clocks, thread);
    }

    /// Whether all but the last `pending` groups of a thread are complete, or with `read` have read
    /// shared memory; if so, the thread knows.
    pub fn stores_done(
        &mut self,
        global: &Global,
        clocks: &mut Clocks,
        (thread, number): (usize, u32),
        pending: u32,
        read: bool,
    ) -> Checked<bool> {
        let Some(covered) = self.stores.covered(thread, pending) else {
            return Ok(true);
        };
        let waits_for = |copy: &Copy| match &copy.direction {
            Direction::Store { number, data } => {
                copy.transfer.thread == thread && *number <= covered && !(read && data.is_some())
            }
            Direction::Load { .. } => false,
        };
        if self.pending.iter().any(waits_for) {
            return Ok(false);
        }
        for (map, at) in self.stores.waited(clocks, thread, covered, read) {
            for (address, part) in (0..map.row_count()).filter_map(|row| map.stored_row(at, row)) {
                global.stored(address, part.len(), number)?;
            }
        }
        Ok(true)
    }

    /// A store that its thread has not waited for.
    pub fn unread_store(&self, clocks: &Clocks) -> Option<(usize, Site)> {
        self.stores.unread(clocks)
    }

    /// What the pending copy `index` is, where and by which thread it was issued.
    pub fn issued(&self, index: usize) -> (Primitive, Site, usize) {
        let Copy { transfer, direction } = &self.pending[index];
        let primitive = match direction {
            Direction::Load { .. } => Primitive::TmaLoad,
            Direction::Store { .. } => Primitive::TmaStore,
        };
        (primitive, transfer.site, transfer.thread)
    }

    /// Takes the pending copy `index` a step further: a load is done, a store first reads shared
    /// and then writes global memory.
    pub fn step(&mut self, shared: &mut Shared, global: &Global, index: usize) -> Checked<Effect> {
        let Copy { transfer, direction } = &mut self.pending[index];
        let transfer = *transfer;
        match direction {
            Direction::Load { bar, phase } => {
                let (bar, phase) = (*bar, *phase);
                self.pending.remove(index);
                load_box(shared, global, &transfer)?;
                Ok(Effect::Arrived { bar, bytes: transfer.map.box_bytes(), phase })
            }
            Direction::Store { data, .. } => {
                match data.take() {
                    None => *data = Some(read_box(shared, &transfer)?),
                    Some(data) => {
                        self.pending.remove(index);
                        for (address, bytes) in data {
                            global.store(address, &bytes)?;
                        }
                    }
                }
                Ok(Effect::Stored { thread: transfer.thread })
            }
        }
    }
}

/// Brings a box to shared memory; what lies outside of the tensor is zero.
fn load_box(shared: &mut Shared, global: &Global, transfer: &Transfer) -> Checked {
    let Transfer { map, smem: to, at, number: reader, .. } = *transfer;
    let mut row_data = vec![0; map.row_bytes() as usize];
    for row in 0..map.row_count() {
        row_data.fill(0);
        if let Some((address, part)) = map.row(at, row) {
            let part = &mut row_data[part.start as usize..part.end as usize];
            global.read(address, part, reader)?;
        }
        for (unit, data) in row_data.chunks(GRANULE as usize).enumerate() {
            let plain = to + row * map.row_bytes() + unit as u32 * GRANULE;
            let granule = shared.granule(map.swizzle.apply(plain))?;
            shared.bytes_mut(granule).copy_from_slice(data);
        }
    }
    Ok(())
}

/// What a store writes of a box, by rows, with their addresses.
fn read_box(shared: &Shared, transfer: &Transfer) -> Checked<Rows> {
    let Transfer { map, smem, at, .. } = *transfer;
    let mut data = Rows::new();
    for row in 0..map.row_count() {
        let Some((address, part)) = map.stored_row(at, row) else {
            continue;
        };
        let mut bytes = Vec::with_capacity(part.len());
        for byte in part {
            let plain = smem + row * map.row_bytes() + byte;
            let granule = shared.granule(map.swizzle.apply(plain))?;
            bytes.push(shared.bytes(granule)[(byte % GRANULE) as usize]);
        }
        data.push((address, bytes));
    }
    Ok(data)
}
