//! What gradients of attention need of a tile: probabilities again, and what becomes of theirs.

use super::{Accum, first_column};
use crate::{global, math};
use core::ops::Range;

impl<const N: u32> Accum<N> {
    /// Replaces every element `x` by `2^(x * scale - shift)`; each column has a shift of its own.
    ///
    /// # Safety
    /// `shifts` is the 8-byte aligned address of `N` floats in global memory that nobody writes
    /// during the launch.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn exp2_columns(&mut self, scale: f32, shifts: u64) {
        let mut i = 0;
        while i < Self::LEN {
            // SAFETY: the caller's contract.
            let shift = unsafe { load_columns(shifts, i) };
            let mut part = 0;
            while part < 4 {
                let x = self.registers[i + part];
                self.registers[i + part] = math::exp2(math::fma(x, scale, -shift[part % 2]));
                part += 1;
            }
            i += 4;
        }
    }

    /// Multiplies every element with the same one of `other` less its column's term. With
    /// `ZEROS_STAY` an element of 0 is 0 whatever the others are.
    ///
    /// # Safety
    /// As [`exp2_columns`](Self::exp2_columns), for the terms.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn times_less_columns<const ZEROS_STAY: bool>(
        &mut self,
        other: &Accum<N>,
        terms: u64,
    ) {
        let mut i = 0;
        while i < Self::LEN {
            // SAFETY: the caller's contract.
            let term = unsafe { load_columns(terms, i) };
            let mut part = 0;
            while part < 4 {
                self.times_less::<ZEROS_STAY>(other, i + part, term[part % 2]);
                part += 1;
            }
            i += 4;
        }
    }

    /// The same with a term for each row.
    #[inline(always)]
    pub fn times_less_rows<const ZEROS_STAY: bool>(&mut self, other: &Accum<N>, term: [f32; 2]) {
        let mut i = 0;
        while i < Self::LEN {
            let mut part = 0;
            while part < 4 {
                self.times_less::<ZEROS_STAY>(other, i + part, term[part / 2]);
                part += 1;
            }
            i += 4;
        }
    }

    #[inline(always)]
    fn times_less<const ZEROS_STAY: bool>(&mut self, other: &Accum<N>, at: usize, term: f32) {
        let factor = self.registers[at];
        let product = factor * (other.registers[at] - term);
        self.registers[at] = if ZEROS_STAY && factor == 0.0 { 0.0 } else { product };
    }

    /// Sets the elements of columns outside of `kept[half]` to 0, whatever they are.
    ///
    /// By a word with a bit for each of the thread's columns, so that what decides is one register
    /// for each row while products are waited for.
    #[inline(always)]
    pub fn keep_columns(&mut self, kept: [Range<i32>; 2]) {
        const { assert!(N <= 128, "a row's bits fill more than a word") };
        let words =
            kept.map(|kept| first_ones(own_before(kept.end)) & !first_ones(own_before(kept.start)));
        let mut i = 0;
        while i < Self::LEN {
            let mut part = 0;
            while part < 4 {
                if words[part / 2] & 1 << (i / 2 + part % 2) == 0 {
                    self.registers[i + part] = 0.0;
                }
                part += 1;
            }
            i += 4;
        }
    }
}

/// How many of a row's columns in front of `end` this thread holds: two of every eight.
#[inline(always)]
fn own_before(end: i32) -> u32 {
    let end = (end - first_column() as i32).max(0) as u32;
    end / 8 * 2 + (end % 8).min(2)
}

/// A word whose first `count` bits are set.
#[inline(always)]
fn first_ones(count: u32) -> u32 {
    if count < 32 { (1 << count) - 1 } else { u32::MAX }
}

/// The floats of the two columns that registers `i` to `i + 3` hold.
///
/// # Safety
/// As [`Accum::exp2_columns`].
#[inline(always)]
#[track_caller]
unsafe fn load_columns(floats: u64, i: usize) -> [f32; 2] {
    let column = 2 * i as u32 + first_column();
    // SAFETY: the caller's contract; the first column is even.
    unsafe { global::load_f32x2(floats + 4 * u64::from(column)) }
}
