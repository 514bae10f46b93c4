//! Tensor maps of the emulator: the 128 opaque bytes in a format of its own.

use std::ops::Range;

use fulgurite_spec::TensorMap;

use super::report::{Checked, broken};
use super::shared::GRANULE;

/// First word of every map, so that a map of the driver is not taken for one.
const MAGIC: u64 = 0x6675_6c67_7572_6974;

/// Swizzle of the boxes in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// None.
    None,
    /// Over 32 bytes.
    Bytes32,
    /// Over 64 bytes.
    Bytes64,
    /// Over 128 bytes.
    Bytes128,
}

impl Swizzle {
    const ALL: [Swizzle; 4] =
        [Swizzle::None, Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128];

    /// Where the byte of a plain layout lies: 16-byte units are permuted by the number of the
    /// 128-byte row they lie in.
    pub fn apply(self, address: u32) -> u32 {
        let mask = match self {
            Swizzle::None => 0,
            Swizzle::Bytes32 => 1,
            Swizzle::Bytes64 => 3,
            Swizzle::Bytes128 => 7,
        };
        address ^ ((address >> 7 & mask) << 4)
    }

    /// Bytes after which the permutation repeats; boxes start on a multiple of it.
    pub fn period(self) -> u32 {
        match self {
            Swizzle::None => 128,
            Swizzle::Bytes32 => 256,
            Swizzle::Bytes64 => 512,
            Swizzle::Bytes128 => 1024,
        }
    }

    /// Bytes over which units are permuted: the widest row of a box.
    fn span(self) -> u64 {
        match self {
            Swizzle::None => u64::MAX,
            Swizzle::Bytes32 => 32,
            Swizzle::Bytes64 => 64,
            Swizzle::Bytes128 => 128,
        }
    }
}

/// A tensor of four dimensions as the copy engine sees it, innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFields {
    /// Global address of the first element.
    pub address: u64,
    /// Bytes of one element.
    pub element_bytes: u32,
    /// Sizes in elements.
    pub dims: [u64; 4],
    /// Strides in bytes of the dimensions after the first, which is contiguous.
    pub stride_bytes: [u64; 3],
    /// Sizes of a box in elements.
    pub box_dims: [u32; 4],
    /// How a box lies in shared memory.
    pub swizzle: Swizzle,
}

impl MapFields {
    /// The map as a kernel receives it. Rules are checked where it is used, as a device would.
    pub fn encode(&self) -> TensorMap {
        let mut words = [0; 16];
        words[0] = MAGIC;
        words[1] = self.address;
        words[2..6].copy_from_slice(&self.dims);
        words[6..9].copy_from_slice(&self.stride_bytes);
        words[9] = u64::from(self.box_dims[0]) | u64::from(self.box_dims[1]) << 32;
        words[10] = u64::from(self.box_dims[2]) | u64::from(self.box_dims[3]) << 32;
        words[11] = u64::from(self.element_bytes) | (self.swizzle as u64) << 32;
        TensorMap(words)
    }

    /// Reads a map and checks what `cuTensorMapEncodeTiled` would.
    pub(crate) fn decode(map: &TensorMap) -> Checked<MapFields> {
        let words = map.0;
        if words[0] != MAGIC {
            return broken!(Malformed, "there is no tensor map of the emulator at the address");
        }
        let half = |word: u64| [word as u32, (word >> 32) as u32];
        let [[x, y], [z, w]] = [half(words[9]), half(words[10])];
        let [element_bytes, swizzle] = half(words[11]);
        let fields = MapFields {
            address: words[1],
            element_bytes,
            dims: [words[2], words[3], words[4], words[5]],
            stride_bytes: [words[6], words[7], words[8]],
            box_dims: [x, y, z, w],
            swizzle: Swizzle::ALL[swizzle as usize % 4],
        };
        fields.check()?;
        Ok(fields)
    }

    fn check(&self) -> Checked {
        let row_bytes = u64::from(self.box_dims[0]) * u64::from(self.element_bytes);
        let wrong = if !self.address.is_multiple_of(16) {
            "the tensor's address is no multiple of 16"
        } else if self.stride_bytes.iter().any(|stride| stride % 16 != 0 || *stride >= 1 << 40) {
            "a stride is no multiple of 16 bytes below 2^40"
        } else if self.dims.iter().any(|dim| *dim == 0 || *dim > 1 << 32) {
            "a size is not from 1 to 2^32"
        } else if self.box_dims.iter().any(|dim| *dim == 0 || *dim > 256) {
            "a box is not from 1 to 256 elements in every dimension"
        } else if row_bytes % 16 != 0 || row_bytes > self.swizzle.span() {
            "a row of the box is no multiple of 16 bytes within the swizzle's span"
        } else {
            return Ok(());
        };
        broken!(Malformed, "tensor map: {wrong}: {self:?}")
    }

    /// The `row`-th row of the box at `at`, as far as it lies inside of the tensor: its global
    /// address, and which bytes of the box's row it is.
    pub(crate) fn row(&self, at: [u32; 4], row: u32) -> Option<(u64, Range<u32>)> {
        let [_, rows, heads, _] = self.box_dims;
        let inside = [0, row % rows, row / rows % heads, row / rows / heads];
        let mut address = self.address;
        // Coordinates are signed.
        let index = |axis: usize| i64::from(at[axis] as i32) + i64::from(inside[axis]);
        for axis in 1..4 {
            let index = index(axis);
            if index < 0 || index as u64 >= self.dims[axis] {
                return None;
            }
            address += index as u64 * self.stride_bytes[axis - 1];
        }
        let element = i64::from(self.element_bytes);
        let (first, end) = (index(0), self.dims[0] as i64);
        let start = first.clamp(0, end);
        let end = (first + i64::from(self.box_dims[0])).clamp(start, end);
        let byte = |column: i64| ((column - first) * element) as u32;
        (start < end).then(|| (address + (start * element) as u64, byte(start)..byte(end)))
    }

    /// What a store writes of that row: whole units of 16 bytes. Where the tensor's row ends within
    /// one, the rest of the unit is written too, as an H200 does.
    pub(crate) fn stored_row(&self, at: [u32; 4], row: u32) -> Option<(u64, Range<u32>)> {
        let (address, part) = self.row(at, row)?;
        Some((address, part.start..part.end.next_multiple_of(GRANULE)))
    }

    /// Refuses coordinates at which the copy engine loads no box.
    pub(crate) fn check_load(&self, at: [u32; 4]) -> Checked {
        let column = at[0] as i32;
        if i64::from(column) * i64::from(self.element_bytes) % i64::from(GRANULE) != 0 {
            return broken!(
                Malformed,
                "a box at column {column}, which is no multiple of 16 bytes"
            );
        }
        Ok(())
    }

    /// Refuses coordinates at which the copy engine stores no box.
    pub(crate) fn check_store(&self, at: [u32; 4]) -> Checked {
        let signed = at.map(|coordinate| coordinate as i32);
        if signed.iter().any(|coordinate| *coordinate < 0) {
            return broken!(Malformed, "a box at {signed:?}: a store takes no negative coordinate");
        }
        self.check_load(at)
    }

    /// Rows of a box.
    pub(crate) fn row_count(&self) -> u32 {
        self.box_dims[1..].iter().product()
    }

    /// Bytes of a row of a box.
    pub(crate) fn row_bytes(&self) -> u32 {
        self.box_dims[0] * self.element_bytes
    }

    /// Bytes of a box.
    pub(crate) fn box_bytes(&self) -> u32 {
        self.row_count() * self.row_bytes()
    }
}
