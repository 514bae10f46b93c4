//! Launches that are refused: nothing is written then.

use std::ptr;
use std::sync::Arc;

use fulgurite::cudarc::driver::{CudaContext, CudaSlice, sys};
use fulgurite::{Dtype, Error, ForwardArgs};
use half::{bf16, f16};

use crate::support::{Buffers, SENTINEL, gpu, request, untouched, values};

/// Whether an error says that this tensor's buffer is too short.
fn short(name: &'static str) -> impl Fn(Error) -> bool {
    move |error| matches!(error, Error::BufferTooShort { buffer, .. } if buffer == name)
}

#[test]
fn short_buffers_are_refused_and_nothing_is_written() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let stream = attention.context().default_stream();
    let prepared = attention.plan(&request(Dtype::F16, true)).unwrap();
    let plan = prepared.plan();
    let mut buffers = Buffers::<f16>::new(&stream, &prepared);
    let mut lse = stream.clone_htod(&vec![SENTINEL; plan.buffer("lse").unwrap().elements]).unwrap();
    let Buffers { q, k, v, out } = &mut buffers;
    let end = |slice: &CudaSlice<f16>| slice.len() - 1;

    let (q_end, k_end, v_end, out_end) = (end(q), end(k), end(v), end(out));
    let result = prepared
        .launch(&stream, ForwardArgs::new(&q.slice(..q_end), &*k, &*v, &mut *out).lse(&mut lse));
    assert!(result.is_err_and(short("q")));
    let result = prepared
        .launch(&stream, ForwardArgs::new(&*q, &k.slice(..k_end), &*v, &mut *out).lse(&mut lse));
    assert!(result.is_err_and(short("k")));
    let result = prepared
        .launch(&stream, ForwardArgs::new(&*q, &*k, &v.slice(..v_end), &mut *out).lse(&mut lse));
    assert!(result.is_err_and(short("v")));
    let result = prepared.launch(
        &stream,
        ForwardArgs::new(&*q, &*k, &*v, &mut out.slice_mut(..out_end)).lse(&mut lse),
    );
    assert!(result.is_err_and(short("out")));
    let lse_end = lse.len() - 1;
    let result = prepared.launch(
        &stream,
        ForwardArgs::new(&*q, &*k, &*v, &mut *out).lse(&mut lse.slice_mut(..lse_end)),
    );
    assert!(result.is_err_and(short("lse")));
    let result = prepared.launch(&stream, ForwardArgs::new(&*q, &*k, &*v, &mut *out));
    assert!(matches!(result, Err(Error::Missing { buffer: "lse", .. })));

    assert_eq!(buffers.bits(&stream), untouched::<f16>(buffers.out.len()));
    assert!(stream.clone_dtoh(&lse).unwrap().iter().all(|&value| value == SENTINEL));
}

#[test]
fn misaligned_views_and_other_types_are_refused() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let stream = attention.context().default_stream();
    let prepared = attention.plan(&request(Dtype::F16, true)).unwrap();
    let mut buffers = Buffers::<f16>::new(&stream, &prepared);
    let mut lse = stream
        .clone_htod(&vec![SENTINEL; prepared.plan().buffer("lse").unwrap().elements])
        .unwrap();
    let Buffers { q, k, v, out } = &mut buffers;

    // A view that starts between two 16-byte units, long enough because q was made longer.
    let longer = stream.clone_htod(&values::<f16>(q.len() + 8, 9)).unwrap();
    let result = prepared
        .launch(&stream, ForwardArgs::new(&longer.slice(1..), &*k, &*v, &mut *out).lse(&mut lse));
    assert!(matches!(result, Err(Error::Misaligned { buffer: "q", want: 16, .. })));

    let other = stream.alloc_zeros::<bf16>(q.len()).unwrap();
    let mut other_out = other.clone();
    let result = prepared
        .launch(&stream, ForwardArgs::new(&other, &other, &other, &mut other_out).lse(&mut lse));
    assert_eq!(result, Err(Error::BufferDtype { buffer: "q", got: Dtype::Bf16, want: Dtype::F16 }));

    assert_eq!(buffers.bits(&stream), untouched::<f16>(buffers.out.len()));
    assert!(stream.clone_dtoh(&lse).unwrap().iter().all(|&value| value == SENTINEL));
}

#[test]
fn buffers_of_another_context_are_refused() {
    let Some((attention, _gpu)) = gpu() else {
        return;
    };
    let prepared = attention.plan(&request(Dtype::Bf16, false)).unwrap();
    let stream = attention.context().default_stream();
    let mut buffers = Buffers::<bf16>::new(&stream, &prepared);
    let other = other_context();
    let other_stream = other.default_stream();
    let result = buffers.launch(&other_stream, &prepared);
    assert!(matches!(result, Err(Error::WrongDevice { what: "the stream", .. })));
    let foreign = other_stream.alloc_zeros::<bf16>(buffers.q.len()).unwrap();
    let Buffers { q, k, v, out } = &mut buffers;
    let result = prepared.launch(&stream, ForwardArgs::new(&foreign, &*k, &*v, &mut *out));
    assert!(matches!(result, Err(Error::WrongDevice { what: "q", .. })));
    let mut foreign_out = foreign.clone();
    let result = prepared.launch(&stream, ForwardArgs::new(&*q, &*k, &*v, &mut foreign_out));
    assert!(matches!(result, Err(Error::WrongDevice { what: "out", .. })));
    assert_eq!(buffers.bits(&stream), untouched::<bf16>(buffers.out.len()));
}

/// A second device's context or, with one device, a second context of it.
fn other_context() -> Arc<CudaContext> {
    if CudaContext::device_count().unwrap() > 1 {
        return CudaContext::new(1).unwrap();
    }
    type Create = unsafe extern "C" fn(*mut sys::CUcontext, u32, sys::CUdevice) -> sys::CUresult;
    // SAFETY: the driver is loaded already; the function has had this signature since CUDA 3.2.
    // The context is fresh, belongs to device 0 and is given away.
    unsafe {
        let library = libloading::Library::new("libcuda.so.1").unwrap();
        let create = library.get::<Create>("cuCtxCreate_v2").unwrap();
        let mut context = ptr::null_mut();
        assert_eq!(create(&raw mut context, 0, 0), sys::CUresult::CUDA_SUCCESS);
        CudaContext::from_raw_context(0, 0, context).unwrap()
    }
}
