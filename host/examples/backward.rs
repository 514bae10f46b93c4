//! Gradients: the forward leaves its output and its log-sum-exp, from which the backward computes
//! those of q, k and v, with the same bits on every launch.
//!
//! `cargo run --release -p fulgurite --example backward`

use fulgurite::{
    Backward, BackwardArgs, Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask, Workspace,
};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let stream = attention.context().default_stream();
    // batch, rows, heads, head_dim: 4 query heads share a KV head.
    let (qo, kv) =
        (Layout::bshd(Dtype::Bf16, 2, 1000, 8, 128), Layout::bshd(Dtype::Bf16, 2, 1000, 2, 128));
    let forward = Forward::new(qo, kv, kv, qo, Mask::Causal).with_lse();
    let backward = Backward::new(&forward, qo, qo, kv, kv); // layouts of d_out, dq, dk, dv
    let (forward, backward) = (attention.plan(&forward)?, attention.plan(&backward)?);
    println!("{}", backward.plan()); // three kernels, and the workspace's bytes
    let mut workspace = Workspace::new(&stream);
    workspace.grow(backward.plan().workspace_bytes())?;

    let ones = |heads: usize| vec![bf16::ONE; 2 * 1000 * heads * 128];
    let (q, k) = (stream.clone_htod(&ones(8))?, stream.clone_htod(&ones(2))?);
    let (v, d_out) = (stream.clone_htod(&ones(2))?, stream.clone_htod(&ones(8))?);
    let zeros = |heads: usize| stream.alloc_zeros::<bf16>(2 * 1000 * heads * 128);
    let (mut out, mut lse) = (zeros(8)?, stream.alloc_zeros::<f32>(2 * 8 * 1000)?);
    forward.launch(&stream, ForwardArgs::new(&q, &k, &v, &mut out).lse(&mut lse))?;

    let (mut dq, mut dk, mut dv) = (zeros(8)?, zeros(2)?, zeros(2)?);
    let args = BackwardArgs::new(&q, &k, &v, &out, &lse, &d_out, &mut dq, &mut dk, &mut dv);
    backward.launch(&stream, args.workspace(&mut workspace))?;

    // The last key is seen by the last row of each of 4 heads, with the weight of one of 1000 keys.
    let dv = stream.clone_dtoh(&dv)?;
    println!("dv of the last key: {} (4 / 1000)", dv[999 * 2 * 128]);
    Ok(())
}
