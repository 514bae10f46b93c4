//! The copy engine: boxes of tensors, copied late and in any order.

use fulgurite_spec::TensorMap;

use super::block::Block;
use super::report::{Checked, Site, broken, place};
use super::shared::{Busy, GRANULE, Proxy, Write};
use super::tensor_map::MapFields;

/// A copy that has been issued and not yet done.
#[derive(Debug)]
pub struct Copy {
    map: MapFields,
    to: u32,
    bar: u32,
    at: [u32; 4],
    /// Phase of the barrier when it was issued.
    phase: u32,
    pub site: Site,
    pub thread: usize,
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
        // SAFETY: the address is aligned and inside the parameters, which live during the launch.
        let map = unsafe { *(address as *const TensorMap) };
        MapFields::decode(&map)
    }

    /// Issues the copy of a box to `to`; its bytes count for `bar`.
    pub fn tma_load(&mut self, to: u32, map: u64, bar: u32, at: [u32; 4], site: Site) -> Checked {
        let map = self.tensor_map(map)?;
        if !to.is_multiple_of(map.swizzle.period()) {
            return broken!(
                Malformed,
                "a box to shared memory at {to:#x}, which is no multiple of {} ({:?})",
                map.swizzle.period(),
                map.swizzle
            );
        }
        let bytes = map.box_bytes();
        self.shared.check_range(to, bytes)?;
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
        self.copies.push(Copy { map, to, bar, at, phase, site, thread });
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
        self.shared.load(granule, &self.clocks[self.current], now)?;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.shared.bytes(granule));
        Ok(bytes)
    }

    fn shared_granule(&self, address: u32) -> Checked<usize> {
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

    fn slot_in_use(&self, to: u32, busy: Busy) -> Checked {
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
            Busy::Load => broken!(
                Race,
                "writes the buffer at {to:#x}, which a thread has read; nothing this thread \
                 waited for says that this is over"
            ),
        }
    }

    /// Does one of the pending copies.
    pub fn do_copy(&mut self, index: usize) -> Checked {
        let copy = self.copies.remove(index);
        let MapFields { box_dims, element_bytes, swizzle, .. } = copy.map;
        let row_bytes = box_dims[0] * element_bytes;
        let rows = box_dims[1] * box_dims[2] * box_dims[3];
        let mut row_data = vec![0; row_bytes as usize];
        for row in 0..rows {
            self.read_row(&copy, row, &mut row_data)?;
            for (unit, data) in row_data.chunks(GRANULE as usize).enumerate() {
                let plain = copy.to + row * row_bytes + unit as u32 * GRANULE;
                let granule = self.shared.granule(swizzle.apply(plain))?;
                self.shared.bytes_mut(granule).copy_from_slice(data);
            }
        }
        self.mbarrier_receive(copy.bar, copy.map.box_bytes(), copy.phase)
    }

    /// One row of a box; what lies outside of the tensor is zero.
    fn read_row(&self, copy: &Copy, row: u32, to: &mut [u8]) -> Checked {
        let map = &copy.map;
        let inside = [
            0,
            row % map.box_dims[1],
            row / map.box_dims[1] % map.box_dims[2],
            row / map.box_dims[1] / map.box_dims[2],
        ];
        to.fill(0);
        let mut address = map.address;
        let mut index = [0_i64; 4];
        for axis in 0..4 {
            // Coordinates are signed.
            index[axis] = i64::from(copy.at[axis] as i32) + i64::from(inside[axis]);
            if axis > 0 {
                if index[axis] < 0 || index[axis] as u64 >= map.dims[axis] {
                    return Ok(());
                }
                address += index[axis] as u64 * map.stride_bytes[axis - 1];
            }
        }
        let element = i64::from(map.element_bytes);
        let start = index[0].clamp(0, map.dims[0] as i64);
        let end = (index[0] + i64::from(map.box_dims[0])).clamp(start, map.dims[0] as i64);
        if start == end {
            return Ok(());
        }
        let to = &mut to[((start - index[0]) * element) as usize..];
        let bytes = ((end - start) * element) as usize;
        self.global().read(address + (start * element) as u64, &mut to[..bytes])
    }
}
