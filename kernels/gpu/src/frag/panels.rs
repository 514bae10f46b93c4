//! Rows of 16-bit elements in shared memory, as one warp's products take them.
//!
//! A *panel* holds 64 columns of some rows, 128 bytes a row; a row's unit of 16 bytes with number
//! `u` lies in place `u ^ (row % 8)`, as TMA's 128-byte swizzle would have it. So neither eight
//! neighbouring units of a row nor one unit of eight neighbouring rows share a bank.

use crate::{
    copy, imp,
    smem::{self, Smem},
};

/// Bytes of a row of a panel.
const ROW_BYTES: u32 = 128;

/// Columns of a panel.
const COLUMNS: u32 = 64;

/// Panels side by side.
#[derive(Clone, Copy)]
pub struct Panels {
    at: Smem,
    bytes: u32,
}

/// Rows in global memory, as one thread of those that copy them sees them: its unit of 16 bytes of
/// every eighth row, or of rows further apart.
#[derive(Clone, Copy)]
pub struct RowsOf {
    /// Address of the thread's first unit.
    from: u64,
    row_bytes: u64,
    /// Columns that there are.
    columns: u32,
}

impl RowsOf {
    /// The rows from `first` on. Row 0 begins at `address`, the next `row_bytes` further on, both
    /// multiples of 16; they have so many columns, a multiple of 8.
    #[inline(always)]
    pub fn new(address: u64, row_bytes: u64, columns: u32, first: u32) -> RowsOf {
        let thread = imp::thread_index();
        let row = u64::from(first + thread / 8);
        RowsOf { from: address + row * row_bytes + u64::from(thread % 8 * 16), row_bytes, columns }
    }

    /// Goes on to rows further up or down.
    #[inline(always)]
    fn go(&mut self, rows: u32, up: bool) {
        let bytes = u64::from(rows) * self.row_bytes;
        self.from = if up { self.from.wrapping_sub(bytes) } else { self.from.wrapping_add(bytes) };
    }
}

impl Panels {
    /// Panels of `rows` rows, a multiple of 8, the first one at `at`, a multiple of 1024.
    #[inline(always)]
    pub const fn new(at: Smem, rows: u32) -> Panels {
        Panels { at, bytes: rows * ROW_BYTES }
    }

    /// Starts copying `ROWS` rows of `WIDTH` columns, of which the first `there` are there. Rows
    /// and columns that are not become zeros.
    ///
    /// # Safety
    /// As [`copy::start_16`] for the panels; all of the block's `threads`, a multiple of 64, call
    /// it, and copy whole rows each time: `ROWS` is a multiple of an eighth of them. The rows and
    /// columns that are there lie in global memory that nobody writes.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn copy<const ROWS: u32, const WIDTH: u32>(
        self,
        mut rows: RowsOf,
        there: u32,
        threads: u32,
    ) {
        let mut below = 0;
        while below < ROWS {
            let is_there = imp::thread_index() / 8 + below < there;
            // SAFETY: the caller's contract.
            unsafe { self.copy_pass::<WIDTH>(&rows, below, is_there) }
            rows.go(threads / 8, false);
            below += threads / 8;
        }
    }

    /// Starts copying the `ROWS` rows above those that `rows` begins with, all of which are there,
    /// and goes on to them. By one distance only, which stays in uniform registers.
    ///
    /// # Safety
    /// As [`copy`](Self::copy).
    #[inline(always)]
    #[track_caller]
    pub unsafe fn copy_above<const ROWS: u32, const WIDTH: u32>(
        self,
        rows: &mut RowsOf,
        threads: u32,
    ) {
        let mut below = ROWS;
        while below > 0 {
            below -= threads / 8;
            rows.go(threads / 8, true);
            // SAFETY: the caller's contract.
            unsafe { self.copy_pass::<WIDTH>(rows, below, true) }
        }
    }

    /// Each thread's units of one row.
    #[inline(always)]
    #[track_caller]
    unsafe fn copy_pass<const WIDTH: u32>(self, rows: &RowsOf, below: u32, is_there: bool) {
        let thread = imp::thread_index();
        let (row, unit) = (thread / 8 + below, thread % 8);
        let to = self.at.plus(row * ROW_BYTES + (unit ^ (row % 8)) * 16);
        let mut panel = 0;
        while panel < const { WIDTH.div_ceil(COLUMNS) } {
            let column = panel * COLUMNS + unit * 8;
            if WIDTH >= (panel + 1) * COLUMNS || column < WIDTH {
                let bytes = if is_there && column < rows.columns { 16 } else { 0 };
                let from = rows.from + u64::from(panel * ROW_BYTES);
                // SAFETY: the caller's contract; each thread has units of its own.
                unsafe { copy::start_16(to.plus(panel * self.bytes), from, bytes) }
            }
            panel += 1;
        }
    }

    /// The panels as A: 16 rows from `first` on, a multiple of 8, 16 columns at a time.
    #[inline(always)]
    pub fn rows_of_a(self, first: u32) -> Matrices<false> {
        Matrices::new(self, first, [8, 1])
    }

    /// The panels as B, whose columns are the panels' rows: 16 of these and 16 columns at a time.
    #[inline(always)]
    pub fn rows_of_b(self) -> Matrices<false> {
        Matrices::new(self, 0, [1, 8])
    }

    /// The panels as B: 16 rows and 16 columns at a time.
    #[inline(always)]
    pub fn columns_of_b(self) -> Matrices<true> {
        Matrices::new(self, 0, [8, 1])
    }
}

/// Panels as operands, four 8×8 matrices at a time.
#[derive(Clone, Copy)]
pub struct Matrices<const TRANSPOSED: bool> {
    /// The row that this thread gives the address of, and the place of its unit.
    own: u32,
    bytes: u32,
}

impl<const TRANSPOSED: bool> Matrices<TRANSPOSED> {
    /// Of the four matrices the second lies 8 rows below the first if `down` is `[8, 1]`, and a
    /// unit to the right of it if that is `[1, 8]`; the third and fourth the other way.
    #[inline(always)]
    fn new(panels: Panels, first: u32, down: [u32; 2]) -> Self {
        let lane = imp::thread_index() % 32;
        let (second, third) = (lane / 8 % 2, lane / 16);
        let (below, unit) = if down[0] == 8 { (second, third) } else { (third, second) };
        let row = first + below * 8 + lane % 8;
        let own = panels.at.0 + row * ROW_BYTES + (unit ^ (lane % 8)) * 16;
        Matrices { own, bytes: panels.bytes }
    }

    /// The same panels `bytes` further on, a multiple of 128.
    #[inline(always)]
    pub fn plus(self, bytes: u32) -> Self {
        Matrices { own: self.own + bytes, ..self }
    }

    /// Loads the matrices `bytes` further on, a multiple of 1024, at the columns `16 step`.
    ///
    /// # Safety
    /// As [`smem::load_matrices`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn load(self, bytes: u32, step: u32) -> [u32; 4] {
        const STEPS: u32 = COLUMNS / 16;
        let inside = self.own ^ ((step % STEPS) * 32);
        let at = Smem(inside).plus(step / STEPS * self.bytes + bytes);
        // SAFETY: the caller's contract.
        unsafe { smem::load_matrices::<TRANSPOSED>(at) }
    }
}

/// Bytes of so many rows of a panel.
pub const fn row_bytes(rows: u32) -> u32 {
    rows * ROW_BYTES
}

/// Rows of the 16 of one warp's products that this thread holds, by half.
#[inline(always)]
#[track_caller]
pub fn rows_of_warp() -> [u32; 2] {
    held(imp::thread_index() % 32 / 4)
}

/// The two rows of a thread, from the first of them.
#[inline(always)]
#[track_caller]
pub(super) fn held(first: u32) -> [u32; 2] {
    let halves = [0, 8];
    let halves = imp::alter(imp::Rows::Held, halves, [0; 2]);
    halves.map(|half| first + half)
}
