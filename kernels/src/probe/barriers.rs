//! Barriers: named ones for some of the threads, and phases of mbarriers.

use super::{Probe, copies, mbarrier_at, start};
use fulgurite_gpu::{
    barrier, mbarrier,
    smem::{self, Smem},
    thread, warp,
};
use fulgurite_spec::probes::PROBE_THREADS;

/// Rounds of [`named`].
const ROUNDS: u32 = 4;

/// Every second warp hands 512 bytes a round to the warp after it, each pair with a barrier for
/// "full" and one for "empty", 64 threads each.
///
/// # Safety
/// As many parts of input and of output as there are rounds.
#[inline(always)]
pub unsafe fn named(probe: Probe) {
    let own = thread::index();
    // SAFETY: the two warps of a pair take turns on their slot.
    unsafe {
        let warp = warp::broadcast_first(own / 32);
        let (full, empty) = (1 + warp / 2, 3 + warp / 2);
        let slot = Smem::base().plus(warp / 2 * 512 + own % 32 * 16);
        let mut round = 0;
        while round < ROUNDS {
            if warp.is_multiple_of(2) {
                if round > 0 {
                    barrier::sync(empty, 64);
                }
                smem::store_16(slot, probe.input(round));
                barrier::arrive(full, 64);
            } else {
                barrier::sync(full, 64);
                probe.output(round, smem::load_16(slot));
                if round + 1 < ROUNDS {
                    barrier::arrive(empty, 64);
                }
            }
            round += 1;
        }
    }
}

/// Rounds of [`votes`].
const VOTES: u32 = 8;

/// In each round the two warps of a pair vote at a barrier of their own, then all four at that of
/// the block. A thread votes where its word of the input is odd: the first for its pair, the second
/// for the block. It leaves what it hears, and the first word that another thread of its pair has
/// stored before it voted.
///
/// # Safety
/// As many parts of input and of output as there are rounds.
#[inline(always)]
pub unsafe fn votes(probe: Probe) {
    let own = thread::index();
    // SAFETY: all threads come here; a pair's votes are between a store and the loads of it, the
    // block's between these and the next store.
    unsafe {
        let pair = warp::broadcast_first(own / 64);
        let mut round = 0;
        while round < VOTES {
            let words = probe.input(round);
            smem::store_16(Smem::base().plus(16 * own), words);
            let in_pair = barrier::any(1 + pair, 64, words[0] % 2 == 1);
            let handed = smem::load_16(Smem::base().plus(16 * (own ^ 37)));
            let in_block = barrier::any(0, PROBE_THREADS, words[1] % 2 == 1);
            probe.output(round, [u32::from(in_pair), u32::from(in_block), handed[0], 0]);
            round += 1;
        }
    }
}

/// Boxes of [`phases`].
const BOXES: u32 = 9;

/// Stages of [`phases`].
const STAGES: u32 = 2;

/// Boxes one below the other go through a ring of two stages, so that each barrier has several
/// phases; every thread takes part in giving a stage back.
///
/// # Safety
/// The source has boxes of at most 2048 bytes; as many parts of output as there are boxes.
#[inline(always)]
pub unsafe fn phases(probe: Probe) {
    // SAFETY: the ring orders loads and reads.
    unsafe {
        // "Full" of each stage, then "empty".
        start([1, 1, PROBE_THREADS, PROBE_THREADS]);
        let mut next = 0;
        while next < BOXES + STAGES {
            if next >= STAGES {
                let (stage, round) = ((next - STAGES) % STAGES, (next - STAGES) / STAGES);
                if !mbarrier::is_complete(mbarrier_at(stage), round % 2) {
                    mbarrier::wait(mbarrier_at(stage), round % 2);
                }
                let at = stage_at(stage).plus(16 * thread::index());
                if thread::index() * 16 < probe.scalars.box_bytes {
                    probe.output(next - STAGES, smem::load_16(at));
                }
                mbarrier::arrive(mbarrier_at(STAGES + stage));
            }
            if next < BOXES && thread::index() == 0 {
                let (stage, round) = (next % STAGES, next / STAGES);
                // The first round finds the stages empty.
                mbarrier::wait(mbarrier_at(STAGES + stage), (round + 1) % 2);
                copies::fill(probe, stage_at(stage), mbarrier_at(stage), next);
            }
            next += 1;
        }
    }
}

#[inline(always)]
fn stage_at(stage: u32) -> Smem {
    Smem::base().plus(2048 * stage)
}
