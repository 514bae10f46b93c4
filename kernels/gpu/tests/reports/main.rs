//! Planted errors in tiny kernels: what the emulator says of each.

mod bytes;
mod copies;
mod stores;
mod support;
mod votes;

use fulgurite_gpu::element::Bf16;
use fulgurite_gpu::emu::FaultKind;
use fulgurite_gpu::frag::Accum;
use fulgurite_gpu::registers::{self, Budget};
use fulgurite_gpu::smem::{self, Smem};
use fulgurite_gpu::tma;
use fulgurite_gpu::wgmma::{self, Operand};
use fulgurite_gpu::{barrier, global, mbarrier, thread};
use fulgurite_spec::TensorMap;
use support::*;

#[test]
fn a_right_kernel_is_not_reported() {
    for seed in 0..16 {
        let outcome = run(seed, |map| {
            let bar = start(true);
            load(map, bar, Smem::base(), BOX_BYTES);
            wait(bar);
            multiply(Smem::base(), true);
        });
        let stats = outcome.expect("nothing is wrong").stats;
        assert_eq!((stats.products, stats.copies, stats.copy_bytes), (1, 1, 8192));
    }
}

#[test]
fn deadlocks() {
    let words =
        ["mbarrier::wait at ", "reports/support.rs:", "parity 0 of full[0]", "misses 1 of 1"];
    expect(FaultKind::Deadlock, &words, |_| wait(start(true)));
    expect(FaultKind::Deadlock, &["-16 bytes", "full[0]"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES - 16);
        wait(bar);
    });
}

#[test]
fn barriers_with_wrong_counts() {
    // SAFETY: what is planted is the emulator's to find; so in all closures below.
    let named =
        |count: fn(u32) -> u32| move |_| unsafe { barrier::sync(3, count(thread::index())) };
    expect(FaultKind::Barrier, &["barrier 3", "multiple of 32"], named(|_| 100));
    expect(FaultKind::Barrier, &["others came for"], named(|index| 128 + index / 128 * 128));
    expect(FaultKind::Barrier, &["full[0] phase 0 is over-arrived", "bytes are missing"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), 2 * BOX_BYTES);
        // SAFETY: planted.
        unsafe {
            if thread::index() == 0 {
                mbarrier::arrive(bar);
            }
        }
    });
    expect(FaultKind::Barrier, &["never initialised"], |_| wait(Smem::base().plus(8)));
}

#[test]
fn addresses_out_of_bounds() {
    expect(FaultKind::OutOfBounds, &["tma::load", "shared memory at"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base().plus(BOX_BYTES + 1024), BOX_BYTES);
    });
    let store = |address: u64| {
        move |_| {
            if thread::index() == 7 {
                // SAFETY: planted.
                unsafe { global::store_f32(address, 1.0) }
            }
        }
    };
    expect(FaultKind::OutOfBounds, &["warp 0, lane 7", "no range"], store(OUT + 1024));
    expect(FaultKind::OutOfBounds, &["tensor, which is read-only"], store(TENSOR));
    expect(FaultKind::Malformed, &["not a multiple"], store(OUT + 2));
    let short = run_with(map(256), 0, |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES);
        wait(bar);
    });
    let fault = short.expect_err("the tensor ends before its last row");
    check(&fault, FaultKind::OutOfBounds, &["tma::load", "tensor [0x"]);
}

#[test]
fn races() {
    expect(FaultKind::Race, &["of out, which thread"], |_| {
        // SAFETY: planted.
        unsafe { global::store_f32(OUT, 1.0) }
    });
    expect(FaultKind::Race, &["wgmma::issue", "copy issued at", "complete"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES);
        barrier_for_all();
        multiply(Smem::base(), true);
    });
    expect(FaultKind::Race, &["no mbarrier::fence_init"], |map| {
        let bar = start(false);
        load(map, bar, Smem::base(), BOX_BYTES);
    });
    expect(FaultKind::Race, &["writes the buffer", "may still read"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES);
        wait(bar);
        multiply(Smem::base(), false);
        barrier_for_all();
        load(map, bar, Smem::base(), BOX_BYTES);
    });
    expect(FaultKind::Race, &["into which a copy", "may still write"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES);
        if thread::index() == 0 {
            // SAFETY: planted.
            unsafe { tma::load(Smem::base().plus(1024), map, bar, [0; 4], tma::Keep::Short) }
        }
    });
}

#[test]
fn stores_are_seen_after_a_barrier() {
    for seed in 0..8 {
        let outcome = run(seed, |_| {
            store_then(true, true);
            // SAFETY: all stores are before the barrier.
            let words = unsafe { smem::load_16(Smem::base().plus(127 * 64)) };
            assert_eq!(words, [127; 4]);
            multiply(Smem::base(), true);
        });
        outcome.expect("nothing is wrong");
    }
    expect(FaultKind::Race, &["smem::load_16", "a store at "], |_| {
        store_then(true, false);
        if thread::index() == 31 {
            // SAFETY: planted.
            unsafe { smem::load_16(Smem::base()) };
        }
    });
    expect(FaultKind::Race, &["smem::store_16", "may still write"], |_| {
        // SAFETY: planted.
        unsafe { smem::store_16(Smem::base(), [0; 4]) }
    });
    expect(FaultKind::Uninitialised, &["smem::load_16", "nobody wrote"], |_| {
        // SAFETY: planted.
        unsafe { smem::load_16(Smem::base()) };
    });
    expect(FaultKind::Malformed, &["no multiple of 16"], |_| {
        // SAFETY: planted.
        unsafe { smem::load_16(Smem::base().plus(4)) };
    });
}

#[test]
fn engines_need_a_proxy_fence() {
    expect(FaultKind::Race, &["wgmma::issue", "no fence::proxy_async"], |_| {
        store_then(false, true);
        multiply(Smem::base(), true);
    });
    expect(FaultKind::Race, &["wgmma::issue", "a store at "], |_| {
        store_then(true, false);
        multiply(Smem::base(), true);
    });
    expect(FaultKind::Race, &["tma::load", "which a thread has read"], |map| {
        let bar = start(true);
        store_then(true, true);
        // SAFETY: all stores are before the barrier.
        unsafe { smem::load_16(Smem::base()) };
        load(map, bar, Smem::base(), BOX_BYTES);
    });
}

#[test]
fn shared_memory_that_nobody_wrote() {
    expect(FaultKind::Uninitialised, &["wgmma::issue", "nobody wrote"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES);
        wait(bar);
        multiply(Smem::base().plus(BOX_BYTES), true);
    });
}

#[test]
fn collectives_that_not_all_reach() {
    expect(FaultKind::Divergence, &["shuffle", "thread 5 has ended"], |_| {
        if thread::index() != 5 {
            thread::warpgroup();
        }
    });
    expect(FaultKind::Divergence, &["instead, or with other operands"], |_| {
        // SAFETY: planted.
        unsafe { barrier::sync(1 + thread::index() % 2, 128) }
    });
}

struct Odd;
impl Budget for Odd {
    const REGISTERS: u32 = 100;
}

struct Most;
impl Budget for Most {
    const REGISTERS: u32 = 256;
}

#[test]
fn register_budgets() {
    // SAFETY: planted.
    expect(FaultKind::Registers, &["100 registers"], |_| unsafe {
        registers::shrink_to::<Odd>();
    });
    expect(FaultKind::Deadlock, &["registers::grow_to", "of the block are free"], |_| {
        // SAFETY: planted.
        unsafe { registers::grow_to::<Most>() }
    });
}

#[test]
fn operands_that_are_not_well_formed() {
    expect(FaultKind::Malformed, &["tma::load", "no multiple of 1024"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base().plus(128), BOX_BYTES);
    });
    expect(FaultKind::Malformed, &["tma::load", "column -4, which is no multiple"], |map| {
        let bar = start(true);
        // SAFETY: planted.
        unsafe {
            tma::load(Smem::base(), map, bar, [4_u32.wrapping_neg(), 0, 0, 0], tma::Keep::Short)
        }
    });
    expect(FaultKind::Malformed, &["base offset"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES);
        wait(bar);
        multiply(Smem::base().plus(128), true);
    });
    let odd = run_with(map(120), 0, tma::prefetch).expect_err("a stride of 120 bytes");
    check(&odd, FaultKind::Malformed, &["no multiple of 16 bytes"]);
    let foreign = run_with(TensorMap([7; 16]), 0, tma::prefetch).expect_err("no map at all");
    check(&foreign, FaultKind::Malformed, &["no tensor map"]);
}

#[test]
fn registers_of_products_in_flight() {
    let after = |kernel: fn(&mut Accum<64>, Operand)| {
        move |map| {
            let bar = start(true);
            load(map, bar, Smem::base(), BOX_BYTES);
            wait(bar);
            if thread::warpgroup() == 0 {
                kernel(&mut Accum::zero(), Operand::k_major(Smem::base()));
            }
        }
    };
    // SAFETY: planted, in all three.
    expect(
        FaultKind::Fragment,
        &["no wgmma::begin"],
        // SAFETY: planted.
        after(|acc, at| unsafe {
            wgmma::issue_ss::<Bf16, 64, false>(acc, at, at);
        }),
    );
    expect(
        FaultKind::Fragment,
        &["was not waited for"],
        // SAFETY: planted.
        after(|acc, at| unsafe {
            wgmma::begin(acc);
            wgmma::issue_ss::<Bf16, 64, false>(acc, at, at);
            wgmma::commit();
            wgmma::begin(acc);
        }),
    );
    expect(
        FaultKind::Fragment,
        &["was written while"],
        // SAFETY: planted.
        after(|acc, at| unsafe {
            wgmma::begin(acc);
            wgmma::issue_ss::<Bf16, 64, false>(acc, at, at);
            acc.scale_rows([2.0; 2]);
            *acc = Accum::zero();
            wgmma::commit();
            wgmma::wait::<0, 64>(acc);
        }),
    );
}

#[test]
fn what_is_left_open() {
    expect(FaultKind::Unfinished, &["tma::load", "nobody has waited"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES);
    });
    expect(FaultKind::Unfinished, &["never waited for"], |map| {
        let bar = start(true);
        load(map, bar, Smem::base(), BOX_BYTES);
        wait(bar);
        multiply(Smem::base(), false);
    });
    expect(FaultKind::Unfinished, &["128 threads are left in barrier 2"], |_| {
        if thread::warpgroup() == 0 {
            // SAFETY: planted.
            unsafe { barrier::arrive(2, 384) }
        }
    });
}

#[test]
fn panics_of_the_kernel() {
    expect(FaultKind::Panic, &["warp 1, lane 1", "a planted panic"], |_| {
        assert_ne!(thread::index(), 33, "a planted panic");
    });
}
