//! Shared memory between threads: plain accesses and matrices.

use super::Probe;
use fulgurite_gpu::{
    barrier,
    smem::{self, Smem},
    thread,
};

/// Every thread loads what another stored, in its own warp and in another.
///
/// # Safety
/// Two parts of output, one of input.
#[inline(always)]
pub unsafe fn exchange(probe: Probe) {
    let own = thread::index();
    // SAFETY: a barrier lies between all stores and all loads.
    unsafe {
        smem::store_16(unit(own), probe.input(0));
        barrier::sync_all();
        probe.output(0, smem::load_16(unit(own ^ 21)));
        probe.output(1, smem::load_16(unit(own ^ 106)));
    }
}

/// Stores matrices, plain or transposed, and loads them plain, transposed and row by row, with the
/// rows in another order.
///
/// # Safety
/// Three parts of output, one of input.
#[inline(always)]
pub unsafe fn matrices<const TRANSPOSED: bool>(probe: Probe) {
    let own = thread::index();
    // SAFETY: a barrier lies between all stores and all loads; all threads come here.
    unsafe {
        smem::store_matrices::<TRANSPOSED>(unit(own ^ 42), probe.input(0));
        barrier::sync_all();
        probe.output(0, smem::load_16(unit(own)));
        probe.output(1, smem::load_matrices::<false>(unit(own ^ 37)));
        probe.output(2, smem::load_matrices::<true>(unit(own ^ 90)));
    }
}

/// The 16 bytes with this index.
#[inline(always)]
fn unit(index: u32) -> Smem {
    Smem::base().plus(16 * index)
}
