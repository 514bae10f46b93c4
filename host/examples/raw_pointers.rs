//! Bare addresses and a bare stream, as another framework or a C program has them.
//!
//! The memory here is cudarc's, to have some; nothing of cudarc reaches the launch.

use fulgurite::cudarc::driver::{DevicePtr, DevicePtrMut};
use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let stream = attention.context().new_stream()?;
    let layout = Layout::bhsd(Dtype::Bf16, 1, 8, 1024, 128); // batch, heads, rows, head_dim
    let request = Forward::new(layout, layout, layout, layout, Mask::Causal);
    let prepared = attention.plan(&request)?;

    let elements = 8 * 1024 * 128;
    let ones = stream.clone_htod(&vec![bf16::ONE; elements])?;
    let halves = stream.clone_htod(&vec![bf16::from_f32(0.5); elements])?;
    let mut out = stream.alloc_zeros::<bf16>(elements)?;
    let (q, k) = (ones.device_ptr(&stream).0, ones.device_ptr(&stream).0);
    let (v, written) = (halves.device_ptr(&stream).0, out.device_ptr_mut(&stream).0);
    // What was copied to these addresses is there before anyone reads them.
    stream.synchronize()?;
    // SAFETY: stream and memory are of the plan's context, each address is that of a whole tensor,
    // `out` is nobody else's, and all of it is alive until the copy below has waited.
    unsafe { prepared.launch_raw(stream.cu_stream(), ForwardArgs::new(q, k, v, written))? };

    let out = stream.clone_dtoh(&out)?;
    let others = out.iter().filter(|value| value.to_f32() != 0.5).count();
    println!("every value is 0.5; elements of the output that are not: {others} of {elements}");
    Ok(())
}
