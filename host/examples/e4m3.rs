//! Attention on tensors that are e4m3, as an FP8 KV cache or model has them: what their numbers are
//! multiplied with is given for each head, and launches work in a workspace.
//!
//! `cargo run --release -p fulgurite --example e4m3`

use fulgurite::{
    Descale, Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, Read, Workspace,
};
use half::bf16;

/// e4m3 of 1.5: exponent 0, mantissa 4 of 8.
const ONE_AND_A_HALF: u8 = 0x3c;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let stream = attention.context().default_stream();
    // batch, rows, heads, head_dim: 4 query heads share a KV head.
    let (q_layout, kv_layout) =
        (Layout::bshd(Dtype::E4m3, 2, 1000, 8, 128), Layout::bshd(Dtype::E4m3, 2, 1000, 2, 128));
    let out_layout = Layout::bshd(Dtype::Bf16, 2, 1000, 8, 128);
    let head = Descale::PerHead { strides: [2, 1] }; // f32[batch, KV heads], contiguous
    let request = Forward::new(q_layout, kv_layout, kv_layout, out_layout, Mask::Causal)
        .descale(head, head, head);
    let prepared = attention.plan(&request)?;
    println!("{}", prepared.plan()); // two kernels, and the workspace's bytes
    let mut workspace = Workspace::new(&stream);
    workspace.grow(prepared.plan().workspace_bytes())?;

    let bytes = |heads: usize| vec![ONE_AND_A_HALF; 2 * 1000 * heads * 128];
    let (q, k) = (stream.clone_htod(&bytes(8))?, stream.clone_htod(&bytes(2))?);
    let v = stream.clone_htod(&bytes(2))?;
    let (small, scales) = (
        stream.clone_htod(&[0.01_f32; 4])?,
        stream.clone_htod(&[1.0_f32, 2.0, 3.0, 4.0])?, // of v's heads
    );
    let mut out = stream.alloc_zeros::<bf16>(2 * 1000 * 8 * 128)?;
    let byte = |buffer| Read::from(buffer).typed(Dtype::E4m3);
    let args = ForwardArgs::new(byte(&q), byte(&k), byte(&v), &mut out)
        .descale_q(&small)
        .descale_k(&small)
        .descale_v(&scales)
        .workspace(&mut workspace);
    prepared.launch(&stream, args)?;

    let out = stream.clone_dtoh(&out)?;
    // All keys weigh the same, so that each head has its own value: 1.5 times its scale.
    for (head, scale) in [(0, 1.0), (4, 2.0)] {
        println!("head {head}: {} (1.5 x {scale})", out[head * 128]);
    }
    Ok(())
}
