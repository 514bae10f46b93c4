//! Attention in 8 bits from bf16 tensors: each launch quantises q, k and v in a workspace that the
//! caller brings. Compared with the same call in bf16.
//!
//! `cargo run --release -p fulgurite --example fp8`

use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, Precision, Workspace};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let stream = attention.context().default_stream();
    let layout = Layout::bshd(Dtype::Bf16, 1, 4096, 16, 128); // batch, rows, heads, head_dim
    let exact = Forward::new(layout, layout, layout, layout, Mask::Causal);
    let request = exact.clone().precision(Precision::S8E4m3);
    let prepared = attention.plan(&request)?;
    println!("{}", prepared.plan()); // four kernels, and the workspace's bytes

    // One workspace serves all launches on its stream, one after another.
    let mut workspace = Workspace::new(&stream);
    workspace.grow(prepared.plan().workspace_bytes())?;

    let elements = 4096 * 16 * 128;
    let wave = |step: f32| -> Vec<bf16> {
        (0..elements).map(|index| bf16::from_f32((index as f32 * step).sin())).collect()
    };
    let q = stream.clone_htod(&wave(0.37))?;
    let (k, v) = (stream.clone_htod(&wave(0.61))?, stream.clone_htod(&wave(0.83))?);
    let mut out = stream.alloc_zeros::<bf16>(elements)?;
    let mut out_exact = stream.alloc_zeros::<bf16>(elements)?;
    let args = ForwardArgs::new(&q, &k, &v, &mut out).workspace(&mut workspace);
    prepared.launch(&stream, args)?;
    attention.launch(&stream, &exact, ForwardArgs::new(&q, &k, &v, &mut out_exact))?;

    let (out, out_exact) = (stream.clone_dtoh(&out)?, stream.clone_dtoh(&out_exact)?);
    let differences = out.iter().zip(&out_exact).map(|(got, want)| got.to_f64() - want.to_f64());
    let squares: f64 = differences.map(|difference| difference * difference).sum();
    println!("root mean square difference from bf16: {:.5}", (squares / elements as f64).sqrt());
    Ok(())
}
