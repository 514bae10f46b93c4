//! Warpgroup products on small integers, whose sums are exact in any order.
//!
//! Shared memory holds blocks of 64 rows of 64 elements, 8192 bytes each: A, then as many of B as
//! the width takes. Read along its rows B is the operand of `S = A Bᵀ`, read as panels of columns
//! that of `O = S B`.

use super::{Probe, copies, mbarrier_at, start};
use fulgurite_gpu::{
    barrier,
    element::{Bf16, Element},
    fence,
    frag::{self, Accum},
    mbarrier,
    smem::Smem,
    thread, tma,
    wgmma::{self, Operand},
};

/// Bytes of 64 rows of 64 elements.
const BLOCK_BYTES: u32 = 64 * 64 * 2;

/// Elements of a step along K in a panel's row, in bytes.
const STEP_BYTES: u32 = 16 * 2;

/// Both products of blocks that the copy engine loads.
///
/// # Safety
/// The source has boxes of 64 rows; the output has room for S and O, 16 bits an element.
#[inline(always)]
pub unsafe fn of_loads<T: Element, const N: u32>(probe: Probe) {
    // SAFETY: everyone waits for all blocks.
    unsafe {
        start([1]);
        if thread::index() == 0 {
            let blocks = 1 + N.div_ceil(64);
            mbarrier::arrive_expect(mbarrier_at(0), blocks * BLOCK_BYTES);
            let mut block = 0;
            while block < blocks {
                let to = Smem::base().plus(block * BLOCK_BYTES);
                tma::load(
                    to,
                    probe.source,
                    mbarrier_at(0),
                    [0, 64 * block, 0, 0],
                    tma::Keep::Short,
                );
                block += 1;
            }
        }
        mbarrier::wait(mbarrier_at(0), 0);
        multiply::<T, N>(probe);
    }
}

/// Both products of blocks that threads store.
///
/// # Safety
/// The input holds the two blocks, the box; the output has room for S and O.
#[inline(always)]
pub unsafe fn of_stores(probe: Probe) {
    // SAFETY: the fence and the barrier are before the products.
    unsafe {
        copies::put(probe, true);
        fence::proxy_async();
        barrier::sync_all();
        multiply::<Bf16, 64>(probe);
    }
}

/// Computes S and O and writes them one after the other.
///
/// # Safety
/// The blocks are in shared memory, known to everyone and to the tensor core.
#[inline(always)]
#[track_caller]
unsafe fn multiply<T: Element, const N: u32>(probe: Probe) {
    let (a, b) = (Smem::base(), Smem::base().plus(BLOCK_BYTES));
    let mut scores = Accum::<N>::zero();
    // SAFETY: all threads are here, the blocks stay as they are.
    unsafe {
        wgmma::begin(&mut scores);
        let (a, rows) = (Operand::k_major(a), Operand::k_major(b));
        wgmma::issue_ss::<T, N, false>(&mut scores, a, rows);
        let mut step = 1;
        while step < 4 {
            let offset = step * STEP_BYTES;
            wgmma::issue_ss::<T, N, true>(&mut scores, a.plus(offset), rows.plus(offset));
            step += 1;
        }
        wgmma::commit();
        wgmma::wait::<0, N>(&mut scores);

        let mut packed = scores.pack::<T>();
        let mut out = Accum::<N>::zero();
        let panels = Operand::n_major(b, BLOCK_BYTES);
        wgmma::begin_rs(&mut packed, &mut out);
        let mut step = 0;
        while step < 4 {
            let rows = panels.plus(step * 16 * 128);
            wgmma::issue_rs::<T, N>(&mut out, packed.operand(step), rows);
            step += 1;
        }
        wgmma::commit();
        wgmma::wait::<0, N>(&mut out);
        let address = |row: u32| probe.scalars.out + u64::from(row * N * 2);
        let rows = frag::rows();
        packed.store_rows(N, [true; 2], rows.map(address));
        out.pack::<T>().store_rows(N, [true; 2], rows.map(|row| address(64 + row)));
    }
}
