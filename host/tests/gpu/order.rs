//! Streams and threads: foreign ones, several at once, ordered by events.

use std::ptr;
use std::sync::Arc;

use fulgurite::cudarc::driver::{CudaStream, DeviceRepr, sys};
use fulgurite::{Dtype, Element, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::{bf16, f16};

use crate::support::{Buffers, FromF32, bits, expected, gpu, raw, request};

#[test]
fn a_foreign_stream_and_a_thread_without_context_work() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let expected = expected::<f16>(&attention);
    let stream = attention.context().default_stream();
    let prepared = attention.plan(&request(Dtype::F16, false)).unwrap();
    let mut buffers = Buffers::<f16>::new(&stream, &prepared);
    let addresses = buffers.addresses(&stream);

    let mut foreign: sys::CUstream = ptr::null_mut();
    // SAFETY: the context is current since it was made in this thread; the flag asks for a
    // stream that does not wait for the default one.
    let created = unsafe { sys::cuStreamCreate(&raw mut foreign, 1) };
    assert_eq!(created, sys::CUresult::CUDA_SUCCESS);
    let address = foreign as usize;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: the stream and the buffers live until after this thread; nothing else uses
            // the buffers, because the default stream was synchronised.
            unsafe { prepared.launch_raw(address as sys::CUstream, raw(addresses)) }.unwrap();
            let mut current: sys::CUcontext = ptr::null_mut();
            // SAFETY: `current` is writable.
            let code = unsafe { sys::cuCtxGetCurrent(&raw mut current) };
            assert_eq!(code, sys::CUresult::CUDA_SUCCESS);
            assert!(current.is_null(), "the launch left its context on a thread that had none");
        });
    });
    // SAFETY: the stream was created above and is destroyed once.
    unsafe {
        assert_eq!(sys::cuStreamSynchronize(foreign), sys::CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuStreamDestroy_v2(foreign), sys::CUresult::CUDA_SUCCESS);
    }
    assert!(buffers.bits(&stream) == expected);
}

#[test]
fn two_threads_share_one_instance() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let (bf16_bits, f16_bits) = (expected::<bf16>(&attention), expected::<f16>(&attention));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| launch_often::<bf16>(&attention, &bf16_bits));
            scope.spawn(|| launch_often::<f16>(&attention, &f16_bits));
        }
    });
}

fn launch_often<T: Element + DeviceRepr + FromF32 + Default>(
    attention: &FlashAttention,
    expected: &[u16],
) {
    let stream = attention.context().new_stream().unwrap();
    let prepared = attention.plan(&request(T::DTYPE, false)).unwrap();
    let mut buffers = Buffers::<T>::new(&stream, &prepared);
    for _ in 0..50 {
        buffers.forget_output(&stream);
        buffers.launch(&stream, &prepared).unwrap();
        assert!(buffers.bits(&stream) == expected);
    }
}

/// A launch waits for what another stream still writes into its input.
#[test]
fn events_order_streams() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let layout = Layout::bshd(Dtype::Bf16, 1, 8192, 16, 128);
    let request = Forward::new(layout, layout, layout, layout, Mask::Full);
    let prepared = attention.plan(&request).unwrap();
    let run = |first: &Arc<CudaStream>, second: &Arc<CudaStream>| {
        let mut buffers = Buffers::<bf16>::new(first, &prepared);
        let mut result = buffers.q.clone();
        first.synchronize().unwrap();
        for _ in 0..20 {
            buffers.launch(first, &prepared).unwrap();
        }
        let Buffers { k, v, out, .. } = &buffers;
        prepared.launch(second, ForwardArgs::new(out, k, v, &mut result)).unwrap();
        second.synchronize().unwrap();
        bits(&second.clone_dtoh(&result).unwrap())
    };
    let default = attention.context().default_stream();
    let one_stream = run(&default, &default);
    let first = attention.context().new_stream().unwrap();
    let second = attention.context().new_stream().unwrap();
    assert!(run(&first, &second) == one_stream, "the second stream did not wait for the first");
}
