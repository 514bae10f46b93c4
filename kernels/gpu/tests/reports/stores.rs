//! Stores of the copy engine, and matrices between shared memory and registers.

use fulgurite_gpu::emu::FaultKind;
use fulgurite_gpu::smem::{self, Smem};
use fulgurite_gpu::tma::{self, MapAddress};
use fulgurite_gpu::{global, thread};

use crate::support::*;

/// Thread 0 stores the box at the base and closes the group; then `rest`.
fn store_box_to(map: MapAddress, rest: impl Fn()) {
    store_then(true, true);
    if thread::index() == 0 {
        // SAFETY: what the tests plant is the emulator's to find; so in all closures below.
        unsafe {
            tma::store(map, Smem::base(), [0; 4]);
            tma::commit_stores();
        }
        rest();
    }
}

/// Everyone writes zeros over the box.
fn overwrite() {
    barrier_for_all();
    if thread::index() < 128 {
        let first = Smem::base().plus(thread::index() * 64);
        // SAFETY: every thread has its own bytes.
        (0..4).for_each(|unit| unsafe { smem::store_16(first.plus(16 * unit), [0; 4]) });
    }
}

#[test]
fn a_box_is_stored_as_it_was_when_it_was_read() {
    for seed in 0..16 {
        let tensor = run_storing(seed, |map| {
            // SAFETY: the thread that stores waits before anyone writes.
            store_box_to(map, || unsafe { tma::wait_stores_read::<0>() });
            overwrite();
            if thread::index() == 0 {
                // SAFETY: the same thread waits for the store before it reads.
                let words = unsafe {
                    tma::wait_stores::<0>();
                    global::load_16(TENSOR + 128)
                };
                assert_eq!(words, [2; 4]);
            }
        });
        let tensor = tensor.expect("nothing is wrong");
        for (index, unit) in tensor.chunks_exact(16).enumerate() {
            let (row, unit_of_row) = (index / 8, index % 8);
            let writer = 2 * row + (unit_of_row ^ (row % 8)) / 4;
            assert_eq!(unit[..4], (writer as u32).to_le_bytes(), "row {row}, unit {unit_of_row}");
        }
    }
}

#[test]
fn stores_that_nothing_orders() {
    let store = |map| {
        if thread::index() == 0 {
            // SAFETY: planted.
            unsafe { tma::store(map, Smem::base(), [0; 4]) }
        }
    };
    expect_storing(FaultKind::Race, &["tma::store", "no fence::proxy_async"], |map| {
        store_then(false, true);
        store(map);
    });
    expect_storing(FaultKind::Race, &["tma::store", "a store at "], |map| {
        store_then(true, false);
        barrier_for_all();
        store_then(true, false);
        store(map);
    });
    expect_storing(FaultKind::Race, &["smem::store_16", "a store issued at", "stores.rs"], |map| {
        store_box_to(map, || ());
        overwrite();
    });
    expect_storing(FaultKind::Race, &["smem::store_16", "a store issued at"], |map| {
        // SAFETY: planted.
        store_box_to(map, || unsafe { tma::wait_stores_read::<1>() });
        overwrite();
    });
    expect_storing(FaultKind::Race, &["global::load_16", "by a store not waited for"], |map| {
        // SAFETY: planted.
        store_box_to(map, || unsafe {
            tma::wait_stores_read::<0>();
            global::load_16(TENSOR);
        });
    });
    expect_storing(FaultKind::Race, &["tma::store", "thread 0 of block 0 writes too"], |map| {
        // SAFETY: planted.
        store_box_to(map, || unsafe { tma::store(map, Smem::base(), [0, 63, 0, 0]) });
    });
}

#[test]
fn stores_that_are_left_open_or_go_wrong() {
    expect_storing(FaultKind::Unfinished, &["tma::store", "has not waited"], |map| {
        store_box_to(map, || ());
    });
    expect_storing(FaultKind::Uninitialised, &["tma::store", "nobody wrote"], |map| {
        // SAFETY: planted.
        store_box_to(map, || unsafe {
            tma::wait_stores::<0>();
            tma::store(map, Smem::base().plus(BOX_BYTES), [0; 4]);
        });
    });
    expect_storing(FaultKind::Malformed, &["tma::store", "no multiple of 1024"], |map| {
        // SAFETY: planted.
        store_box_to(map, || unsafe { tma::store(map, Smem::base().plus(128), [0; 4]) });
    });
    for (at, word) in [([0, u32::MAX, 0, 0], "negative"), ([4, 0, 0, 0], "multiple of 16 bytes")] {
        expect_storing(FaultKind::Malformed, &["tma::store", word], |map| {
            // SAFETY: planted.
            store_box_to(map, || unsafe { tma::store(map, Smem::base(), at) });
        });
    }
    expect(FaultKind::OutOfBounds, &["tma::store", "tensor, which is read-only"], |map| {
        store_box_to(map, || ());
    });
}

/// The thread's own row of the box at the base.
fn own_row() -> Smem {
    Smem::base().plus(16 * thread::index())
}

#[test]
fn matrices() {
    expect(FaultKind::Race, &["smem::load_matrices", "a store at "], |_| {
        // SAFETY: planted; so below.
        unsafe {
            smem::store_matrices::<false>(own_row(), [thread::index(); 4]);
            smem::load_matrices::<false>(own_row());
        }
    });
    expect(FaultKind::Race, &["smem::store_matrices", "may still write"], |_| {
        // SAFETY: planted.
        unsafe { smem::store_matrices::<true>(Smem::base(), [0; 4]) }
    });
    expect(FaultKind::Uninitialised, &["smem::load_matrices", "nobody wrote"], |_| {
        // SAFETY: planted.
        unsafe { smem::load_matrices::<true>(own_row()) };
    });
    expect(FaultKind::Malformed, &["smem::load_matrices", "no multiple of 16"], |_| {
        // SAFETY: planted.
        unsafe { smem::load_matrices::<false>(own_row().plus(8)) };
    });
    expect(FaultKind::Divergence, &["smem::store_matrices", "thread 7 has ended"], |_| {
        if thread::index() != 7 {
            // SAFETY: planted.
            unsafe { smem::store_matrices::<false>(own_row(), [0; 4]) }
        }
    });
}
