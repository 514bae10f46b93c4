//! Copies of threads.

use fulgurite_gpu::emu::FaultKind;
use fulgurite_gpu::smem::{self, Smem};
use fulgurite_gpu::{copy, thread};

use crate::support::*;

/// The 16 bytes of a thread.
fn unit(thread: u32) -> Smem {
    Smem::base().plus(16 * thread)
}

/// Every thread copies 16 bytes of the tensor.
fn copy_own() {
    let own = thread::index();
    // SAFETY: what the tests plant is the emulator's to find; so in all closures below.
    unsafe { copy::start_16(unit(own), TENSOR + u64::from(own * 16), 16) }
}

#[test]
fn a_right_copy_is_there_after_wait_and_barrier() {
    for seed in 0..16 {
        let tensor = run_storing(seed, |_| {
            let own = thread::index();
            copy_own();
            copy::commit();
            // SAFETY: these 16 bytes are the thread's own, and another group's.
            unsafe { copy::start_16(unit(384 + own), TENSOR, 0) }
            copy::commit();
            copy::wait::<1>();
            barrier_for_all();
            // SAFETY: a wait and a barrier are behind the copy.
            assert_eq!(unsafe { smem::load_16(unit(own ^ 1)) }, [0; 4]);
            copy::wait::<0>();
            // SAFETY: the thread has waited for its own copy.
            assert_eq!(unsafe { smem::load_16(unit(384 + own)) }, [0; 4]);
        });
        tensor.expect("nothing is wrong");
    }
}

#[test]
fn copies_that_nothing_orders() {
    let read = |other: u32| {
        // SAFETY: planted.
        unsafe { smem::load_16(unit(thread::index() ^ other)) };
    };
    expect(FaultKind::Race, &["smem::load_16", "nothing it waited for"], |_| {
        copy_own();
        copy::commit();
        read(0);
    });
    expect(FaultKind::Race, &["smem::load_16", "nothing it waited for"], |_| {
        copy_own();
        copy::commit();
        copy::wait::<1>();
        barrier_for_all();
        read(1);
    });
    expect(FaultKind::Race, &["smem::load_16", "nothing it waited for"], |_| {
        copy_own();
        copy::wait::<0>();
        barrier_for_all();
        read(1);
    });
    expect(FaultKind::Race, &["smem::load_16", "nothing it waited for"], |_| {
        copy_own();
        copy::commit();
        barrier_for_all();
        copy::wait::<0>();
        read(1);
    });
    // By whoever comes second, who copies over or who reads.
    expect(FaultKind::Race, &[], |_| {
        copy_own();
        copy::commit();
        copy::wait::<0>();
        barrier_for_all();
        read(1);
        copy_own();
    });
    expect(FaultKind::Race, &["copy::start_16", "may still write"], |_| {
        copy_own();
        copy::commit();
        copy_own();
    });
}

#[test]
fn copies_that_are_left_open_or_malformed() {
    expect(FaultKind::Unfinished, &["copy::start_16", "has not waited"], |_| {
        copy_own();
        copy::commit();
    });
    let start = |to: u32, from: u64, bytes: u32| {
        move |_| {
            // SAFETY: planted.
            unsafe { copy::start_16(Smem::base().plus(to + 16 * thread::index()), from, bytes) }
            copy::commit();
            copy::wait::<0>();
        }
    };
    expect(FaultKind::Malformed, &["source of 8 bytes"], start(0, TENSOR, 8));
    expect(FaultKind::Malformed, &["no multiple of 16"], start(0, TENSOR + 8, 16));
    expect(FaultKind::Malformed, &["no multiple of 16"], start(8, TENSOR, 16));
    expect(FaultKind::OutOfBounds, &["shared memory at"], start(1 << 20, TENSOR, 16));
    expect(FaultKind::OutOfBounds, &["no range"], start(0, TENSOR - 16, 16));
}
