//! The body on a GPU: Fulgurite's kernels on the stream of candle's device.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, DeviceRepr};
use candle_core::{CudaStorage, DType, Layout, Result, Shape, Storage};
use fulgurite::{Element, FlashAttention, ForwardArgs};
use half::{bf16, f16};

use crate::op::{Attention, library};

/// Attention of tensors on a GPU.
pub(crate) fn forward(
    op: &Attention,
    tensors: [&CudaStorage; 3],
    layouts: [&Layout; 3],
) -> Result<(CudaStorage, Shape)> {
    match tensors[0].dtype() {
        DType::BF16 => typed::<bf16>(op, tensors, layouts),
        DType::F16 => typed::<f16>(op, tensors, layouts),
        other => candle_core::bail!(
            "fulgurite_candle: q is {other:?}, on a GPU it has to be BF16 or F16; convert it"
        ),
    }
}

fn typed<T: Element + CudaDType + DeviceRepr>(
    op: &Attention,
    [q, k, v]: [&CudaStorage; 3],
    layouts: [&Layout; 3],
) -> Result<(CudaStorage, Shape)> {
    let device = q.device();
    let stream = device.cuda_stream();
    let [q, k, v] = [q.as_cuda_slice::<T>()?, k.as_cuda_slice::<T>()?, v.as_cuda_slice::<T>()?];
    let request = op.request(layouts, [T::DTYPE; 3])?;
    let prepared = attention(stream.context())?.plan(&request).map_err(library)?;

    let [q_layout, k_layout, v_layout] = layouts;
    let [batch, heads, rows, head_dim] = request.q.shape;
    // An allocation of no bytes is an error of the driver.
    let elements = (batch * heads * rows * head_dim).max(1);
    // SAFETY: the launch writes every element of the output, or there are none that are read.
    let mut out = unsafe { device.alloc::<T>(elements) }?;
    let mut lse = None;
    if op.wants_lse() {
        // SAFETY: as above.
        lse = Some(unsafe { device.alloc::<f32>((batch * heads * rows).max(1)) }?);
    }
    let q = q.slice(q_layout.start_offset()..);
    let k = k.slice(k_layout.start_offset()..);
    let v = v.slice(v_layout.start_offset()..);
    let mut args = ForwardArgs::new(&q, &k, &v, &mut out);
    if let Some(lse) = &mut lse {
        args = args.lse(lse);
    }
    prepared.launch(&stream, args).map_err(library)?;

    if let Some(lse) = lse {
        op.keep_lse(Storage::Cuda(CudaStorage::wrap_cuda_slice(lse, device.clone())));
    }
    let out = CudaStorage::wrap_cuda_slice(out, device.clone());
    Ok((out, q_layout.shape().clone()))
}

/// The library on a context, with the plans that it keeps.
fn attention(context: &Arc<CudaContext>) -> Result<FlashAttention> {
    // In a forked process the lock may be one that nobody will ever release.
    fulgurite::check_fork().map_err(library)?;
    static LOADED: Mutex<Vec<FlashAttention>> = Mutex::new(Vec::new());
    // A panic cannot leave the list half written: it is only pushed to.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(attention) = loaded.iter().find(|attention| attention.context() == context) {
        return Ok(attention.clone());
    }
    let attention = FlashAttention::load(context).map_err(library)?;
    loaded.push(attention.clone());
    Ok(attention)
}
