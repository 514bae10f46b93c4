//! The kernel's parameter block, as far as engines read it: the tensor maps.

use fulgurite_spec::TensorMap;

use super::report::{Checked, broken};
use super::shared::Shared;
use super::tensor_map::MapFields;

/// Where the parameter block lies.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    start: u64,
    len: usize,
}

impl Parameters {
    /// `len` bytes at `start`, as the launch's caller gives them: their provenance is exposed.
    pub fn new((start, len): (u64, usize)) -> Parameters {
        Parameters { start, len }
    }

    /// Reads the tensor map that the kernel points to.
    pub fn tensor_map(&self, address: u64) -> Checked<MapFields> {
        if !address.is_multiple_of(64) {
            return broken!(Malformed, "a tensor map at {address:#x}, which is no multiple of 64");
        }
        let (start, end) = (self.start, self.start + self.len as u64);
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
    pub fn box_at(&self, shared: &Shared, smem: u32, map: u64) -> Checked<MapFields> {
        let map = self.tensor_map(map)?;
        if !smem.is_multiple_of(map.swizzle.period()) {
            return broken!(
                Malformed,
                "a box in shared memory at {smem:#x}, which is no multiple of {} ({:?})",
                map.swizzle.period(),
                map.swizzle
            );
        }
        shared.check_range(smem, map.box_bytes())?;
        Ok(map)
    }
}
