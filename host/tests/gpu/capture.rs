//! Launches recorded into CUDA graphs.

use std::sync::Arc;

use fulgurite::cudarc::driver::{CudaGraph, CudaStream, sys};
use fulgurite::{Dtype, Error};
use half::bf16;

use crate::support::{Buffers, expected, gpu, raw, request, untouched};

#[test]
fn a_captured_graph_gives_the_same_bits() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let expected = expected::<bf16>(&attention);
    let context = attention.context();
    // SAFETY: this test uses one stream only.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let prepared = attention.plan(&request(Dtype::Bf16, false)).unwrap();
    let mut buffers = Buffers::<bf16>::new(&stream, &prepared);

    let graph = capture(&stream, || buffers.launch(&stream, &prepared).unwrap());
    stream.synchronize().unwrap();
    assert_eq!(buffers.bits(&stream), untouched::<bf16>(expected.len()), "a capture ran work");
    for _ in 0..3 {
        buffers.forget_output(&stream);
        graph.launch().unwrap();
        assert!(buffers.bits(&stream) == expected, "a replay differs from the launch");
    }
}

#[test]
fn a_raw_launch_is_captured_under_event_tracking() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let expected = expected::<bf16>(&attention);
    let stream = attention.context().new_stream().unwrap();
    let prepared = attention.plan(&request(Dtype::Bf16, false)).unwrap();
    let mut buffers = Buffers::<bf16>::new(&stream, &prepared);
    let addresses = buffers.addresses(&stream);
    let graph = capture(&stream, || {
        // SAFETY: the buffers outlive the graph, nothing else uses them meanwhile.
        unsafe { prepared.launch_raw(stream.cu_stream(), raw(addresses)) }.unwrap();
    });
    graph.launch().unwrap();
    assert!(buffers.bits(&stream) == expected);
}

fn capture(stream: &Arc<CudaStream>, work: impl FnOnce()) -> CudaGraph {
    // Global is the strictest mode: any call that is not allowed in a capture fails.
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    work();
    stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().expect("the capture was broken")
}

#[test]
fn a_tracked_launch_into_a_capture_is_refused_and_leaves_the_capture_whole() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let expected = expected::<bf16>(&attention);
    let stream = attention.context().new_stream().unwrap();
    let prepared = attention.plan(&request(Dtype::Bf16, false)).unwrap();
    let mut buffers = Buffers::<bf16>::new(&stream, &prepared);
    let graph = capture(&stream, || {
        assert_eq!(buffers.launch(&stream, &prepared), Err(Error::CaptureWithEvents));
    });
    graph.launch().unwrap();
    assert_eq!(buffers.bits(&stream), untouched::<bf16>(expected.len()));
    buffers.launch(&stream, &prepared).unwrap();
    assert!(buffers.bits(&stream) == expected);
}
