//! Attention on buffers and a stream of cust.
//!
//! cust's `Context` is the device's primary one, which `FlashAttention::open` takes as well.

use cust::memory::{CopyDestination, DeviceBuffer};
use cust::stream::{Stream, StreamFlags};
use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _context = cust::quick_init()?;
    let stream = Stream::new(StreamFlags::DEFAULT, None)?;
    let attention = FlashAttention::open(0)?;
    let layout = Layout::bshd(Dtype::Bf16, 1, 1024, 8, 128); // batch, rows, heads, head_dim
    let prepared = attention.plan(&Forward::new(layout, layout, layout, layout, Mask::Causal))?;

    // cust has no type of 16 bits: the bits of bf16.
    let elements = 1024 * 8 * 128;
    let ones = DeviceBuffer::from_slice(&vec![bf16::ONE.to_bits(); elements])?;
    let halves = DeviceBuffer::from_slice(&vec![bf16::from_f32(0.5).to_bits(); elements])?;
    let out = DeviceBuffer::<u16>::zeroed(elements)?;
    let at = |buffer: &DeviceBuffer<u16>| buffer.as_device_ptr().as_raw();
    let args = ForwardArgs::new(at(&ones), at(&ones), at(&halves), at(&out));
    // SAFETY: stream and memory are of the primary context, which the plan is for; each address is
    // that of a whole tensor, copied there before; `out` is nobody else's; all of it lives until
    // the stream was waited for.
    unsafe { prepared.launch_raw(stream.as_inner().cast(), args)? };
    stream.synchronize()?;

    let mut result = vec![0; elements];
    out.copy_to(&mut result)?;
    let others = result.iter().filter(|bits| bf16::from_bits(**bits).to_f32() != 0.5).count();
    println!("every value is 0.5; elements of the output that are not: {others} of {elements}");
    Ok(())
}
