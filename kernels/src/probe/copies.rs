//! The copy engine: loads, stores, and stores of what was loaded.

use super::{Probe, mbarrier_at, start};
use fulgurite_gpu::{
    barrier, fence, mbarrier,
    smem::{self, Smem},
    thread, tma,
};
use fulgurite_spec::probes::PROBE_THREADS;

/// Loads the box, and shows the shared memory that it takes.
///
/// # Safety
/// The output has room for the box.
#[inline(always)]
pub unsafe fn load(probe: Probe) {
    // SAFETY: everyone waits for the box before reading it.
    unsafe {
        start([1]);
        if thread::index() == 0 {
            tma::prefetch(probe.source);
            fill(probe, Smem::base(), mbarrier_at(0), 0);
        }
        mbarrier::wait(mbarrier_at(0), 0);
        let mut part = 0;
        while part * PROBE_THREADS * 16 < probe.scalars.box_bytes {
            let offset = (part * PROBE_THREADS + thread::index()) * 16;
            if offset < probe.scalars.box_bytes {
                probe.output(part, smem::load_16(Smem::base().plus(offset)));
            }
            part += 1;
        }
    }
}

/// Stores the input as the box, and overwrites it as soon as it has been read.
///
/// # Safety
/// The input holds the box as it lies in shared memory.
#[inline(always)]
pub unsafe fn store(probe: Probe) {
    // SAFETY: the fence and the barrier are before the store, its reading before the overwriting.
    unsafe {
        put(probe, true);
        fence::proxy_async();
        barrier::sync_all();
        if thread::index() == 0 {
            tma::store(probe.target, Smem::base(), probe.scalars.at);
            tma::commit_stores();
            tma::wait_stores_read::<0>();
        }
        barrier::sync_all();
        put(probe, false);
        if thread::index() == 0 {
            tma::wait_stores::<0>();
        }
    }
}

/// Writes the box of the input, or zeros, to the start of shared memory.
///
/// # Safety
/// Nobody reads or writes the box meanwhile.
#[inline(always)]
#[track_caller]
pub unsafe fn put(probe: Probe, input: bool) {
    let mut part = 0;
    while part * PROBE_THREADS * 16 < probe.scalars.box_bytes {
        let offset = (part * PROBE_THREADS + thread::index()) * 16;
        if offset < probe.scalars.box_bytes {
            let words = if input { probe.input(part) } else { [0; 4] };
            // SAFETY: every thread has its own bytes.
            unsafe { smem::store_16(Smem::base().plus(offset), words) }
        }
        part += 1;
    }
}

/// Boxes of [`relay`].
const BOXES: u32 = 5;

/// One thread moves boxes from one tensor to the other through two buffers: each is loaded again
/// when the store from it has read it, while the other's store may still be under way.
///
/// # Safety
/// Both tensors have boxes of at most 8192 bytes.
#[inline(always)]
pub unsafe fn relay(probe: Probe) {
    // SAFETY: loads wait for stores' reading, stores for loads.
    unsafe {
        start([1, 1]);
        if thread::index() != 0 {
            return;
        }
        let mut next = 0;
        while next < BOXES {
            let (buffer, round) = (next % 2, next / 2);
            let at = Smem::base().plus(8192 * buffer);
            tma::wait_stores_read::<1>();
            fill(probe, at, mbarrier_at(buffer), next);
            mbarrier::wait(mbarrier_at(buffer), round % 2);
            // The rows go to the places of the boxes counted from the end.
            tma::store(probe.target, at, below(probe, BOXES - 1 - next));
            tma::commit_stores();
            next += 1;
        }
        tma::wait_stores::<0>();
    }
}

/// Loads the box that lies `boxes` boxes below the one that is meant.
///
/// # Safety
/// One thread calls it; nobody uses the room meanwhile.
#[inline(always)]
#[track_caller]
pub unsafe fn fill(probe: Probe, to: Smem, bar: Smem, boxes: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        mbarrier::arrive_expect(bar, probe.scalars.box_bytes);
        tma::load(to, probe.source, bar, below(probe, boxes), tma::Keep::Short);
    }
}

/// Rows of the boxes that lie one below the other.
const BOX_ROWS: u32 = 8;

#[inline(always)]
fn below(probe: Probe, boxes: u32) -> [u32; 4] {
    let [column, row, head, batch] = probe.scalars.at;
    [column, row + boxes * BOX_ROWS, head, batch]
}
