//! Causal attention of two sequences on the first GPU.

use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let stream = attention.context().default_stream();
    let layout = Layout::bshd(Dtype::Bf16, 2, 4096, 16, 128); // batch, rows, heads, head_dim
    let request = Forward::new(layout, layout, layout, layout, Mask::Causal);
    let prepared = attention.plan(&request)?; // checks everything, loads the kernel

    // Queries of 0 weigh all keys alike: row r of the output is the mean of v's rows 0 to r.
    let (row, entry) = (16 * 128, 4096 * 16 * 128);
    let value = |index: usize| bf16::from_f32((index % entry / row) as f32 / 4096.0);
    let q = stream.alloc_zeros::<bf16>(2 * entry)?;
    let k = stream.clone_htod(&vec![bf16::ONE; 2 * entry])?;
    let v = stream.clone_htod(&(0..2 * entry).map(value).collect::<Vec<_>>())?;
    let mut out = stream.alloc_zeros::<bf16>(2 * entry)?;
    prepared.launch(&stream, ForwardArgs::new(&q, &k, &v, &mut out))?;

    let out = stream.clone_dtoh(&out)?;
    for r in [0, 1024, 4095] {
        println!("row {r}: {} (the mean is {})", out[r * row], r as f32 / 8192.0);
    }
    Ok(())
}
