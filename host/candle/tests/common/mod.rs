//! Tensors of a fixed sequence, and attention in f64.

#![allow(dead_code, reason = "each test program uses a part")]

use candle_core::{DType, Device, Result, Tensor};

/// A tensor on the CPU: elements of about ±1.7, other ones for each seed.
pub fn tensor(shape: (usize, usize, usize, usize), dtype: DType, seed: u64) -> Tensor {
    let (batch, rows, heads, head_dim) = shape;
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 * 3.4 - 1.7
    };
    let elements = (0..batch * rows * heads * head_dim).map(|_| next()).collect::<Vec<f32>>();
    Tensor::from_vec(elements, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// All elements, on the CPU.
pub fn elements(tensor: &Tensor) -> Vec<f64> {
    let on_cpu = tensor.to_device(&Device::Cpu).unwrap();
    on_cpu.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Output (batch, rows, heads, head_dim) and log-sum-exp (batch, heads, rows), by the definition.
pub fn reference(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f32,
    causal: bool,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (batch, rows, heads, head_dim) = q.dims4()?;
    let (_, keys, kv_heads, _) = k.dims4()?;
    let (q, k, v) = (elements(q), elements(k), elements(v));
    let (mut out, mut lse) = (vec![0.0; q.len()], Vec::new());
    for (entry, head, row) in
        (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..rows).map(move |r| (b, h, r))))
    {
        let at_q = ((entry * rows + row) * heads + head) * head_dim;
        let at_kv =
            |key: usize| ((entry * keys + key) * kv_heads + head * kv_heads / heads) * head_dim;
        let seen = (0..keys).filter(|key| !causal || key + rows <= row + keys);
        let weights = seen.map(|key| {
            let product = (0..head_dim).map(|i| q[at_q + i] * k[at_kv(key) + i]).sum::<f64>();
            (key, (f64::from(scale) * product).exp())
        });
        let weights = weights.collect::<Vec<(usize, f64)>>();
        let sum = weights.iter().map(|(_, weight)| weight).sum::<f64>();
        lse.push(sum.ln());
        for (key, weight) in weights {
            for i in 0..head_dim {
                out[at_q + i] += weight / sum * v[at_kv(key) + i];
            }
        }
    }
    Ok((out, lse))
}

/// Asserts that all elements are near, and NaN nowhere. Infinities have to be equal.
pub fn assert_near(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let near = got == want || (got - want).abs() <= tolerance * want.abs().max(1.0);
        assert!(near, "element {index}: got {got}, want {want}");
    }
}
