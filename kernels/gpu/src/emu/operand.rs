//! Operands of `wgmma` in shared memory, found through the bits of their descriptors.

use super::report::{Checked, broken};
use super::shared::{GRANULE, Shared};
use super::tensor_map::Swizzle;

/// How an operand's elements follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    /// The 32 bytes of a row of A, or of a column of B, lie together.
    K,
    /// The rows of B lie together, 16 of 16-bit elements.
    N,
}

/// A matrix descriptor (PTX ISA, "Matrix Descriptor Format").
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    start: u32,
    leading: u32,
    stride: u32,
    swizzle: Swizzle,
}

impl Descriptor {
    fn decode(bits: u64) -> Checked<Descriptor> {
        let field = |low: u32| ((bits >> low & 0x3fff) as u32) << 4;
        let swizzle = match bits >> 62 {
            1 => Swizzle::Bytes128,
            2 => Swizzle::Bytes64,
            3 => Swizzle::Bytes32,
            _ => Swizzle::None,
        };
        let descriptor =
            Descriptor { start: field(0), leading: field(16), stride: field(32), swizzle };
        let base_offset = (bits >> 49 & 7) as u32;
        if swizzle == Swizzle::None {
            return broken!(Malformed, "descriptor {bits:#x} without swizzle: no kernel uses it");
        }
        // The pattern is tied to addresses, so that it must start where the descriptor says.
        let row_in_pattern = descriptor.start % swizzle.period() / 128;
        if row_in_pattern != base_offset {
            return broken!(
                Malformed,
                "descriptor {bits:#x}: its start {:#x} is row {row_in_pattern} of the swizzle's \
                 pattern, its base offset says {base_offset}",
                descriptor.start
            );
        }
        if !descriptor.stride.is_multiple_of(swizzle.period()) {
            return broken!(
                Malformed,
                "descriptor {bits:#x}: a stride offset of {} bytes is no multiple of {}",
                descriptor.stride,
                swizzle.period()
            );
        }
        Ok(descriptor)
    }

    /// Bytes of a row of the swizzle's atom.
    fn row_bytes(&self) -> u32 {
        self.swizzle.period() / 8
    }
}

/// Granules of an operand with `extent` rows of A or columns of B: for [`Major::K`] two for each,
/// for [`Major::N`] `extent / 8` for each of the 16 rows.
pub fn granules(shared: &Shared, bits: u64, major: Major, extent: usize) -> Checked<Vec<usize>> {
    let descriptor = Descriptor::decode(bits)?;
    let Descriptor { start, leading, stride, swizzle } = descriptor;
    let row_bytes = descriptor.row_bytes();
    let in_atom = |row: u32| row / 8 * stride + row % 8 * row_bytes;
    let mut found = Vec::with_capacity(extent * 2);
    let mut push = |plain: u32| shared.granule(swizzle.apply(plain)).map(|it| found.push(it));
    match major {
        Major::K => {
            for row in 0..extent as u32 {
                push(start + in_atom(row))?;
                push(start + in_atom(row) + GRANULE)?;
            }
        }
        Major::N => {
            let units = row_bytes / GRANULE;
            for row in 0..16 {
                for unit in 0..extent as u32 / 8 {
                    push(start + unit / units * leading + in_atom(row) + unit % units * GRANULE)?;
                }
            }
        }
    }
    Ok(found)
}

/// The contents of granules, 16 bits at a time.
pub fn words(shared: &Shared, granules: &[usize]) -> Vec<u16> {
    let mut words = Vec::with_capacity(granules.len() * 8);
    for granule in granules {
        let bytes = shared.bytes(*granule).chunks_exact(2);
        words.extend(bytes.map(|pair| u16::from_le_bytes([pair[0], pair[1]])));
    }
    words
}

/// The matrix B, a row of `extent` columns for each K, from the elements of its granules.
pub fn rows_of_b(values: Vec<f32>, major: Major, extent: usize) -> Vec<f32> {
    match (major, values.len() / extent) {
        (Major::N, _) => values,
        (Major::K, 16) => transposed::<16>(&values, extent),
        (Major::K, _) => transposed::<32>(&values, extent),
    }
}

fn transposed<const K: usize>(values: &[f32], extent: usize) -> Vec<f32> {
    let mut rows = vec![0.0; values.len()];
    for column in 0..extent {
        for k in 0..K {
            rows[k * extent + column] = values[column * K + k];
        }
    }
    rows
}
