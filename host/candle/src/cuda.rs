//! The body on a GPU: Fulgurite's kernels on the stream of candle's device.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaSlice, DeviceRepr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Error, Layout, Result, Shape, Storage, Tensor};
use fulgurite::{BackwardArgs, Element, FlashAttention, ForwardArgs, Workspace};
use half::{bf16, f16};

use crate::op::{Attention, Given, library};

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
        let lse = CudaStorage::wrap_cuda_slice(lse, device.clone());
        op.keep_lse(Storage::Cuda(lse), [batch, heads, rows]);
    }
    let out = CudaStorage::wrap_cuda_slice(out, device.clone());
    Ok((out, q_layout.shape().clone()))
}

/// Gradients of q, k and v on a GPU, contiguous.
pub(crate) fn backward(op: &Attention, given: &Given<'_>) -> Result<[Tensor; 3]> {
    match given.q.dtype() {
        DType::BF16 => typed_gradients::<bf16>(op, given),
        DType::F16 => typed_gradients::<f16>(op, given),
        other => candle_core::bail!("fulgurite_candle: no gradients of {other:?} on a GPU"),
    }
}

fn typed_gradients<T: Element + CudaDType + DeviceRepr>(
    op: &Attention,
    given: &Given<'_>,
) -> Result<[Tensor; 3]> {
    let Given { q, k, v, out, lse, d_out } = given;
    let tensors = [q, k, v, out, d_out].map(|tensor| tensor.storage_and_layout());
    let [q, k, v, out, d_out] = &tensors;
    let (lse, _) = lse.storage_and_layout();
    let device = given.q.device().as_cuda_device()?.clone();
    let stream = device.cuda_stream();
    let request = op.gradients([q.1, k.1, v.1], d_out.1, T::DTYPE)?;
    let prepared = attention(stream.context())?.plan(&request).map_err(library)?;
    let mut workspace = Workspace::new(&stream);
    workspace.grow(prepared.plan().workspace_bytes()).map_err(library)?;

    // An allocation of no bytes is an error of the driver. SAFETY: the launch writes every element
    // of the gradients, or there are none that are read.
    let room = |of: &Tensor| unsafe { device.alloc::<T>(of.elem_count().max(1)) };
    let (mut dq, mut dk, mut dv) = (room(given.q)?, room(given.k)?, room(given.v)?);
    let q = slice::<T>(&q.0)?.slice(q.1.start_offset()..);
    let k = slice::<T>(&k.0)?.slice(k.1.start_offset()..);
    let v = slice::<T>(&v.0)?.slice(v.1.start_offset()..);
    let out = slice::<T>(&out.0)?.slice(out.1.start_offset()..);
    let d_out = slice::<T>(&d_out.0)?.slice(d_out.1.start_offset()..);
    let lse = slice::<f32>(&lse)?;
    let args = BackwardArgs::new(&q, &k, &v, &out, lse, &d_out, &mut dq, &mut dk, &mut dv);
    prepared.launch(&stream, args.workspace(&mut workspace)).map_err(library)?;

    let stored = |gradient, of: &Tensor| {
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(gradient, device.clone()));
        Tensor::from_storage(storage, of.shape().clone(), BackpropOp::none(), false)
    };
    Ok([stored(dq, given.q), stored(dk, given.k), stored(dv, given.v)])
}

/// The elements of a tensor on a GPU.
fn slice<T: CudaDType>(storage: &Storage) -> Result<&CudaSlice<T>> {
    match storage {
        Storage::Cuda(storage) => storage.as_cuda_slice::<T>(),
        _ => Err(Error::msg("fulgurite_candle: a tensor of the call is on no GPU")),
    }
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
