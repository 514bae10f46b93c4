//! Q, K and V as slices of one tensor, `[batch, rows, 3, heads, head_dim]`, without a copy: strides
//! say where rows are, views where each of the three begins.

use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
use half::bf16;

const BATCH: usize = 2;
const ROWS: usize = 1000;
const HEADS: usize = 12;
const HEAD_DIM: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let attention = FlashAttention::open(0)?;
    let stream = attention.context().default_stream();
    let part = HEADS * HEAD_DIM; // elements of q in a row; then come those of k, then of v
    let row = 3 * part;
    let shape = [BATCH, HEADS, ROWS, HEAD_DIM];
    let packed = Layout::strided(Dtype::Bf16, shape, [ROWS * row, HEAD_DIM, row, 1]);
    let out = Layout::bshd(Dtype::Bf16, BATCH, ROWS, HEADS, HEAD_DIM);
    let request = Forward::new(packed, packed, packed, out, Mask::Full);
    let prepared = attention.plan(&request)?;

    // Q is 0, so that each output is the mean of its head's values: the head's number.
    let element = |index: usize| match index % row / part {
        0 => bf16::ZERO,
        1 => bf16::ONE,
        _ => bf16::from_f32((index % part / HEAD_DIM) as f32),
    };
    let qkv: Vec<bf16> = (0..BATCH * ROWS * row).map(element).collect();
    let qkv = stream.clone_htod(&qkv)?;
    let (q, k, v) = (qkv.slice(0..), qkv.slice(part..), qkv.slice(2 * part..));
    let mut out = stream.alloc_zeros::<bf16>(BATCH * ROWS * part)?;
    prepared.launch(&stream, ForwardArgs::new(&q, &k, &v, &mut out))?;

    let out = stream.clone_dtoh(&out)?;
    let heads: Vec<String> = (0..HEADS).map(|head| out[head * HEAD_DIM].to_string()).collect();
    println!("the first row's heads: {}", heads.join(", "));
    Ok(())
}
