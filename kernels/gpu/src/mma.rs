//! Matrix products of one warp, done when the call returns (PTX `mma.sync.m16n8k16`).
//!
//! A warp's operands and sums lie in its registers as those of a warpgroup's products do: four
//! registers of A, of a [`Packed`](crate::frag::Packed) or from
//! [`load_matrices`](crate::smem::load_matrices), and of the sums the four of one group of eight
//! columns of an [`Accum`].

use crate::{element::Element, frag::Accum};

/// `sums[.., 8 group..] += A × B`, for 16 rows, 8 columns and 16 products in each sum.
///
/// # Safety
/// All threads of the warp call it.
#[inline(always)]
#[track_caller]
pub unsafe fn multiply<T: Element, const N: u32>(
    sums: &mut Accum<N>,
    group: u32,
    a: [u32; 4],
    b: [u32; 2],
) {
    let at = 4 * group as usize;
    let registers = &mut sums.registers;
    let four = [registers[at], registers[at + 1], registers[at + 2], registers[at + 3]];
    // SAFETY: the caller's contract is the instruction's.
    let four = unsafe { T::mma(four, a, b) };
    registers[at] = four[0];
    registers[at + 1] = four[1];
    registers[at + 2] = four[2];
    registers[at + 3] = four[3];
}

impl<const N: u32> Accum<N> {
    /// Adds the elements of `sums`, of as many columns, to those of columns `first` and later; a
    /// multiple of 8.
    #[inline(always)]
    pub fn add_columns<const M: u32>(&mut self, sums: &Accum<M>, first: u32) {
        let first = first as usize / 2;
        let mut register = 0;
        while register < M as usize / 2 {
            self.registers[first + register] += sums.registers[register];
            register += 1;
        }
    }
}
