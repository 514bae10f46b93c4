//! A launch recorded into a CUDA graph and replayed on new inputs at the same addresses.

use fulgurite::cudarc::driver::sys;
use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let context = attention.context();
    // Before any buffer is made: cudarc's events would tie the graph to work outside of it.
    // SAFETY: this program uses one stream, so that there is nothing to order.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream()?;
    let layout = Layout::bshd(Dtype::Bf16, 4, 512, 16, 64);
    let request = Forward::new(layout, layout, layout, layout, Mask::Full);
    let prepared = attention.plan(&request)?; // before the capture: this may load the kernel

    let elements = 4 * 512 * 16 * 64;
    let q = stream.clone_htod(&vec![bf16::ONE; elements])?;
    let k = q.clone();
    let mut v = stream.alloc_zeros::<bf16>(elements)?;
    let mut out = stream.alloc_zeros::<bf16>(elements)?;
    stream.synchronize()?;
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)?;
    prepared.launch(&stream, ForwardArgs::new(&q, &k, &v, &mut out))?;
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0))?;
    let graph = graph.ok_or("the capture holds no work")?;

    for value in [1.0, 2.0, 3.0] {
        stream.memcpy_htod(&vec![bf16::from_f32(value); elements], &mut v)?;
        graph.launch()?;
        println!("every value is {value}: the output is {}", stream.clone_dtoh(&out)?[0]);
    }
    Ok(())
}
