//! Rows in the registers of quads: four neighbouring threads of a warp hold one row, eight quads
//! of the warp eight rows.
//!
//! Of every 32 columns each thread of a quad has a *unit* of 8 that lie side by side: 16 bytes of
//! 16-bit elements, so that a quad's loads touch whole sectors of memory, and so do its stores of
//! 8 bits.

use crate::element::Element;
use crate::element8::S8;
use crate::{global, imp, math};
use fulgurite_spec::quantise::rotation;

/// Columns of a unit.
const UNIT: usize = 8;

/// Threads that hold a row.
pub const THREADS: u32 = 4;

/// One row of `32 * UNITS` columns as floats.
#[derive(Clone, Copy)]
pub struct QuadRow<const UNITS: usize> {
    units: [[f32; UNIT]; UNITS],
}

/// Index of this thread's quad in the block.
#[inline(always)]
pub fn index() -> u32 {
    imp::thread_index() / THREADS
}

/// Whether the thread is the first of its quad.
#[inline(always)]
pub fn leads() -> bool {
    imp::thread_index().is_multiple_of(THREADS)
}

/// First column of a unit of this thread's.
#[inline(always)]
fn column(unit: usize) -> u32 {
    32 * unit as u32 + imp::thread_index() % THREADS * UNIT as u32
}

/// The largest value of the quad, or of the whole warp; NaN if there is one.
///
/// # Safety
/// All threads of the warp call it.
#[inline(always)]
#[track_caller]
pub unsafe fn largest<const WHOLE_WARP: bool>(value: f32) -> f32 {
    let value = math::max_nan(value, imp::shuffle_xor_f32::<1>(value));
    let value = math::max_nan(value, imp::shuffle_xor_f32::<2>(value));
    if !WHOLE_WARP {
        return value;
    }
    let value = math::max_nan(value, imp::shuffle_xor_f32::<4>(value));
    let value = math::max_nan(value, imp::shuffle_xor_f32::<8>(value));
    math::max_nan(value, imp::shuffle_xor_f32::<16>(value))
}

/// The sum of products of two rows of `columns` elements, a multiple of 8; the same in all threads
/// of the quad.
///
/// # Safety
/// The addresses are those of so many elements in 16-byte aligned global memory, which nobody
/// writes during the launch; all threads of the warp call it.
#[inline(always)]
#[track_caller]
pub unsafe fn dot<T: Element>(a: u64, b: u64, columns: u32) -> f32 {
    let mut sum = 0.0;
    let mut at = column(0);
    while at < columns {
        let offset = 2 * u64::from(at);
        // SAFETY: inside of the rows.
        let [a, b] = unsafe { [global::load_16(a + offset), global::load_16(b + offset)] };
        let mut pair = 0;
        while pair < UNIT / 2 {
            let (a, b) = (T::unpack(a[pair]), T::unpack(b[pair]));
            sum = math::fma(a[0], b[0], sum);
            sum = math::fma(a[1], b[1], sum);
            pair += 1;
        }
        at += THREADS * UNIT as u32;
    }
    let sum = sum + imp::shuffle_xor_f32::<1>(sum);
    sum + imp::shuffle_xor_f32::<2>(sum)
}

impl<const UNITS: usize> QuadRow<UNITS> {
    /// Columns of the row.
    pub const COLUMNS: u32 = 32 * UNITS as u32;

    /// All zeros.
    #[inline(always)]
    pub fn zero() -> Self {
        QuadRow { units: [[0.0; UNIT]; UNITS] }
    }

    /// The first `columns` of a row, a multiple of 8 but not 0; the others are zeros.
    ///
    /// # Safety
    /// `address` is that of so many elements in 16-byte aligned global memory, which nobody writes
    /// during the launch.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn load<T: Element>(address: u64, columns: u32) -> Self {
        let mut words = [[0; 4]; UNITS];
        let mut unit = 0;
        while unit < UNITS {
            // Padding reads the row's start and forgets it: a load without a branch.
            let column = if column(unit) < columns { column(unit) } else { 0 };
            // SAFETY: inside of the row.
            words[unit] = unsafe { global::load_16(address + 2 * u64::from(column)) };
            unit += 1;
        }
        let mut row = Self::zero();
        let mut unit = 0;
        while unit < UNITS {
            let mut pair = 0;
            while pair < UNIT / 2 {
                let word = if column(unit) < columns { words[unit][pair] } else { 0 };
                let [low, high] = T::unpack(word);
                row.units[unit][2 * pair] = low;
                row.units[unit][2 * pair + 1] = high;
                pair += 1;
            }
            unit += 1;
        }
        row
    }

    /// Takes a row of floats away. They are loaded as they are used, since no registers are left
    /// for a second row.
    ///
    /// # Safety
    /// As [`load`](Self::load), of all columns.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn subtract(&mut self, address: u64) {
        let mut unit = 0;
        while unit < UNITS {
            // SAFETY: the caller's contract.
            let floats = unsafe { load_floats(address, unit) };
            let mut i = 0;
            while i < UNIT {
                self.units[unit][i] -= floats[i];
                i += 1;
            }
            unit += 1;
        }
    }

    /// The product with a row of floats.
    ///
    /// # Safety
    /// As [`subtract`](Self::subtract); all threads of the warp call it.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn dot(&self, address: u64) -> f32 {
        let mut sum = 0.0;
        let mut unit = 0;
        while unit < UNITS {
            // SAFETY: the caller's contract.
            let floats = unsafe { load_floats(address, unit) };
            let mut i = 0;
            while i < UNIT {
                sum = math::fma(self.units[unit][i], floats[i], sum);
                i += 1;
            }
            unit += 1;
        }
        let sum = sum + imp::shuffle_xor_f32::<1>(sum);
        sum + imp::shuffle_xor_f32::<2>(sum)
    }

    /// Multiplies the row with the orthogonal matrix of [`rotation`].
    ///
    /// # Safety
    /// All threads of the warp call it.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn rotate(&mut self) {
        let norm = rotation::norm(Self::COLUMNS).to_bits();
        let place = imp::thread_index() % THREADS;
        let sign = |bit: u32| f32::from_bits(1.0_f32.to_bits() | (place >> bit) << 31);
        let signs = [sign(0), sign(1)];
        let mut unit = 0;
        while unit < UNITS {
            let columns = &mut self.units[unit];
            let negated = rotation::SIGNS[unit] >> (place * UNIT as u32);
            let mut i = 0;
            while i < UNIT {
                columns[i] *= f32::from_bits(norm | (negated >> i) << 31);
                i += 1;
            }
            butterflies_of(columns);
            let mut i = 0;
            while i < UNIT {
                // The thread whose bit is 0 has the sum, the other the difference.
                let other = imp::shuffle_xor_f32::<1>(columns[i]);
                let value = math::fma(columns[i], signs[0], other);
                let other = imp::shuffle_xor_f32::<2>(value);
                columns[i] = math::fma(value, signs[1], other);
                i += 1;
            }
            unit += 1;
        }
        let mut distance = 1;
        while distance < rotation::block(Self::COLUMNS) as usize / 32 {
            let mut unit = 0;
            while unit < UNITS {
                if unit & distance == 0 {
                    let mut i = 0;
                    while i < UNIT {
                        let (low, high) = (self.units[unit][i], self.units[unit + distance][i]);
                        self.units[unit][i] = low + high;
                        self.units[unit + distance][i] = low - high;
                        i += 1;
                    }
                }
                unit += 1;
            }
            distance *= 2;
        }
    }

    /// The largest size among this thread's numbers; NaN if there is one.
    #[inline(always)]
    pub fn own_largest(&self) -> f32 {
        let mut largest = 0.0;
        let mut unit = 0;
        while unit < UNITS {
            let mut i = 0;
            while i < UNIT {
                largest = math::max_nan(largest, self.units[unit][i].abs());
                i += 1;
            }
            unit += 1;
        }
        largest
    }

    /// Stores the row as signed integers: the nearest to the numbers times `factor`.
    ///
    /// # Safety
    /// `address` is that of so many bytes of 8-byte aligned global memory, which the quad alone
    /// writes.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn store_s8(&self, address: u64, factor: f32) {
        let mut unit = 0;
        while unit < UNITS {
            let mut words = [0; 2];
            let mut half = 0;
            while half < 2 {
                let round = |i: usize| math::nearest(self.units[unit][4 * half + i] * factor);
                words[half] = S8::pack([round(0), round(1), round(2), round(3)]);
                half += 1;
            }
            // SAFETY: inside of the row; the unit is this thread's.
            unsafe { global::store_8(address + u64::from(column(unit)), words) }
            unit += 1;
        }
    }
}

/// A unit of this thread's of a row of floats.
///
/// # Safety
/// `address` is that of a row in 16-byte aligned global memory, which nobody writes during the
/// launch.
#[inline(always)]
#[track_caller]
unsafe fn load_floats(address: u64, unit: usize) -> [f32; UNIT] {
    let at = address + 4 * u64::from(column(unit));
    // SAFETY: inside of the row.
    let [low, high] = unsafe { [global::load_16(at), global::load_16(at + 16)] };
    [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]].map(f32::from_bits)
}

/// The Hadamard transform of a unit.
#[inline(always)]
fn butterflies_of(columns: &mut [f32; UNIT]) {
    let mut distance = 1;
    while distance < UNIT {
        let mut i = 0;
        while i < UNIT {
            if i & distance == 0 {
                let (low, high) = (columns[i], columns[i + distance]);
                columns[i] = low + high;
                columns[i + distance] = low - high;
            }
            i += 1;
        }
        distance *= 2;
    }
}
