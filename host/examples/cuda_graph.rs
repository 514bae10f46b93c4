//! A launch recorded into a CUDA graph and replayed on new inputs at the same addresses.

use fulgurite::cudarc::driver::sys;
use fulgurite::{Dtype, FlashAttention, Forward, Layout, Mask};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let context = attention.context();
    // Before any buffer is made: cudarc's events would tie the graph to work outside of it.
    // SAFETY: this program uses one stream, so that there is nothing to order.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream()?;
    let layout = Layout::bshd(Dtype::Bf16, 4, 512, 16, 64);
    let (q, k, v, out) = (layout, layout, layout, layout);
    let request = Forward { q, k, v, out, mask: Mask::Full, scale: None, lse: false };
    let prepared = attention.plan(&request)?; // before the capture: this may load the kernel

    let [elements, ..] = prepared.plan().buffer_elements();
    let q = stream.clone_htod(&vec![bf16::ONE; elements])?;
    let k = q.clone();
    let mut v = stream.alloc_zeros::<bf16>(elements)?;
    let mut out = stream.alloc_zeros::<bf16>(elements)?;
    stream.synchronize()?;
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)?;
    prepared.launch(&stream, &q, &k, &v, &mut out, None)?;
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0))?;
    let graph = graph.ok_or("the capture holds no work")?;

    for value in [1.0, 2.0, 3.0] {
        stream.memcpy_htod(&vec![bf16::from_f32(value); elements], &mut v)?;
        graph.launch()?;
        println!("every value is {value}: the output is {}", stream.clone_dtoh(&out)?[0]);
    }
    Ok(())
}
