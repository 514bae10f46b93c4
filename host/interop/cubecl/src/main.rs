//! Attention on buffers of cubecl, and so of burn.
//!
//! cubecl does not show its stream: `sync` before the launch, and a wait for our stream behind it,
//! order the two.

use cubecl_core::Runtime;
use cubecl_core::future::block_on;
use cubecl_cuda::{CudaDevice, CudaRuntime};
use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = CudaRuntime::client(&CudaDevice::new(0));
    let attention = FlashAttention::open(0)?; // the primary context, as cubecl's
    let stream = attention.context().new_stream()?;
    let layout = Layout::bshd(Dtype::Bf16, 1, 1024, 8, 128); // batch, rows, heads, head_dim
    let prepared = attention.plan(&Forward::new(layout, layout, layout, layout, Mask::Causal))?;

    let elements = 1024 * 8 * 128;
    let bytes = |value: f32| bf16::from_f32(value).to_bits().to_ne_bytes().repeat(elements);
    let ones = client.create_from_slice(&bytes(1.0));
    let halves = client.create_from_slice(&bytes(0.5));
    let out = client.empty(2 * elements);
    // Each keeps its memory where it is.
    let [q, v, written] = [&ones, &halves, &out].map(|it| client.get_resource(it.clone()));
    let (q, v, written) = (q?, v?, written?);
    block_on(client.sync())?;
    let (at_q, at_v) = (q.resource().ptr, v.resource().ptr);
    let args = ForwardArgs::new(at_q, at_q, at_v, written.resource().ptr);
    // SAFETY: memory and stream are of the primary context, which the plan is for; each address is
    // that of a whole tensor; what cubecl did with it is done, and it does nothing with it before
    // the stream was waited for.
    unsafe { prepared.launch_raw(stream.cu_stream(), args)? };
    stream.synchronize()?;

    let result = client.read_one(out)?;
    let half = bf16::from_f32(0.5).to_bits().to_ne_bytes();
    let others = result.chunks_exact(2).filter(|bytes| *bytes != half).count();
    println!("every value is 0.5; elements of the output that are not: {others} of {elements}");
    Ok(())
}
