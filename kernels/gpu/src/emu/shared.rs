//! A block's shared memory: bytes, and for every 16 of them who wrote and who may still read.

use std::collections::BTreeMap;
use std::ops::Range;

use super::clock::{Agent, Clock, Clocks};
use super::report::{Checked, Site, broken, place};

/// Address of the first byte of dynamic shared memory; what lies below belongs to nobody.
pub const BASE: u32 = 1024;

/// Bytes that are tracked together.
pub const GRANULE: u32 = 16;

/// The last write to a granule.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub agent: Agent,
    pub time: u32,
    pub site: Site,
    pub proxy: Proxy,
}

/// On which side of a proxy fence a write was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// By an asynchronous engine.
    Async,
    /// By a thread's store; the engines may not read it yet.
    Generic,
    /// By a thread's store, and a proxy fence came later: the event of that.
    Fenced(Agent, u32),
}

/// A thread's load, or a store's to global memory.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub agent: Agent,
    pub time: u32,
    /// Where the store was issued, if it is one: the copy engine reads at any time until its
    /// thread has waited for that.
    pub store: Option<Site>,
}

/// Dynamic shared memory of a block.
#[derive(Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    writes: Vec<Option<Write>>,
    /// By granule and warp: the last product whose share of that warp reads it.
    reads: Vec<u32>,
    /// By granule: who has read it since it was written, products apart.
    loads: BTreeMap<usize, Vec<Load>>,
    /// By warpgroup: where each product was issued; product `n` is at `n - 1`.
    products: Vec<Vec<Site>>,
    warps: usize,
}

impl Shared {
    /// `len` bytes of NaN that nobody wrote.
    pub fn new(len: u32, warps: usize) -> Shared {
        let granules = len.div_ceil(GRANULE) as usize;
        Shared {
            bytes: vec![0xff; granules * GRANULE as usize],
            writes: vec![None; granules],
            reads: vec![0; granules * warps],
            loads: BTreeMap::new(),
            products: vec![Vec::new(); warps.div_ceil(4)],
            warps,
        }
    }

    /// The granule at an address.
    pub fn granule(&self, address: u32) -> Checked<usize> {
        let end = BASE + self.bytes.len() as u32;
        if !(BASE..end).contains(&address) {
            return broken!(
                OutOfBounds,
                "shared memory at {address:#x}; the block has [{BASE:#x}, {end:#x})"
            );
        }
        Ok(((address - BASE) / GRANULE) as usize)
    }

    /// Whether `len` bytes at `address` are the block's.
    pub fn check_range(&self, address: u32, len: u32) -> Checked {
        self.granule(address)?;
        self.granule(address.saturating_add(len).saturating_sub(1)).map(|_| ())
    }

    /// The granule of an access of 16 bytes.
    pub fn aligned_granule(&self, address: u32) -> Checked<usize> {
        if !address.is_multiple_of(GRANULE) {
            return broken!(Malformed, "16 shared bytes at {address:#x}, no multiple of 16");
        }
        self.granule(address)
    }

    /// A warpgroup issues a product, which will read shared memory: its number.
    pub fn begin_product(&mut self, warpgroup: usize, site: Site) -> u32 {
        self.products[warpgroup].push(site);
        self.products[warpgroup].len() as u32
    }

    /// A product's share of `warp` will read a granule. `visible` tells whether all who issue it
    /// know of an agent's time.
    pub fn will_read(
        &mut self,
        granule: usize,
        warps: Range<usize>,
        product: u32,
        visible: impl Fn(Agent, u32) -> bool,
    ) -> Checked {
        let address = BASE + granule as u32 * GRANULE;
        match self.writes[granule] {
            None => {
                return broken!(
                    Uninitialised,
                    "reads shared bytes {address:#x}..+{GRANULE}, which nobody wrote"
                );
            }
            Some(write) if !visible(write.agent, write.time) => {
                return broken!(
                    Race,
                    "reads shared bytes {address:#x}..+{GRANULE}, which {} at {} writes; nothing \
                     it waited for says that this is complete",
                    write.by(),
                    place(write.site)
                );
            }
            Some(write) => match write.proxy {
                Proxy::Async => {}
                Proxy::Fenced(agent, time) if visible(agent, time) => {}
                _ => {
                    return broken!(
                        Race,
                        "reads shared bytes {address:#x}..+{GRANULE}, which a store at {} wrote: \
                         no fence::proxy_async in between makes it visible to the engine",
                        place(write.site)
                    );
                }
            },
        }
        for warp in warps {
            self.reads[granule * self.warps + warp] = product;
        }
        Ok(())
    }

    /// Someone whose knowledge is `clock` will write a granule, of the buffer at `to`.
    pub fn will_write(&mut self, granule: usize, clock: &Clock, write: Write, to: u32) -> Checked {
        self.check_write(granule, clock, to)?;
        self.loads.remove(&granule);
        self.writes[granule] = Some(write);
        Ok(())
    }

    /// Whether someone whose knowledge is `clock` may write a granule, of the buffer at `to`.
    fn check_write(&self, granule: usize, clock: &Clock, to: u32) -> Checked {
        let reads = &self.reads[granule * self.warps..(granule + 1) * self.warps];
        let late = |(warp, product): (usize, &u32)| clock.time(warp as Agent) < *product;
        if let Some(warp) = reads.iter().enumerate().position(late) {
            return broken!(
                Race,
                "writes the buffer at {to:#x}, which a product issued at {} by warp {warp} may \
                 still read: nothing this thread waited for says that it is over",
                place(self.products[warp / 4][reads[warp] as usize - 1])
            );
        }
        if let Some(before) = self.writes[granule]
            && clock.time(before.agent) < before.time
        {
            return broken!(
                Race,
                "writes the buffer at {to:#x}, into which {} at {} may still write",
                before.by(),
                place(before.site)
            );
        }
        let unseen = |load: &&Load| clock.time(load.agent) < load.time;
        match self.loads.get(&granule).and_then(|loads| loads.iter().find(unseen)) {
            None => Ok(()),
            Some(Load { store: Some(store), .. }) => broken!(
                Race,
                "writes the buffer at {to:#x}, which a store issued at {} may still read: nothing \
                 this thread waited for says that this is over",
                place(store)
            ),
            Some(_) => broken!(
                Race,
                "writes the buffer at {to:#x}, which a thread has read; nothing this thread \
                 waited for says that this is over"
            ),
        }
    }

    /// Notes that someone reads a granule.
    pub fn add_load(&mut self, granule: usize, load: Load) {
        self.loads.entry(granule).or_default().push(load);
    }

    /// Whether a thread whose knowledge is `clock` may load a granule.
    fn check_load(&self, granule: usize, clock: &Clock) -> Checked {
        let address = BASE + granule as u32 * GRANULE;
        match self.writes[granule] {
            None => broken!(
                Uninitialised,
                "reads shared bytes {address:#x}..+{GRANULE}, which nobody wrote"
            ),
            Some(write) if clock.time(write.agent) < write.time => broken!(
                Race,
                "reads shared bytes {address:#x}..+{GRANULE}, which {} at {} writes; nothing it \
                 waited for says that this is complete",
                write.by(),
                place(write.site)
            ),
            Some(_) => Ok(()),
        }
    }

    /// A thread stores 16 bytes.
    pub fn store(
        &mut self,
        clocks: &mut Clocks,
        thread: usize,
        to: u32,
        bytes: &[u8; 16],
        site: Site,
    ) -> Checked {
        self.store_together(clocks, thread..thread + 1, thread, (to, bytes), site)
    }

    /// As [`store`](Self::store), where all of `others` must know what the store comes after.
    pub fn store_together(
        &mut self,
        clocks: &mut Clocks,
        others: Range<usize>,
        thread: usize,
        (to, bytes): (u32, &[u8; 16]),
        site: Site,
    ) -> Checked {
        let granule = self.aligned_granule(to)?;
        for clock in clocks.of_all(others) {
            self.check_write(granule, clock, to)?;
        }
        let (agent, time) = clocks.event(thread);
        let write = Write { agent, time, site, proxy: Proxy::Generic };
        self.will_write(granule, clocks.of(thread), write, to)?;
        self.bytes_mut(granule).copy_from_slice(bytes);
        Ok(())
    }

    /// A thread loads 16 bytes.
    pub fn load(&mut self, clocks: &mut Clocks, thread: usize, from: u32) -> Checked<[u8; 16]> {
        self.load_together(clocks, thread..thread + 1, thread, from)
    }

    /// As [`load`](Self::load), where all of `others` must know what the load comes after.
    pub fn load_together(
        &mut self,
        clocks: &mut Clocks,
        others: Range<usize>,
        thread: usize,
        from: u32,
    ) -> Checked<[u8; 16]> {
        let granule = self.aligned_granule(from)?;
        for clock in clocks.of_all(others) {
            self.check_load(granule, clock)?;
        }
        let (agent, time) = clocks.event(thread);
        self.add_load(granule, Load { agent, time, store: None });
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.bytes(granule));
        Ok(bytes)
    }

    /// A proxy fence of a thread that knows `clock`, at the event `now`.
    pub fn fence(&mut self, clock: &Clock, now: (Agent, u32)) {
        for write in self.writes.iter_mut().flatten() {
            if write.proxy == Proxy::Generic && clock.time(write.agent) >= write.time {
                write.proxy = Proxy::Fenced(now.0, now.1);
            }
        }
    }

    /// The bytes of a granule.
    pub fn bytes(&self, granule: usize) -> &[u8] {
        &self.bytes[granule * GRANULE as usize..][..GRANULE as usize]
    }

    /// The bytes of a granule, to be written.
    pub fn bytes_mut(&mut self, granule: usize) -> &mut [u8] {
        &mut self.bytes[granule * GRANULE as usize..][..GRANULE as usize]
    }
}

impl Write {
    /// Who wrote, in words.
    pub fn by(&self) -> &'static str {
        if self.proxy == Proxy::Async { "a copy issued" } else { "a store" }
    }
}
