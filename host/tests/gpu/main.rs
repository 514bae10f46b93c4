//! Launches on a real GPU. Without one, or without a driver, every test says aloud that it
//! skipped; with `FULGURITE_REQUIRE_GPU` set it fails instead.

mod capture;
mod order;
mod refusals;
mod support;

use std::time::Instant;

use fulgurite::cudarc::driver::DeviceRepr;
use fulgurite::{Dtype, FlashAttention, Forward, Layout, Mask, Pointers, Prepared, VARIANTS};
use half::bf16;

use crate::support::{SENTINEL, aloud, bits, gpu, untouched};

#[test]
fn calls_without_work_write_nothing() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let stream = attention.context().default_stream();
    for (batch, q_len) in [(0, 16), (2, 0)] {
        let q = Layout::bshd(Dtype::Bf16, batch, q_len, 4, 64);
        let kv = Layout::bshd(Dtype::Bf16, batch, 16, 4, 64);
        let request =
            Forward { q, k: kv, v: kv, out: q, mask: Mask::Causal, scale: None, lse: true };
        let prepared = attention.plan(&request).unwrap();
        assert!(prepared.plan().is_noop());
        let some = stream.clone_htod(&vec![bf16::from_f32(SENTINEL); 8192]).unwrap();
        let mut out = some.clone();
        let mut lse = stream.clone_htod(&vec![SENTINEL; 64]).unwrap();
        prepared.launch(&stream, &some, &some, &some, &mut out, Some(&mut lse)).unwrap();
        // Not even addresses are looked at.
        let null = Pointers { q: 0, k: 0, v: 0, out: 0, lse: Some(0) };
        // SAFETY: a plan without work touches no memory.
        unsafe { prepared.launch_raw(stream.cu_stream(), &null) }.unwrap();
        stream.synchronize().unwrap();
        assert_eq!(bits(&stream.clone_dtoh(&out).unwrap()), untouched::<bf16>(8192));
        assert!(stream.clone_dtoh(&lse).unwrap().iter().all(|&value| value == SENTINEL));
    }
}

#[test]
fn preloading_loads_every_variant() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let start = Instant::now();
    attention.preload(&VARIANTS.iter().collect::<Vec<_>>()).unwrap();
    aloud(&format!("loaded {} kernels in {:.2?}", VARIANTS.len(), start.elapsed()));
    // A second time, and for another instance of the same context, nothing is left to do.
    let start = Instant::now();
    FlashAttention::load(attention.context())
        .unwrap()
        .preload(&VARIANTS.iter().collect::<Vec<_>>())
        .unwrap();
    assert!(start.elapsed().as_millis() < 50, "kernels were loaded twice");
}

/// Only what the signatures ask for.
#[expect(dead_code, reason = "compiling it is the test")]
fn public_types_cross_threads() {
    fn crosses<T: Send + Sync + Clone>() {}
    crosses::<FlashAttention>();
    crosses::<Prepared>();
    fn is_device_data<T: DeviceRepr>() {}
    is_device_data::<bf16>();
}
