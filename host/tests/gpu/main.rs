//! Launches on a real GPU. Without one, or without a driver, every test says aloud that it
//! skipped; with `FULGURITE_REQUIRE_GPU` set it fails instead.

mod capture;
mod order;
mod refusals;
mod support;

use std::time::Instant;

use fulgurite::cudarc::driver::DeviceRepr;
use fulgurite::internals::VARIANTS;
use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, PlanOptions, Prepared};
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
        let request = Forward::new(q, kv, kv, q, Mask::Causal).with_lse();
        let prepared = attention.plan(&request).unwrap();
        assert!(prepared.plan().is_noop());
        let some = stream.clone_htod(&vec![bf16::from_f32(SENTINEL); 8192]).unwrap();
        let mut out = some.clone();
        let mut lse = stream.clone_htod(&vec![SENTINEL; 64]).unwrap();
        let args = ForwardArgs::new(&some, &some, &some, &mut out).lse(&mut lse);
        prepared.launch(&stream, args).unwrap();
        // Not even addresses are looked at.
        let null = ForwardArgs::new(0_u64, 0_u64, 0_u64, 0_u64).lse(0_u64);
        // SAFETY: a plan without work touches no memory.
        unsafe { prepared.launch_raw(stream.cu_stream(), null) }.unwrap();
        stream.synchronize().unwrap();
        assert_eq!(bits(&stream.clone_dtoh(&out).unwrap()), untouched::<bf16>(8192));
        assert!(stream.clone_dtoh(&lse).unwrap().iter().all(|&value| value == SENTINEL));
    }
}

#[test]
fn every_kernel_is_loaded_once() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let load = |attention: &FlashAttention| {
        for variant in VARIANTS {
            let layout = Layout::bshd(variant.dtype, 1, 64, 1, variant.head_dim as usize);
            let request = Forward::new(layout, layout, layout, layout, variant.mask.example());
            attention.plan_with(&request, &PlanOptions::entry(variant.entry)).unwrap();
        }
    };
    let start = Instant::now();
    load(&attention);
    aloud(&format!("loaded {} kernels in {:.2?}", VARIANTS.len(), start.elapsed()));
    // A second time, and for another instance of the same context, nothing is left to do.
    let start = Instant::now();
    load(&FlashAttention::load(attention.context()).unwrap());
    assert!(start.elapsed().as_millis() < 50, "kernels were loaded twice");
}

#[test]
fn preloading_a_request_makes_its_plan() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let requests = [support::request(Dtype::Bf16, false), support::request(Dtype::F16, true)];
    attention.preload(&requests).unwrap();
    let start = Instant::now();
    attention.plan(&requests[1]).unwrap();
    assert!(start.elapsed().as_millis() < 5, "the kernel was loaded twice");
}

/// Only what the signatures ask for.
#[expect(dead_code, reason = "compiling it is the test")]
fn public_types_cross_threads() {
    fn crosses<T: Send + Sync + Clone>() {}
    crosses::<FlashAttention>();
    crosses::<Prepared<Forward>>();
    fn is_device_data<T: DeviceRepr>() {}
    is_device_data::<bf16>();
}
