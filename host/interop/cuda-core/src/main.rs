//! Attention on buffers and a stream of cuda-core, which NVIDIA's cutile stands on.
//!
//! Its `Device::new` retains the device's primary context, which `FlashAttention::open` takes as
//! well.

use cuda_core::{Context, DeviceBuffer};
use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = Context::new(0)?;
    let stream = context.new_stream()?;
    let attention = FlashAttention::open(0)?;
    let layout = Layout::bshd(Dtype::Bf16, 1, 1024, 8, 128); // batch, rows, heads, head_dim
    let prepared = attention.plan(&Forward::new(layout, layout, layout, layout, Mask::Causal))?;

    let elements = 1024 * 8 * 128;
    let ones = DeviceBuffer::from_host(&stream, &vec![bf16::ONE.to_bits(); elements])?;
    let halves = DeviceBuffer::from_host(&stream, &vec![bf16::from_f32(0.5).to_bits(); elements])?;
    let out = DeviceBuffer::<u16>::zeroed(&stream, elements)?;
    let args = ForwardArgs::new(
        ones.cu_deviceptr(),
        ones.cu_deviceptr(),
        halves.cu_deviceptr(),
        out.cu_deviceptr(),
    );
    // SAFETY: stream and memory are of the primary context, which the plan is for; each address is
    // that of a whole tensor, written on this stream before; `out` is nobody else's; all of it
    // lives until the copy below has waited for the stream.
    unsafe { prepared.launch_raw(stream.cu_stream().cast(), args)? };

    let result = out.to_host_vec(&stream)?;
    let others = result.iter().filter(|bits| bf16::from_bits(**bits).to_f32() != 0.5).count();
    println!("every value is 0.5; elements of the output that are not: {others} of {elements}");
    Ok(())
}
