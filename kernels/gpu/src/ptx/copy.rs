//! The copy engine.

use core::arch::asm;

#[inline(always)]
pub unsafe fn tma_prefetch(map: u64) {
    unsafe { asm!("prefetch.tensormap [{0}];", in(reg64) map, options(nostack)) }
}

#[inline(always)]
pub unsafe fn tma_load_4d(to: u32, map: u64, bar: u32, at: [u32; 4]) {
    unsafe {
        asm!(
            "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes \
             [{to}], [{map}, {{{x}, {y}, {z}, {w}}}], [{bar}];",
            to = in(reg32) to, map = in(reg64) map, bar = in(reg32) bar,
            x = in(reg32) at[0], y = in(reg32) at[1], z = in(reg32) at[2], w = in(reg32) at[3],
            options(nostack),
        );
    }
}

#[inline(always)]
pub unsafe fn tma_store_4d(map: u64, from: u32, at: [u32; 4]) {
    unsafe {
        asm!(
            "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group \
             [{map}, {{{x}, {y}, {z}, {w}}}], [{from}];",
            map = in(reg64) map, from = in(reg32) from,
            x = in(reg32) at[0], y = in(reg32) at[1], z = in(reg32) at[2], w = in(reg32) at[3],
            options(nostack),
        );
    }
}

#[inline(always)]
pub unsafe fn tma_store_commit() {
    unsafe { asm!("cp.async.bulk.commit_group;", options(nostack)) }
}

#[inline(always)]
pub unsafe fn tma_store_wait<const PENDING: u32>() {
    unsafe { asm!("cp.async.bulk.wait_group {0};", const PENDING, options(nostack)) }
}

#[inline(always)]
pub unsafe fn tma_store_wait_read<const PENDING: u32>() {
    unsafe { asm!("cp.async.bulk.wait_group.read {0};", const PENDING, options(nostack)) }
}
