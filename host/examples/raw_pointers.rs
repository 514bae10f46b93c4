//! Bare addresses and a bare stream, as another framework or a C program has them.
//!
//! The memory here is cudarc's, to have some; nothing of cudarc reaches the launch.

use fulgurite::cudarc::driver::{DevicePtr, DevicePtrMut};
use fulgurite::{Dtype, FlashAttention, Forward, Layout, Mask, Pointers};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let stream = attention.context().new_stream()?;
    let layout = Layout::bhsd(Dtype::Bf16, 1, 8, 1024, 128); // batch, heads, rows, head_dim
    let (q, k, v, out) = (layout, layout, layout, layout);
    let request = Forward { q, k, v, out, mask: Mask::Causal, scale: None, lse: false };
    let prepared = attention.plan(&request)?;

    let [elements, ..] = prepared.plan().buffer_elements();
    let ones = stream.clone_htod(&vec![bf16::ONE; elements])?;
    let halves = stream.clone_htod(&vec![bf16::from_f32(0.5); elements])?;
    let mut out = stream.alloc_zeros::<bf16>(elements)?;
    let pointers = Pointers {
        q: ones.device_ptr(&stream).0,
        k: ones.device_ptr(&stream).0,
        v: halves.device_ptr(&stream).0,
        out: out.device_ptr_mut(&stream).0,
        lse: None,
    };
    // What was copied to these addresses is there before anyone reads them.
    stream.synchronize()?;
    // SAFETY: stream and memory are of the plan's context, each address is that of a whole tensor,
    // `out` is nobody else's, and all of it is alive until the copy below has waited.
    unsafe { prepared.launch_raw(stream.cu_stream(), &pointers)? };

    let out = stream.clone_dtoh(&out)?;
    let others = out.iter().filter(|value| value.to_f32() != 0.5).count();
    println!("every value is 0.5; elements of the output that are not: {others} of {elements}");
    Ok(())
}
