//! Fragments of products of 8-bit elements.
//!
//! An accumulator is that of any product. The A operand of a step along K, 32 bytes a row, holds
//! in registers 0 and 1 the columns `4c .. 4c + 4` of half 0 and 1, `c` the lane's place in its
//! quad, and in registers 2 and 3 those 16 further on. An accumulator has other columns in a lane:
//! `2c` and `2c + 1` of each group of eight. So that packing one needs no shuffle, position
//! `4c + j` of each 16 along K stands for column `2c + j % 2 + 8 * (j / 2)` ([`column_at`]), and
//! the rows of the product's other operand follow each other in that order.

use super::{ACCUM_REGISTERS, Accum};
use crate::element8::E4m3;
use crate::imp;
use fulgurite_spec::quantise::KEY_ORDER;

/// Accumulator of a 64×N product of integers, laid out as [`Accum`].
pub struct IntegerAccum<const N: u32> {
    pub(crate) registers: [i32; ACCUM_REGISTERS],
}

/// An [`Accum`] rounded to 8 bits, in the layout of the next product's A operand; N is a multiple
/// of 32.
pub struct PackedBytes<const N: u32> {
    pub(crate) registers: [u32; ACCUM_REGISTERS / 4],
}

/// The column of an [`Accum`] that lies at a position along K of its packed form.
pub const fn column_at(position: u32) -> u32 {
    position / 16 * 16 + KEY_ORDER[(position % 16) as usize] as u32
}

impl<const N: u32> IntegerAccum<N> {
    /// All zeros.
    #[inline(always)]
    pub fn zero() -> Self {
        IntegerAccum { registers: [0; ACCUM_REGISTERS] }
    }

    /// The sums as floats: exact up to 2^24, which 1024 products of 8-bit integers do not exceed.
    #[inline(always)]
    pub fn to_floats(&self) -> Accum<N> {
        let mut floats = Accum::zero();
        let mut i = 0;
        while i < N as usize / 2 {
            floats.registers[i] = self.registers[i] as f32;
            i += 1;
        }
        floats
    }

    /// This thread's elements of a group of eight columns: two of half 0, then of half 1.
    #[inline(always)]
    pub fn group(&self, group: u32) -> [i32; 4] {
        let at = 4 * group as usize;
        [self.registers[at], self.registers[at + 1], self.registers[at + 2], self.registers[at + 3]]
    }
}

impl<const N: u32> Accum<N> {
    /// This thread's elements of a group of eight columns: two of half 0, then of half 1.
    #[inline(always)]
    pub fn group(&self, group: u32) -> [f32; 4] {
        let at = 4 * group as usize;
        [self.registers[at], self.registers[at + 1], self.registers[at + 2], self.registers[at + 3]]
    }

    /// Rounds to e4m3 ([`E4m3::pack`]), in the layout of the next product's A operand.
    #[inline(always)]
    #[track_caller]
    pub fn pack_e4m3(&self) -> PackedBytes<N> {
        const { assert!(N.is_multiple_of(32), "a step along K has 32 columns") };
        let mut registers = [0; ACCUM_REGISTERS / 4];
        let mut i = 0;
        while i < N as usize / 8 {
            // Two groups of eight columns give a register of each half.
            let at = i / 2 * 8 + i % 2 * 2;
            let low = E4m3::pack(self.registers[at], self.registers[at + 1]);
            let high = E4m3::pack(self.registers[at + 4], self.registers[at + 5]);
            registers[i] = imp::join_halves(low, high);
            i += 1;
        }
        PackedBytes { registers }
    }
}

impl<const N: u32> PackedBytes<N> {
    /// All zeros.
    #[inline(always)]
    pub fn zero() -> Self {
        PackedBytes { registers: [0; ACCUM_REGISTERS / 4] }
    }

    /// The A operand of the product over positions `32 * step ..`.
    #[inline(always)]
    pub fn operand(&self, step: u32) -> [u32; 4] {
        let at = 4 * step as usize;
        [self.registers[at], self.registers[at + 1], self.registers[at + 2], self.registers[at + 3]]
    }
}
