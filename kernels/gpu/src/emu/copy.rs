//! The copy engine: boxes of tensors, copied late and in any order.

use fulgurite_spec::TensorMap;

use super::block::Block;
use super::report::{Checked, Primitive, Site, broken, place};
use super::shared::{Busy, GRANULE, Load, Proxy, Write};
use super::tensor_map::MapFields;

/// A copy that has been issued and not yet done.
#[derive(Clone, Debug)]
pub struct Copy {
    pub map: MapFields,
    /// Where the box lies in shared memory.
    pub smem: u32,
    pub at: [u32; 4],
    pub site: Site,
    pub thread: usize,
    pub kind: Kind,
}

/// Pieces of a box's rows, each with its global address.
pub type Rows = Vec<(u64, Vec<u8>)>;

/// The direction of a copy.
#[derive(Clone, Debug)]
pub enum Kind {
    /// To shared memory; `phase`: that of the barrier when it was issued.
    Load { bar: u32, phase: u32 },
    /// To global memory: the number of the thread's store, and once it has been read what goes to
    /// which address.
    Store { number: u32, data: Option<Rows> },
}

impl Copy {
    pub fn primitive(&self) -> Primitive {
        match self.kind {
            Kind::Load { .. } => Primitive::TmaLoad,
            Kind::Store { .. } => Primitive::TmaStore,
        }
    }
}

impl Block {
    /// Reads the tensor map that the kernel points to.
    pub fn tensor_map(&self, address: u64) -> Checked<MapFields> {
        if !address.is_multiple_of(64) {
            return broken!(Malformed, "a tensor map at {address:#x}, which is no multiple of 64");
        }
        let (start, len) = self.parameters;
        let end = start + len as u64;
        if address < start || address + size_of::<TensorMap>() as u64 > end {
            return broken!(
                OutOfBounds,
                "a tensor map at {address:#x}; the parameters are [{start:#x}, {end:#x})"
            );
        }
        // SAFETY: the address is aligned and inside the parameters, which live during the launch
        // and whose provenance the launch's caller has exposed.
        let map = unsafe { *std::ptr::with_exposed_provenance::<TensorMap>(address as usize) };
        MapFields::decode(&map)
    }

    /// The tensor map, if a box of it may lie at `smem` in shared memory.
    pub fn box_at(&self, smem: u32, map: u64) -> Checked<MapFields> {
        let map = self.tensor_map(map)?;
        if !smem.is_multiple_of(map.swizzle.period()) {
            return broken!(
                Malformed,
                "a box in shared memory at {smem:#x}, which is no multiple of {} ({:?})",
                map.swizzle.period(),
                map.swizzle
            );
        }
        self.shared.check_range(smem, map.box_bytes())?;
        Ok(map)
    }

    /// Issues the copy of a box to `to`; its bytes count for `bar`.
    pub fn tma_load(&mut self, to: u32, map: u64, bar: u32, at: [u32; 4], site: Site) -> Checked {
        let map = self.box_at(to, map)?;
        map.check_load(at)?;
        let bytes = map.box_bytes();
        let (agent, phase) = self.mbarrier_for_copy(bar, site)?;
        let first = self.shared.granule(to)?;
        let write = Write { agent, time: phase + 1, site, proxy: Proxy::Async };
        let clock = &self.clocks[self.current];
        for granule in first..first + (bytes / GRANULE) as usize {
            if let Err(busy) = self.shared.will_write(granule, clock, write) {
                return self.slot_in_use(to, busy);
            }
        }
        self.stats.copies += 1;
        self.stats.copy_bytes += u64::from(bytes);
        let thread = self.current;
        let kind = Kind::Load { bar, phase };
        self.copies.push(Copy { map, smem: to, at, site, thread, kind });
        Ok(())
    }

    /// A thread stores 16 bytes.
    pub fn shared_store(&mut self, to: u32, bytes: &[u8; 16], site: Site) -> Checked {
        let granule = self.shared_granule(to)?;
        let (agent, time) = self.event(self.current);
        let write = Write { agent, time, site, proxy: Proxy::Generic };
        if let Err(busy) = self.shared.will_write(granule, &self.clocks[self.current], write) {
            return self.slot_in_use(to, busy);
        }
        self.shared.bytes_mut(granule).copy_from_slice(bytes);
        Ok(())
    }

    /// A thread loads 16 bytes.
    pub fn shared_load(&mut self, from: u32) -> Checked<[u8; 16]> {
        let granule = self.shared_granule(from)?;
        let now = self.event(self.current);
        self.shared.check_load(granule, &self.clocks[self.current])?;
        self.shared.add_load(granule, Load { agent: now.0, time: now.1, store: None });
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.shared.bytes(granule));
        Ok(bytes)
    }

    /// The granule of an access of 16 bytes.
    pub fn shared_granule(&self, address: u32) -> Checked<usize> {
        if !address.is_multiple_of(GRANULE) {
            return broken!(Malformed, "16 shared bytes at {address:#x}, no multiple of 16");
        }
        self.shared.granule(address)
    }

    /// Makes the stores that the current thread knows of visible to the engines.
    pub fn proxy_fence(&mut self) {
        let now = self.event(self.current);
        self.shared.fence(&self.clocks[self.current], now);
    }

    pub fn slot_in_use(&self, to: u32, busy: Busy) -> Checked {
        match busy {
            Busy::Read { warp, product } => {
                let group = &self.warpgroups[warp / 4];
                let site = place(group.sites[product as usize - 1]);
                broken!(
                    Race,
                    "writes the buffer at {to:#x}, which a product issued at {site} by warp \
                     {warp} may still read: nothing this thread waited for says that it is over"
                )
            }
            Busy::Write(write) => broken!(
                Race,
                "writes the buffer at {to:#x}, into which {} at {} may still write",
                write.by(),
                place(write.site)
            ),
            Busy::Load(Load { store: Some(store), .. }) => broken!(
                Race,
                "writes the buffer at {to:#x}, which a store issued at {} may still read: nothing \
                 this thread waited for says that this is over",
                place(store)
            ),
            Busy::Load(_) => broken!(
                Race,
                "writes the buffer at {to:#x}, which a thread has read; nothing this thread \
                 waited for says that this is over"
            ),
        }
    }

    /// As [`Block::do_copy`]; a broken rule is the copy's.
    pub fn step_copy(&mut self, index: usize) {
        let copy = &self.copies[index];
        let (primitive, site, thread) = (copy.primitive(), copy.site, copy.thread);
        if let Err(broken) = self.do_copy(index) {
            self.fail(primitive, Some(site), Some(thread), broken);
        }
    }

    /// Takes one of the pending copies a step further: a load is done, a store first reads shared
    /// and then writes global memory.
    pub fn do_copy(&mut self, index: usize) -> Checked {
        let Copy { map, smem, at, thread, .. } = self.copies[index];
        match &mut self.copies[index].kind {
            Kind::Load { bar, phase } => {
                let (bar, phase) = (*bar, *phase);
                self.copies.remove(index);
                self.do_load(map, smem, at, thread)?;
                self.mbarrier_receive(bar, map.box_bytes(), phase)
            }
            Kind::Store { number, data } => {
                let (number, data) = (*number, data.take());
                self.do_store(index, number, data)
            }
        }
    }

    /// Brings a box to shared memory; what lies outside of the tensor is zero.
    fn do_load(&mut self, map: MapFields, to: u32, at: [u32; 4], thread: usize) -> Checked {
        let mut row_data = vec![0; map.row_bytes() as usize];
        let reader = self.number_of(thread);
        for row in 0..map.row_count() {
            row_data.fill(0);
            if let Some((address, part)) = map.row(at, row) {
                let part = &mut row_data[part.start as usize..part.end as usize];
                self.global().read(address, part, reader)?;
            }
            for (unit, data) in row_data.chunks(GRANULE as usize).enumerate() {
                let plain = to + row * map.row_bytes() + unit as u32 * GRANULE;
                let granule = self.shared.granule(map.swizzle.apply(plain))?;
                self.shared.bytes_mut(granule).copy_from_slice(data);
            }
        }
        Ok(())
    }
}
