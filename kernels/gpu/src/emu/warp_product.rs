//! Products of one warp: 16 rows, 8 columns, 16 products in each sum.

use super::accumulator::Accumulator;
use super::format::Format;

/// What one thread brings.
#[derive(Clone, Copy, Debug)]
pub struct WarpOperands {
    pub sums: [u32; 4],
    pub a: [u32; 4],
    pub b: [u32; 2],
}

/// Columns of A and rows of B.
const K: usize = 16;

/// Columns of B and of the sums.
const WIDTH: usize = 8;

/// Where pair `pair` of thread `lane` lies in a matrix of 16 rows of `width` elements.
fn pair_of(lane: usize, pair: usize, width: usize) -> usize {
    let (row, column) = (lane / 4 + 8 * (pair % 2), 2 * (lane % 4) + 8 * (pair / 2));
    row * width + column
}

/// The 32 threads of a warp have come, in order: the sums of each.
pub fn multiply(
    format: Format,
    accumulator: Accumulator,
    threads: &[WarpOperands],
) -> Vec<[u32; 4]> {
    let (mut a, mut b) = ([0_u16; 16 * K], [0_u16; K * WIDTH]);
    let mut sums = [0.0_f32; 16 * WIDTH];
    for (lane, operands) in threads.iter().enumerate() {
        for (pair, word) in operands.a.iter().enumerate() {
            let at = pair_of(lane, pair, K);
            (a[at], a[at + 1]) = (*word as u16, (*word >> 16) as u16);
        }
        for (half, word) in operands.b.iter().enumerate() {
            let at = (8 * half + 2 * (lane % 4)) * WIDTH + lane / 4;
            (b[at], b[at + WIDTH]) = (*word as u16, (*word >> 16) as u16);
        }
        for (register, bits) in operands.sums.iter().enumerate() {
            sums[pair_of(lane, register / 2, WIDTH) + register % 2] = f32::from_bits(*bits);
        }
    }
    accumulator.multiply(format, &mut sums, &format.floats(&a), &format.floats(&b), WIDTH);
    let of = |lane: usize, register: usize| {
        sums[pair_of(lane, register / 2, WIDTH) + register % 2].to_bits()
    };
    (0..threads.len()).map(|lane| [0, 1, 2, 3].map(|register| of(lane, register))).collect()
}
