//! 8-bit elements: conversions, and products of fractions that the tensor core cuts off.
//!
//! Shared memory holds A, 64 rows of 128 bytes, then B, as many rows as the width takes in blocks
//! of 64, each as panels side by side. All of B is the operand of `S = A Bᵀ`; what it has in the
//! columns up to its number of rows is that of `O = P Bᵀ`, P being S in 8 bits.

use super::{Probe, mbarrier_at, start};
use fulgurite_gpu::{
    element8::{E4m3, Element8, S8},
    frag::{Accum, IntegerAccum},
    math, mbarrier,
    smem::Smem,
    thread, tma,
    wgmma::{self, Operand, PanelWidth},
};

/// Rounds of [`conversions`].
const ROUNDS: u32 = 3;

/// Rounds the thread's four floats to e4m3 and to integers, reads two e4m3, and takes the larger of
/// two floats.
///
/// # Safety
/// As many parts of output as there are rounds, twice as many of input.
#[inline(always)]
pub unsafe fn conversions(probe: Probe) {
    let mut round = 0;
    while round < ROUNDS {
        let [a, b, c, d] = probe.input(2 * round).map(f32::from_bits);
        let pair = probe.input(2 * round + 1)[0] as u16;
        let integers = S8::pack([a, b, c, d].map(math::nearest));
        let rounded = E4m3::join(E4m3::pack(a, b), E4m3::pack(c, d));
        let larger = math::max_nan(a, b).to_bits();
        probe.output(round, [rounded, E4m3::unpack(pair), integers, larger]);
        round += 1;
    }
}

/// Bytes of a row of A and B.
const ROW_BYTES: u32 = 128;

/// Bytes of 64 rows.
const BLOCK_BYTES: u32 = 64 * ROW_BYTES;

/// Bytes of a step along K.
const STEP_BYTES: u32 = 32;

/// S and O of e4m3, each as the words of the threads' groups of columns.
///
/// # Safety
/// The source has boxes of 64 rows of `PANEL` bytes; the output has room for S and O.
#[inline(always)]
pub unsafe fn of_e4m3<const N: u32, const PANEL: u32>(probe: Probe) {
    let mut scores = Accum::<N>::zero();
    // SAFETY: all threads are here and have waited for the blocks, which stay as they are.
    unsafe {
        load::<N, PANEL>(probe);
        wgmma::begin(&mut scores);
        add::<E4m3, N, PANEL, false>(&mut scores);
        wgmma::commit();
        wgmma::wait::<0, N>(&mut scores);
        write(probe, 0, &scores);

        let mut packed = scores.pack_e4m3();
        let mut out = Accum::<N>::zero();
        wgmma::begin_rs_bytes(&mut packed, &mut out);
        let mut step = 0;
        while step * STEP_BYTES < N && step * STEP_BYTES < ROW_BYTES {
            let rows = operand::<PANEL>(BLOCK_BYTES, rows(N), step);
            wgmma::issue_rs_e4m3(&mut out, packed.operand(step), rows, step > 0);
            step += 1;
        }
        wgmma::commit();
        wgmma::wait::<0, N>(&mut out);
        write(probe, N / 8, &out);
    }
}

/// Writes this thread's groups of columns, from the output's part `first` on.
#[inline(always)]
#[track_caller]
fn write<const N: u32>(probe: Probe, first: u32, matrix: &Accum<N>) {
    let mut group = 0;
    while group < N / 8 {
        probe.output(first + group, matrix.group(group).map(f32::to_bits));
        group += 1;
    }
}

/// S of integers, added up twice, as in [`of_e4m3`]; then the same as floats.
///
/// # Safety
/// As [`of_e4m3`].
#[inline(always)]
pub unsafe fn of_s8<const N: u32, const PANEL: u32>(probe: Probe) {
    let mut sums = IntegerAccum::<N>::zero();
    // SAFETY: all threads are here and have waited for the blocks, which stay as they are.
    unsafe {
        load::<N, PANEL>(probe);
        wgmma::begin_integers(&mut sums);
        add::<S8, N, PANEL, false>(&mut sums);
        add::<S8, N, PANEL, true>(&mut sums);
        wgmma::commit();
        wgmma::wait_integers::<0, N>(&mut sums);
    }
    let mut group = 0;
    while group < N / 8 {
        probe.output(group, sums.group(group).map(|sum| sum as u32));
        group += 1;
    }
    write(probe, N / 8, &sums.to_floats());
}

/// Rows of the blocks that hold a B of this width.
#[inline(always)]
const fn rows(width: u32) -> u32 {
    width.next_multiple_of(64)
}

/// Loads A and B, and waits for them.
///
/// # Safety
/// All threads call it, once.
#[inline(always)]
#[track_caller]
unsafe fn load<const N: u32, const PANEL: u32>(probe: Probe) {
    // SAFETY: every box has room of its own; all threads wait for all of them.
    unsafe {
        start([1]);
        if thread::index() == 0 {
            mbarrier::arrive_expect(mbarrier_at(0), (64 + rows(N)) * ROW_BYTES);
            let mut row = 0;
            while row < 64 + rows(N) {
                let mut panel = 0;
                while panel * PANEL < ROW_BYTES {
                    let offset = match row {
                        0 => panel * 64 * PANEL,
                        _ => BLOCK_BYTES + (panel * rows(N) + row - 64) * PANEL,
                    };
                    let (to, column) = (Smem::base().plus(offset), panel * PANEL / 2);
                    let at = [column, row, 0, 0];
                    tma::load(to, probe.source, mbarrier_at(0), at, tma::Keep::Short);
                    panel += 1;
                }
                row += 64;
            }
        }
        mbarrier::wait(mbarrier_at(0), 0);
    }
}

/// The operand of a step along K: panels of this many rows, the first of them at `offset`.
#[inline(always)]
fn operand<const PANEL: u32>(offset: u32, rows: u32, step: u32) -> Operand {
    let width = match PANEL {
        128 => PanelWidth::Bytes128,
        64 => PanelWidth::Bytes64,
        _ => PanelWidth::Bytes32,
    };
    let panel = Smem::base().plus(offset + step * STEP_BYTES / PANEL * rows * PANEL);
    Operand::k_major_in(panel, width).plus(step * STEP_BYTES % PANEL)
}

/// Issues the products of `S (+)= A Bᵀ`.
///
/// # Safety
/// All threads call it behind the opening of products, with the blocks in shared memory.
#[inline(always)]
#[track_caller]
unsafe fn add<T: Element8, const N: u32, const PANEL: u32, const ADD: bool>(sums: &mut T::Sums<N>) {
    let mut step = 0;
    while step * STEP_BYTES < ROW_BYTES {
        let a = operand::<PANEL>(0, 64, step);
        let b = operand::<PANEL>(BLOCK_BYTES, rows(N), step);
        // SAFETY: the caller's contract.
        unsafe {
            if step == 0 {
                wgmma::issue_ss_bytes::<T, N, ADD>(sums, a, b);
            } else {
                wgmma::issue_ss_bytes::<T, N, true>(sums, a, b);
            }
        }
        step += 1;
    }
}
