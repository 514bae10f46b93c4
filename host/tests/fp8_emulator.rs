//! The kernels of 8 bits as a plan launches them, on the emulator: quantiser and forward together
//! compute attention, up to the rounding of e4m3.

use fulgurite::{Dtype, Emulator, Forward, ForwardArgs, Layout, Mask, Precision};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const Q_LEN: usize = 70;
const KV_LEN: usize = 200;
const HEADS: usize = 2;

/// Largest error of an output, as a part of the mean size of the values that it is made of, and
/// of a log-sum-exp.
const TOLERANCE: f64 = 3e-2;

/// Numbers around a mean that an unshifted scheme would lose precision to.
fn random(rng: &mut ChaCha8Rng, count: usize, mean: f32) -> Vec<bf16> {
    (0..count).map(|_| bf16::from_f32(mean + rng.random_range(-2.0..2.0))).collect()
}

/// One row's output, the mean sizes of the values in it, and its log-sum-exp, in float64.
fn exact(q: &[bf16], k: &[bf16], v: &[bf16], keys: usize) -> (Vec<f64>, Vec<f64>, f64) {
    let head_dim = q.len();
    let row = |tensor: &[bf16], key: usize| -> Vec<f64> {
        tensor[key * head_dim..][..head_dim].iter().map(|value| value.to_f64()).collect()
    };
    let q = row(q, 0);
    let score = |key| {
        let dot: f64 = row(k, key).iter().zip(&q).map(|(k, q)| k * q).sum();
        dot / (head_dim as f64).sqrt()
    };
    let scores: Vec<f64> = (0..keys).map(score).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
    let (mut out, mut sizes) = (vec![0.0; head_dim], vec![0.0; head_dim]);
    for (key, score) in scores.iter().enumerate() {
        let weight = (score - largest).exp() / sum;
        for (column, value) in row(v, key).into_iter().enumerate() {
            out[column] += weight * value;
            sizes[column] += weight * value.abs();
        }
    }
    (out, sizes, largest + sum.ln())
}

fn check(head_dim: usize, mask: Mask) {
    let q_layout = Layout::bhsd(Dtype::Bf16, 1, HEADS, Q_LEN, head_dim);
    let kv_layout = Layout::bhsd(Dtype::Bf16, 1, 1, KV_LEN, head_dim);
    let request = Forward::new(q_layout, kv_layout, kv_layout, q_layout, mask).with_lse();
    let request = request.precision(Precision::S8E4m3);

    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let q = random(&mut rng, HEADS * Q_LEN * head_dim, 0.0);
    let k = random(&mut rng, KV_LEN * head_dim, 1.0);
    let v = random(&mut rng, KV_LEN * head_dim, 1.0);
    let mut out = vec![bf16::NAN; q.len()];
    let mut lse = vec![f32::NAN; HEADS * Q_LEN];
    let emulator = Emulator::new();
    let plan = emulator.plan(&request).unwrap();
    emulator.launch(&plan, ForwardArgs::new(&q, &k, &v, &mut out).lse(&mut lse)).unwrap();

    for (row, lse) in lse.into_iter().enumerate() {
        let keys = match mask {
            Mask::Causal => KV_LEN - Q_LEN + row % Q_LEN + 1,
            _ => KV_LEN,
        };
        let columns = row * head_dim..(row + 1) * head_dim;
        let (want, sizes, want_lse) = exact(&q[columns.clone()], &k, &v, keys);
        for ((got, want), size) in out[columns].iter().zip(want).zip(sizes) {
            let error = (got.to_f64() - want).abs();
            assert!(error <= TOLERANCE * size, "row {row}: {got} for {want}, {}", mask.name());
        }
        let error = (f64::from(lse) - want_lse).abs();
        assert!(error <= TOLERANCE, "row {row}: lse {lse} for {want_lse}");
    }
}

#[test]
fn every_key_is_seen_or_those_up_to_the_row() {
    check(64, Mask::Full);
    check(64, Mask::Causal);
}

/// 80 columns in a kernel of 96, whose rotation has blocks of 32.
#[test]
fn columns_are_padded() {
    check(80, Mask::Causal);
}
