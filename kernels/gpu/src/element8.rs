//! Element types of 8 bits, as the tensor core takes them.

use crate::frag::{Accum, IntegerAccum};
use crate::imp;

/// An 8-bit type whose products the tensor core adds up, both operands K-major in shared memory.
///
/// # Safety
/// The function computes in the type that implements it.
pub unsafe trait Element8: Copy {
    /// What holds the sums of products: floats or integers.
    type Sums<const N: u32>;

    /// Issues `sums (+)= A × Bᵀ`; 64×N×32.
    ///
    /// # Safety
    /// As [`crate::wgmma::issue_ss`].
    unsafe fn wgmma_ss<const N: u32, const ADD: bool>(sums: &mut Self::Sums<N>, a: u64, b: u64);
}

/// A float with 4 exponent and 3 mantissa bits: up to 448, normal from 2^-6, subnormal from 2^-9;
/// no infinity, NaN is 0x7f and 0xff.
///
/// Its sums keep 13 mantissa bits: in each step along K the tensor core cuts off all products and
/// the accumulator 13 bits behind the largest of them, and what they come to again.
#[derive(Clone, Copy)]
pub struct E4m3;

/// A signed integer. Its sums are 32-bit integers, exact, and wrap around.
#[derive(Clone, Copy)]
pub struct S8;

// SAFETY: the instruction is that of this type.
unsafe impl Element8 for E4m3 {
    type Sums<const N: u32> = Accum<N>;

    #[inline(always)]
    #[track_caller]
    unsafe fn wgmma_ss<const N: u32, const ADD: bool>(sums: &mut Accum<N>, a: u64, b: u64) {
        // SAFETY: the caller's contract is the instruction's.
        unsafe { imp::wgmma_ss_e4m3::<N, ADD>(&mut sums.registers, a, b) }
    }
}

// SAFETY: the instruction is that of this type.
unsafe impl Element8 for S8 {
    type Sums<const N: u32> = IntegerAccum<N>;

    #[inline(always)]
    #[track_caller]
    unsafe fn wgmma_ss<const N: u32, const ADD: bool>(sums: &mut IntegerAccum<N>, a: u64, b: u64) {
        // SAFETY: the caller's contract is the instruction's.
        unsafe { imp::wgmma_ss_s8::<N, ADD>(&mut sums.registers, a, b) }
    }
}

impl E4m3 {
    /// Rounds two floats to nearest even and packs them, `low` into the low byte. What is beyond
    /// 448 becomes that, infinity too; NaN becomes 0x7f.
    #[inline(always)]
    #[track_caller]
    pub fn pack(low: f32, high: f32) -> u16 {
        imp::pack_e4m3(low, high)
    }

    /// Two numbers as f16, which has all of them; NaN becomes 0x7fff.
    #[inline(always)]
    pub fn unpack(pair: u16) -> u32 {
        imp::unpack_e4m3(pair)
    }

    /// Four numbers of two pairs as a word, `low` in the low half.
    #[inline(always)]
    pub fn join(low: u16, high: u16) -> u32 {
        imp::join_halves(low, high)
    }
}

impl S8 {
    /// Four integers as a word, the first in the low byte; what is beyond -128 or 127 becomes that.
    #[inline(always)]
    pub fn pack(values: [i32; 4]) -> u32 {
        let upper = imp::pack_s8(values[2], values[3], 0);
        imp::pack_s8(values[0], values[1], upper)
    }
}
