//! Grouped heads, more keys than queries, and the log-sum-exp: 32 query heads share 8 KV heads, and
//! the 512 queries are the last rows of 2048, as when a prompt is worked on in chunks.

use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::f16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let stream = attention.context().default_stream();
    let q = Layout::bshd(Dtype::F16, 1, 512, 32, 128);
    let kv = Layout::bshd(Dtype::F16, 1, 2048, 8, 128);
    let request = Forward::new(q, kv, kv, q, Mask::Causal).scale(0.125).with_lse();
    let prepared = attention.plan(&request)?;
    for launch in prepared.plan().launches() {
        println!("{}: {} on {} blocks", attention.facts().name, launch.entry(), launch.grid());
    }

    // Every q·k is 128 · 1/16, and scaled 1: the log-sum-exp of n keys is 1 + ln n.
    let (q_len, kv_len) = (512 * 32 * 128, 2048 * 8 * 128);
    let q = stream.clone_htod(&vec![f16::from_f32(0.25); q_len])?;
    let k = stream.clone_htod(&vec![f16::from_f32(0.25); kv_len])?;
    let v = stream.clone_htod(&vec![f16::from_f32(3.5); kv_len])?;
    let mut out = stream.alloc_zeros::<f16>(q_len)?;
    let mut lse = stream.alloc_zeros::<f32>(32 * 512)?;
    prepared.launch(&stream, ForwardArgs::new(&q, &k, &v, &mut out).lse(&mut lse))?;

    let (out, lse) = (stream.clone_dtoh(&out)?, stream.clone_dtoh(&lse)?);
    for row in [0, 511] {
        // The last query sees all keys, each before it one less.
        let keys = 2048 - 511 + row;
        let exact = 1.0 + (keys as f32).ln();
        println!("row {row}: {keys} keys, lse {} (1 + ln {keys} = {exact})", lse[row]);
        println!("  every value is 3.5, and so is the output: {}", out[row * 32 * 128]);
    }
    Ok(())
}
