//! Register fragments of a warpgroup's tile: the only place that knows which lane holds what.
//!
//! The accumulator of a 64×N product: warp `w`, lane `l` holds row `16w + l/4` (half 0) and that
//! plus 8 (half 1). Registers `4i`, `4i + 1` are columns `8i + 2(l % 4)` and the next of half 0;
//! `4i + 2`, `4i + 3` the same columns of half 1. The four lanes of a row are a *quad*.

use crate::{
    element::Element,
    global, imp, math,
    smem::{self, Smem},
};
use core::ops::Range;

mod bytes;
mod gradient;
mod mask;
mod panels;
pub use bytes::{IntegerAccum, PackedBytes, column_at};
use panels::held;
pub use panels::{Matrices, Panels, RowsOf, row_bytes, rows_of_warp};

/// Registers of the widest accumulator (64×256).
const ACCUM_REGISTERS: usize = 128;

/// Accumulator of a 64×N product; the first N/2 registers are used, the rest cost nothing.
pub struct Accum<const N: u32> {
    pub(crate) registers: [f32; ACCUM_REGISTERS],
}

/// An [`Accum`] rounded to 16 bits, in the layout of the next product's A operand.
pub struct Packed<const N: u32> {
    pub(crate) registers: [u32; ACCUM_REGISTERS / 2],
}

/// Rows of the 64-row tile that this thread holds, by half.
#[inline(always)]
#[track_caller]
pub fn rows() -> [u32; 2] {
    let thread = imp::thread_index() % 128;
    held(thread / 32 * 16 + thread % 32 / 4)
}

/// First of the thread's columns in every group of eight.
#[inline(always)]
fn first_column() -> u32 {
    imp::thread_index() % 4 * 2
}

/// Combines a value over the quad that holds a row.
#[inline(always)]
#[track_caller]
fn reduce_quad(value: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let value = combine(value, imp::shuffle_xor_f32::<1>(value));
    combine(value, imp::shuffle_xor_f32::<2>(value))
}

/// Sum over the quad, for values that each thread accumulated for its rows.
#[inline(always)]
#[track_caller]
pub fn sum_rows(values: [f32; 2]) -> [f32; 2] {
    [reduce_quad(values[0], |a, b| a + b), reduce_quad(values[1], |a, b| a + b)]
}

/// The two floats whose upper halves a word holds, the lower one first.
#[inline(always)]
fn bf16_pair(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

/// Per row, whether any thread of its quad votes `true`.
///
/// # Safety
/// All threads of the warp call it.
#[inline(always)]
#[track_caller]
pub unsafe fn any_of_row(votes: [bool; 2]) -> [bool; 2] {
    let quad = imp::thread_index() % 32 / 4 * 4;
    let any = |vote: bool| imp::ballot(vote) >> quad & 0b1111 != 0;
    [any(votes[0]), any(votes[1])]
}

/// Per row, whether its first column in global memory is NaN, for rows that [`Packed::store_rows`]
/// has stored: each quad's first thread reads what it wrote. `infinity_bits`: those of its type.
///
/// # Safety
/// `row_address(half)` is what `store_rows` had, if `stored[half]`; all threads of the warp call
/// it.
#[inline(always)]
#[track_caller]
pub unsafe fn first_is_nan(
    infinity_bits: u32,
    stored: [bool; 2],
    row_address: impl Fn(usize) -> u64,
) -> [bool; 2] {
    let mut is_nan = [false; 2];
    let mut half = 0;
    while half < 2 {
        if stored[half] && first_column() == 0 {
            // SAFETY: the caller vouches for the address; this thread wrote there.
            let first = unsafe { global::load_16(row_address(half)) }[0] & 0x7fff;
            is_nan[half] = first > infinity_bits;
        }
        half += 1;
    }
    // SAFETY: the caller's contract.
    unsafe { any_of_row(is_nan) }
}

/// Writes one float per row from the first thread of its quad.
///
/// # Safety
/// `address(half)` is 4-byte aligned global memory of that row, if `stored[half]`.
#[inline(always)]
#[track_caller]
pub unsafe fn store_per_row(values: [f32; 2], stored: [bool; 2], address: impl Fn(usize) -> u64) {
    let mut half = 0;
    while half < 2 {
        if stored[half] && first_column() == 0 {
            // SAFETY: the caller vouches for the address; one thread of the quad writes it.
            unsafe { global::store_f32(address(half), values[half]) }
        }
        half += 1;
    }
}

/// Writes zeros to rows of global memory, 16 bytes per thread and store, short rows side by side.
///
/// # Safety
/// `address(row)` is the 16-byte aligned address of a row's first column, with room for
/// `column_count` columns of 16 bits (a multiple of 8, at most 256), for all of `rows`; all threads
/// of one warp call it, and nobody else writes the rows.
#[inline(always)]
#[track_caller]
pub unsafe fn zero_rows(rows: Range<u32>, column_count: u32, address: impl Fn(u32) -> u64) {
    let lane = imp::thread_index() % 32;
    let row_lanes = (column_count / 8).next_power_of_two();
    let column = lane % row_lanes * 8;
    let mut row = rows.start + lane / row_lanes;
    while row < rows.end {
        if column < column_count {
            // SAFETY: the caller vouches for the row; each thread has columns of its own.
            unsafe { global::store_16(address(row) + 2 * u64::from(column), [0; 4]) }
        }
        row += 32 / row_lanes;
    }
}

/// Writes one float per row, a row per thread of the warp.
///
/// # Safety
/// `address(row)` is 4-byte aligned global memory of that row, for all of `rows`; all threads of
/// one warp call it, and nobody else writes there.
#[inline(always)]
#[track_caller]
pub unsafe fn fill_per_row(rows: Range<u32>, value: f32, address: impl Fn(u32) -> u64) {
    let mut row = rows.start + imp::thread_index() % 32;
    while row < rows.end {
        // SAFETY: the caller vouches for the address; each thread has rows of its own.
        unsafe { global::store_f32(address(row), value) }
        row += 32;
    }
}

impl<const N: u32> Accum<N> {
    const LEN: usize = N as usize / 2;

    /// All zeros.
    #[inline(always)]
    pub fn zero() -> Self {
        Accum { registers: [0.0; ACCUM_REGISTERS] }
    }

    /// Per row, the largest of `floor` and the row's elements; NaN elements are passed over.
    #[inline(always)]
    #[track_caller]
    pub fn row_max(&self, floor: [f32; 2]) -> [f32; 2] {
        let floor = imp::alter(imp::Rows::Floor, floor, [f32::NEG_INFINITY; 2]);
        // Two chains per row: one chain of N/4 dependent maxima would leave the pipe half idle.
        let mut even = floor;
        let mut odd = floor;
        let mut i = 0;
        while i < Self::LEN {
            even[0] = even[0].max(self.registers[i]);
            odd[0] = odd[0].max(self.registers[i + 1]);
            even[1] = even[1].max(self.registers[i + 2]);
            odd[1] = odd[1].max(self.registers[i + 3]);
            i += 4;
        }
        let even = imp::alter(imp::Rows::Maximum, even, floor);
        [reduce_quad(even[0].max(odd[0]), f32::max), reduce_quad(even[1].max(odd[1]), f32::max)]
    }

    /// Replaces every element `x` by `2^(x * scale[half] + shift[half])` and returns the thread's
    /// part of the row sums.
    #[inline(always)]
    #[track_caller]
    pub fn exp2_rows(&mut self, scale: [f32; 2], shift: [f32; 2]) -> [f32; 2] {
        let mut even = [0.0; 2];
        let mut odd = [0.0; 2];
        let mut i = 0;
        while i < Self::LEN {
            let mut half = 0;
            while half < 2 {
                let at = i + 2 * half;
                let low = math::exp2(math::fma(self.registers[at], scale[half], shift[half]));
                let high = math::exp2(math::fma(self.registers[at + 1], scale[half], shift[half]));
                even[half] += low;
                odd[half] += high;
                self.registers[at] = low;
                self.registers[at + 1] = high;
                half += 1;
            }
            i += 4;
        }
        let even = imp::alter(imp::Rows::Sum, even, [self.registers[0], self.registers[2]]);
        [even[0] + odd[0], even[1] + odd[1]]
    }

    /// Per row, whether this thread holds its first column and that is NaN.
    #[inline(always)]
    pub fn first_is_nan(&self) -> [bool; 2] {
        let leads = first_column() == 0;
        [leads && self.registers[0].is_nan(), leads && self.registers[2].is_nan()]
    }

    /// Adds its term to each row.
    #[inline(always)]
    #[track_caller]
    pub fn add_rows(&mut self, term: [f32; 2]) {
        let term = imp::alter(imp::Rows::Term, term, [0.0; 2]);
        let mut i = 0;
        while i < Self::LEN {
            self.registers[i] += term[0];
            self.registers[i + 1] += term[0];
            self.registers[i + 2] += term[1];
            self.registers[i + 3] += term[1];
            i += 4;
        }
    }

    /// Multiplies each row by its factor.
    #[inline(always)]
    #[track_caller]
    pub fn scale_rows(&mut self, factor: [f32; 2]) {
        let factor = imp::alter(imp::Rows::Factor, factor, [1.0; 2]);
        let mut i = 0;
        while i < Self::LEN {
            self.registers[i] *= factor[0];
            self.registers[i + 1] *= factor[0];
            self.registers[i + 2] *= factor[1];
            self.registers[i + 3] *= factor[1];
            i += 4;
        }
    }

    /// Sets the elements of columns `end[half]` and later to `-inf`.
    #[inline(always)]
    #[track_caller]
    pub fn mask_from(&mut self, end: [i32; 2]) {
        let end = imp::alter(imp::Rows::End, end, [i32::MAX; 2]);
        // Relative to the thread's first column, so that each test compares with a constant.
        let end = [end[0] - first_column() as i32, end[1] - first_column() as i32];
        let mut i = 0;
        while i < Self::LEN {
            let mut part = 0;
            while part < 4 {
                let column = (2 * i + part % 2) as i32;
                if column >= end[part / 2] {
                    self.registers[i + part] = f32::NEG_INFINITY;
                }
                part += 1;
            }
            i += 4;
        }
    }

    /// Adds what was parked at `at`, times its row's factor, and, if `AGAIN`, parks what comes of
    /// that: the sums rounded to bf16 go to `at`, the remainders stay. So the elements become small
    /// and the sum of both is what it was. The units of 16 bytes of a thread are `stride` bytes
    /// apart.
    ///
    /// bf16 for all types: its range is that of the accumulator, and a remainder of `2^-9` is small
    /// enough for products that truncate.
    ///
    /// # Safety
    /// The shared memory at `at + stride * i` (16-byte aligned, 16 bytes, for `N / 16` units) is
    /// this thread's alone and holds what it parked or zeros.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn add_parked<const AGAIN: bool>(
        &mut self,
        at: Smem,
        stride: u32,
        factor: [f32; 2],
    ) {
        let mut unit = 0;
        while unit < N / 16 {
            // SAFETY: the caller's contract.
            unsafe { self.add_parked_unit::<AGAIN>(at, stride, factor, unit) }
            unit += 1;
        }
    }

    /// The same for one of the units.
    ///
    /// # Safety
    /// As [`add_parked`](Self::add_parked).
    #[inline(always)]
    #[track_caller]
    pub unsafe fn add_parked_unit<const AGAIN: bool>(
        &mut self,
        at: Smem,
        stride: u32,
        factor: [f32; 2],
        unit: u32,
    ) {
        let at = at.plus(unit * stride);
        // SAFETY: the caller's contract.
        let mut words = unsafe { smem::load_16(at) };
        let mut word = 0;
        while word < 4 {
            let index = 8 * unit as usize + 2 * word;
            let factor = factor[word % 2];
            let [low, high] = bf16_pair(words[word]);
            let low = math::fma(low, factor, self.registers[index]);
            let high = math::fma(high, factor, self.registers[index + 1]);
            self.registers[index] = low;
            self.registers[index + 1] = high;
            if AGAIN {
                words[word] = imp::pack_bf16(low, high);
                let [parked_low, parked_high] = bf16_pair(words[word]);
                self.registers[index] = low - parked_low;
                self.registers[index + 1] = high - parked_high;
            }
            word += 1;
        }
        if AGAIN {
            // SAFETY: the caller's contract.
            unsafe { smem::store_16(at, words) }
        }
    }

    /// Rounds to `T`, in the layout of the next product's A operand.
    #[inline(always)]
    #[track_caller]
    pub fn pack<T: Element>(&self) -> Packed<N> {
        let mut registers = [0; ACCUM_REGISTERS / 2];
        let mut i = 0;
        while i < Self::LEN / 2 {
            registers[i] = T::pack(self.registers[2 * i], self.registers[2 * i + 1]);
            i += 1;
        }
        Packed { registers }
    }
}

impl<const N: u32> Packed<N> {
    /// All zeros.
    #[inline(always)]
    pub fn zero() -> Self {
        Packed { registers: [0; ACCUM_REGISTERS / 2] }
    }

    /// The A operand of the product over columns `16 * step ..`.
    #[inline(always)]
    pub fn operand(&self, step: u32) -> [u32; 4] {
        let at = 4 * step as usize;
        [self.registers[at], self.registers[at + 1], self.registers[at + 2], self.registers[at + 3]]
    }

    /// Writes the tile's rows to global memory, 16 bytes per thread and store.
    ///
    /// A thread holds 4 bytes of each group of eight columns; four groups are transposed inside
    /// the quad, so that each thread owns one whole group and a quad writes 64 bytes in a run.
    ///
    /// # Safety
    /// `row_address(half)` is the 16-byte aligned address of the row's first column, with room for
    /// `column_count` columns (a multiple of 8), if `stored[half]`; no other warp writes the row.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn store_rows(&self, column_count: u32, stored: [bool; 2], row_address: [u64; 2]) {
        let place = imp::thread_index() % 4;
        let mut group = 0;
        while group < N / 8 {
            let mut half = 0;
            while half < 2 {
                let at = 2 * group as usize + half;
                let words = transpose_quad(
                    place,
                    [
                        self.registers[at],
                        self.registers[at + 2],
                        self.registers[at + 4],
                        self.registers[at + 6],
                    ],
                );
                let column = 8 * (group + place);
                if stored[half] && column < column_count {
                    let address = row_address[half] + u64::from(column) * 2;
                    // SAFETY: the caller vouches for the row; columns of one quad are disjoint.
                    unsafe { global::store_16(address, words) }
                }
                half += 1;
            }
            group += 4;
        }
    }
}

/// What a tile's elements become before they are stored: `x * factor[half] + shift * weight[half]`.
#[derive(Clone, Copy)]
pub struct Shifts {
    /// What each row is multiplied with.
    pub factor: [f32; 2],
    /// Address of one float for each column; 0: nothing is added.
    pub address: u64,
    /// How much of it each row gets.
    pub weight: [f32; 2],
}

impl<const N: u32> Accum<N> {
    /// Shifts, rounds and stores the tile's rows as [`Packed::store_rows`] does, 32 columns at a
    /// time, so that few of the shifts take registers at once.
    ///
    /// # Safety
    /// As [`Packed::store_rows`]; the shifts are 8-byte aligned global memory of `N` floats that
    /// nobody writes during the launch.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn store_shifted<T: Element>(
        &self,
        shifts: &Shifts,
        column_count: u32,
        stored: [bool; 2],
        row_address: [u64; 2],
    ) {
        let place = imp::thread_index() % 4;
        let mut first = 0;
        while first < N / 8 {
            let mut words = [[0; 4]; 2];
            let mut group = 0;
            while group < 4 {
                let column = 8 * (first + group as u32) + first_column();
                let mut shift = [0.0; 2];
                if shifts.address != 0 {
                    let address = shifts.address + 4 * u64::from(column);
                    // SAFETY: the caller's contract.
                    shift = unsafe { global::load_f32x2(address) };
                }
                let at = 4 * (first as usize + group);
                let mut half = 0;
                while half < 2 {
                    let of = |part: usize| {
                        let scaled = self.registers[at + 2 * half + part] * shifts.factor[half];
                        math::fma(shift[part], shifts.weight[half], scaled)
                    };
                    words[half][group] = T::pack(of(0), of(1));
                    half += 1;
                }
                group += 1;
            }
            let column = 8 * (first + place);
            let mut half = 0;
            while half < 2 {
                let words = transpose_quad(place, words[half]);
                if stored[half] && column < column_count {
                    let address = row_address[half] + u64::from(column) * 2;
                    // SAFETY: the caller vouches for the row; columns of one quad are disjoint.
                    unsafe { global::store_16(address, words) }
                }
                half += 1;
            }
            first += 4;
        }
    }
}

/// Transposes the 4×4 matrix whose rows are the quad's threads: thread `place` gives its word for
/// each column and gets all words of column `place`.
#[inline(always)]
#[track_caller]
fn transpose_quad(place: u32, words: [u32; 4]) -> [u32; 4] {
    let (a, b) = exchange::<1>(place & 1 != 0, words[0], words[1]);
    let (c, d) = exchange::<1>(place & 1 != 0, words[2], words[3]);
    let (a, c) = exchange::<2>(place & 2 != 0, a, c);
    let (b, d) = exchange::<2>(place & 2 != 0, b, d);
    [a, b, c, d]
}

/// Swaps the off-diagonal of a 2×2 matrix spread over two threads that differ in bit `XOR`.
#[inline(always)]
#[track_caller]
fn exchange<const XOR: u32>(upper: bool, low: u32, high: u32) -> (u32, u32) {
    let received = imp::shuffle_xor::<XOR>(if upper { low } else { high });
    if upper { (received, high) } else { (low, received) }
}
