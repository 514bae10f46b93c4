//! What a launch costs the host: time and allocations. A process of its own: after tests that open
//! contexts and capture graphs, each launch takes the driver 1 µs longer. Needs a GPU, as `gpu/`.

use std::alloc::{GlobalAlloc, Layout as AllocLayout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use fulgurite::Dtype;
use fulgurite::cudarc::driver::CudaStream;
use half::bf16;

#[path = "gpu/support.rs"]
#[allow(dead_code, reason = "the other tests need more of it")]
mod support;

use crate::support::{Buffers, aloud, gpu, raw, request};

/// Counts the allocations of each thread.
struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: AllocLayout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: AllocLayout) {
        // SAFETY: `pointer` came from `alloc` above, and so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Median host time of one launch in microseconds, and the allocations of all of them.
fn median_us(stream: &Arc<CudaStream>, mut launch: impl FnMut()) -> (f64, usize) {
    launch();
    stream.synchronize().unwrap();
    let mut times = vec![0.0; 1000];
    let mut allocations = 0;
    for (index, time) in times.iter_mut().enumerate() {
        // A full queue would make launches wait for the GPU.
        if index % 100 == 0 {
            stream.synchronize().unwrap();
        }
        let before = ALLOCATIONS.get();
        let start = Instant::now();
        launch();
        *time = start.elapsed().as_secs_f64() * 1e6;
        allocations += ALLOCATIONS.get() - before;
    }
    stream.synchronize().unwrap();
    times.sort_unstable_by(f64::total_cmp);
    (times[times.len() / 2], allocations)
}

#[test]
fn a_launch_costs_the_host_less_than_5_us_and_allocates_nothing() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let prepared = attention.plan(&request(Dtype::Bf16, false)).unwrap();

    // As cudarc starts: one stream, no events.
    let stream = attention.context().default_stream();
    let mut buffers = Buffers::<bf16>::new(&stream, &prepared);
    let addresses = buffers.addresses(&stream);
    let (safe_us, safe_allocations) =
        median_us(&stream, || buffers.launch(&stream, &prepared).unwrap());
    // SAFETY: the buffers live and are used by this stream only.
    let launch_raw = || unsafe { prepared.launch_raw(stream.cu_stream(), raw(addresses)) }.unwrap();
    let (raw_us, raw_allocations) = median_us(&stream, launch_raw);

    // As a program does that keeps no plans: from the request to the launch, each time.
    let request = request(Dtype::Bf16, false);
    let (planned_us, planned_allocations) = median_us(&stream, || {
        let prepared = attention.plan(&request).unwrap();
        // SAFETY: as above.
        unsafe { prepared.launch_raw(stream.cu_stream(), raw(addresses)) }.unwrap();
    });

    // With a second stream cudarc waits for and records events of each buffer.
    let second = attention.context().new_stream().unwrap();
    let mut tracked = Buffers::<bf16>::new(&second, &prepared);
    let (tracked_us, tracked_allocations) =
        median_us(&second, || tracked.launch(&second, &prepared).unwrap());

    aloud(&format!(
        "host cost per launch, median of 1000: launch {safe_us:.2} us, launch_raw {raw_us:.2} us, \
         plan and launch_raw {planned_us:.2} us, launch with cudarc's events {tracked_us:.2} us"
    ));
    assert_eq!((safe_allocations, raw_allocations, tracked_allocations), (0, 0, 0));
    assert_eq!(planned_allocations, 0);
    let lookup_us = planned_us - raw_us;
    assert!(lookup_us < 1.0, "a plan that is kept costs {lookup_us:.2} us");
    assert!(safe_us < 5.0, "launch costs {safe_us:.2} us");
    assert!(raw_us < 5.0, "launch_raw costs {raw_us:.2} us");
}
