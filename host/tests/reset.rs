//! A context that is reset, on a true driver; the fake one (`fake_driver/`) plays more of it. A
//! process of its own, since a reset takes everything from all its threads. Needs a GPU, as `gpu/`.

use fulgurite::cudarc::driver::sys;
use fulgurite::{Dtype, Error};
use half::bf16;

#[path = "gpu/support.rs"]
#[allow(dead_code, reason = "the other tests need more of it")]
mod support;

use crate::support::{Buffers, gpu, request};

#[test]
fn plans_from_before_are_refused_and_new_ones_give_the_same_bits() {
    let Some((attention, _guard)) = gpu() else {
        return;
    };
    let gone = Err(Error::ContextGone { ordinal: 0 });
    let stream = attention.context().default_stream();
    let request = request(Dtype::Bf16, false);
    let old = attention.plan(&request).unwrap();
    let mut buffers = Buffers::<bf16>::new(&stream, &old);
    buffers.launch(&stream, &old).unwrap();
    let before = buffers.bits(&stream);

    // SAFETY: nothing of the context is used after it: the buffers' memory is gone with it.
    assert_eq!(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }, sys::CUresult::CUDA_SUCCESS);
    assert_eq!(buffers.launch(&stream, &old), gone);
    assert_eq!(attention.plan(&request).map(|_| ()), gone);
    std::mem::forget(buffers);

    let mut context = std::ptr::null_mut();
    // SAFETY: `context` is writable. CUDA's runtime does the same in its next call.
    let code = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, 0) };
    assert_eq!((code, context), (sys::CUresult::CUDA_SUCCESS, attention.context().cu_ctx()));
    let new = attention.plan(&request).unwrap();
    let mut buffers = Buffers::<bf16>::new(&stream, &new);
    assert_eq!(buffers.launch(&stream, &old), gone);
    buffers.launch(&stream, &new).unwrap();
    assert_eq!(buffers.bits(&stream), before);
}
