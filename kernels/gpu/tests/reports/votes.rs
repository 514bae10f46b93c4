//! `barrier::any`: what everyone hears, and what is said of its misuse.

use fulgurite_gpu::emu::{self, Change, FaultKind, Global, Grid, Mutation, Primitive};
use fulgurite_gpu::smem::{self, Smem};
use fulgurite_gpu::{barrier, thread};

use crate::support::*;

/// Threads of the kernels here.
const THREADS: u32 = 384;

fn vote(voter: bool) -> bool {
    // SAFETY: the tests' threads all come here; what is planted is the emulator's to find.
    unsafe { barrier::any(2, THREADS, voter) }
}

#[test]
fn everyone_hears_of_one_vote() {
    for seed in 0..16 {
        let outcome = run(seed, |_| {
            let index = thread::index();
            // No phase knows of the votes of the one before.
            for voter in [0, 31, 200, THREADS - 1] {
                assert!(!vote(false));
                assert!(vote(index == voter));
                assert!(vote(index != voter));
            }
            assert!(vote(true));
        });
        outcome.expect("nothing is wrong");
    }
}

#[test]
fn barriers_do_not_hear_of_each_others_votes() {
    for seed in 0..16 {
        let outcome = run(seed, |_| {
            let warpgroup = thread::warpgroup();
            for round in 0..6 {
                let voter = thread::index() == 128 * (round % 3) + 77;
                // SAFETY: the warps of a warpgroup share a barrier.
                let any = unsafe { barrier::any(1 + warpgroup, 128, voter) };
                assert_eq!(any, warpgroup == round % 3);
            }
        });
        outcome.expect("nothing is wrong");
    }
}

#[test]
fn a_barrier_may_vote_in_one_phase_and_not_in_another() {
    for seed in 0..16 {
        let outcome = run(seed, |_| {
            assert!(vote(thread::index() == 9));
            // SAFETY: all threads come here.
            unsafe { barrier::sync(2, THREADS) }
            assert!(!vote(false));
        });
        outcome.expect("nothing is wrong");
    }
}

#[test]
fn votes_order_memory() {
    for seed in 0..8 {
        let outcome = run(seed, |_| {
            store_then(true, false);
            vote(false);
            // SAFETY: all stores are before the vote.
            let words = unsafe { smem::load_16(Smem::base().plus(127 * 64)) };
            assert_eq!(words, [127; 4]);
            multiply(Smem::base(), true);
        });
        outcome.expect("nothing is wrong");
    }
}

#[test]
fn votes_mixed_with_other_arrivals() {
    let words = ["barrier 2 phase 0 ", "a vote, but others came "];
    // SAFETY: planted, as below.
    let sync = || unsafe { barrier::sync(2, THREADS) };
    // SAFETY: planted.
    let arrive = || unsafe { barrier::arrive(2, THREADS) };
    for warpgroup in 0..3 {
        expect(FaultKind::Barrier, &words, |_| match thread::warpgroup() == warpgroup {
            true => sync(),
            false => _ = vote(true),
        });
        expect(FaultKind::Barrier, &words, |_| match thread::warpgroup() == warpgroup {
            true => arrive(),
            false => _ = vote(true),
        });
    }
}

#[test]
fn votes_with_wrong_counts() {
    // SAFETY: planted, as below.
    let count = |count: u32| move |_| _ = unsafe { barrier::any(3, count, true) };
    let misused = FaultKind::Barrier;
    expect(misused, &["barrier::any", "barrier 3", "multiple of 32"], count(100));
    expect(misused, &["barrier::any", "for 416 threads"], count(416));
    expect(misused, &["barrier::any", "others came for"], |map| {
        count(128 + thread::warpgroup() * 128)(map)
    });
    expect(misused, &["barrier 16: 0 to 15"], |_| {
        // SAFETY: planted.
        unsafe { barrier::any(16, THREADS, true) };
    });
    expect(FaultKind::Divergence, &["barrier::any", "with other operands"], |_| {
        // SAFETY: planted.
        unsafe { barrier::any(1 + thread::index() % 2, 128, true) };
    });
    let words = ["barrier::any at ", "reports/votes.rs:", "phase 0, 256 of 384 threads have come"];
    expect(FaultKind::Deadlock, &words, |_| {
        if thread::warpgroup() != 1 {
            vote(false);
        }
    });
}

#[test]
fn who_does_not_come_hears_of_itself() {
    let global = Global::new();
    let grid = Grid {
        blocks: 1,
        threads: 128,
        smem_bytes: 1024,
        parameters: (0, 0),
        global: &global,
        seed: 0,
        mutation: None,
        record: true,
        accumulator: emu::Accumulator::default(),
    };
    let kernel = |alone: bool| {
        let voter = thread::index() == 40;
        // SAFETY: all threads come here.
        let any = unsafe { barrier::any(1, 128, voter) };
        assert_eq!(any, voter || !alone);
    };
    let outcome = emu::launch(&grid, &|| kernel(false)).expect("nothing is wrong");
    let mutations: Vec<Mutation> = outcome.sites.iter().flat_map(|site| site.mutations()).collect();
    let changes: Vec<Change> = mutations.iter().map(|mutation| mutation.change).collect();
    assert_eq!(changes, [Change::Drop, Change::More, Change::Less]);
    assert_eq!(mutations[0].site.primitive, Primitive::BarrierAny);
    let run = |mutation, alone| {
        emu::launch(&Grid { mutation: Some(mutation), ..grid }, &|| kernel(alone))
    };
    run(mutations[0], true).expect("every thread hears of its own vote");
    let more = run(mutations[1], false).expect_err("160 threads are not there");
    check(&more, FaultKind::Barrier, &["barrier 1 for 160 threads"]);
    let less = run(mutations[2], false).expect_err("the last warp waits for ever");
    check(&less, FaultKind::Deadlock, &["barrier 1 phase 1, 32 of 96 threads"]);
}
