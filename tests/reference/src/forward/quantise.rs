//! The quantiser on the host, number by number: what its kernels must leave, and what the forward
//! kernels of 8-bit elements read (`fulgurite_spec::quantise` says what each step is for).

use fulgurite_spec::quantise::{E4M3_MAX, KEY_ORDER, S8_MAX, rotation};

use super::oracle::Problem;
use crate::e4m3;
use crate::tensor::View;

/// The least size that rows and tiles are scaled by: one that is smaller has no inverse in float32.
pub const LEAST_AMAX: f32 = f32::from_bits((127 - 96) << 23);

/// What of the scheme depends on the forward kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The kernel's head dim; columns beyond the tensors' own are zeros.
    pub head_dim: usize,
    /// Keys that share a scale.
    pub kv_rows: usize,
}

/// A call's tensors in 8 bits, contiguous, every batch entry with K and V of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantised {
    /// What of the scheme depends on the kernel.
    pub shape: Shape,
    /// `[batch, query head, q_len, head dim]`, rotated.
    pub q8: Vec<i8>,
    /// `[batch, query head, q_len]`.
    pub q_scale: Vec<f32>,
    /// `[batch, query head, q_len]`: `scale · q·k_shift`.
    pub q_shift: Vec<f32>,
    /// `[batch, KV head, kv_len, head dim]`, less `k_shift`, rotated.
    pub k8: Vec<i8>,
    /// `[batch, KV head, KV tiles]`.
    pub k_scale: Vec<f32>,
    /// `[batch, KV head, head dim]`, not rotated.
    pub k_shift: Vec<f32>,
    /// e4m3 `[batch, KV head, kv_len, head dim]`, less `v_shift`.
    pub v8: Vec<u8>,
    /// `[batch, KV head]`.
    pub v_scale: Vec<f32>,
    /// `[batch, KV head, head dim]`.
    pub v_shift: Vec<f32>,
}

impl Quantised {
    /// Quantises a call's tensors.
    pub fn of(problem: &Problem, shape: Shape) -> Quantised {
        let ([batches, q_heads, ..], [_, kv_heads, ..]) =
            (problem.q.layout.shape, problem.k.layout.shape);
        let mut all = Quantised {
            shape,
            q8: Vec::new(),
            q_scale: Vec::new(),
            q_shift: Vec::new(),
            k8: Vec::new(),
            k_scale: Vec::new(),
            k_shift: Vec::new(),
            v8: Vec::new(),
            v_scale: Vec::new(),
            v_shift: Vec::new(),
        };
        let head_dim = shape.head_dim;
        for batch in 0..batches {
            for head in 0..kv_heads {
                all.add_k(&rows(problem.k, [batch, head], head_dim));
                all.add_v(&rows(problem.v, [batch, head], head_dim));
            }
            for head in 0..q_heads {
                let entry = batch * kv_heads + problem.kv_head(head);
                let k_shift = all.k_shift[entry * head_dim..(entry + 1) * head_dim].to_vec();
                all.add_q(rows(problem.q, [batch, head], head_dim), &k_shift, problem.scale);
            }
        }
        all
    }

    fn add_q(&mut self, rows: Vec<Vec<f32>>, k_shift: &[f32], scale: f64) {
        for mut row in rows {
            let products = row.iter().zip(k_shift).map(|(q, k)| f64::from(*q) * f64::from(*k));
            self.q_shift.push((scale * products.sum::<f64>()) as f32);
            rotate(&mut row);
            let amax = amax(&row);
            self.q_scale.push(integer_scale(amax, self.shape.head_dim));
            self.q8.extend(row.iter().map(|x| to_integer(*x, amax)));
        }
    }

    fn add_k(&mut self, rows: &[Vec<f32>]) {
        let means = means(rows, self.shape.head_dim);
        for tile in rows.chunks(self.shape.kv_rows) {
            let less_mean = |row: &Vec<f32>| {
                let mut row: Vec<f32> = row.iter().zip(&means).map(|(x, c)| x - c).collect();
                rotate(&mut row);
                row
            };
            let tile: Vec<Vec<f32>> = tile.iter().map(less_mean).collect();
            let amax = tile.iter().map(|row| amax(row)).fold(LEAST_AMAX, max_or_nan);
            self.k_scale.push(integer_scale(amax, self.shape.head_dim));
            self.k8.extend(tile.iter().flatten().map(|x| to_integer(*x, amax)));
        }
        self.k_shift.extend(means);
    }

    fn add_v(&mut self, rows: &[Vec<f32>]) {
        let means = means(rows, self.shape.head_dim);
        let largest = |numbers: &[f32]| numbers.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let amax = rows.iter().map(|row| largest(row)).fold(0.0, f32::max);
        // No element less its mean is larger than that.
        let scale = (amax + largest(&means)).max(LEAST_AMAX) / E4M3_MAX;
        let inverse = 1.0 / scale;
        let quantised = |row: &Vec<f32>| -> Vec<u8> {
            row.iter().zip(&means).map(|(x, c)| e4m3::encode((x - c) * inverse)).collect()
        };
        self.v8.extend(rows.iter().flat_map(quantised));
        self.v_scale.push(scale);
        self.v_shift.extend(means);
    }

    /// V as the forward kernels read it: e4m3 `[head dim, kv_pad]` of one batch entry and KV head,
    /// keys permuted, zeros behind the last.
    pub fn transposed(&self, entry: usize, kv_len: usize, kv_pad: usize) -> Vec<u8> {
        let head_dim = self.shape.head_dim;
        let key_at = |place: usize| place / 16 * 16 + usize::from(KEY_ORDER[place % 16]);
        let element = |index: usize| match (index / kv_pad, key_at(index % kv_pad)) {
            (column, key) if key < kv_len => self.v8[(entry * kv_len + key) * head_dim + column],
            _ => 0,
        };
        (0..head_dim * kv_pad).map(element).collect()
    }
}

/// All rows of a head, padded with zeros.
fn rows(tensor: View, [batch, head]: [usize; 2], head_dim: usize) -> Vec<Vec<f32>> {
    let row = |row: usize| {
        let mut numbers: Vec<f32> = tensor.row([batch, head, row]).collect();
        numbers.resize(head_dim, 0.0);
        numbers
    };
    (0..tensor.layout.shape[2]).map(row).collect()
}

/// The mean of each column. One that is no number would spread to all keys: nothing is subtracted
/// there.
fn means(rows: &[Vec<f32>], head_dim: usize) -> Vec<f32> {
    let mean = |column: usize| {
        let sum: f64 = rows.iter().map(|row| f64::from(row[column])).sum();
        let mean = (sum / rows.len() as f64) as f32;
        if mean.is_finite() { mean } else { 0.0 }
    };
    (0..head_dim).map(mean).collect()
}

/// Signs and butterflies, without the factor that makes the matrix orthogonal.
fn rotate(row: &mut [f32]) {
    for (column, x) in row.iter_mut().enumerate() {
        if rotation::is_negated(column as u32) {
            *x = -*x;
        }
    }
    let block = rotation::block(row.len() as u32) as usize;
    for block in row.chunks_mut(block) {
        let mut step = 1;
        while step < block.len() {
            for first in (0..block.len()).filter(|column| column & step == 0) {
                let (a, b) = (block[first], block[first + step]);
                (block[first], block[first + step]) = (a + b, a - b);
            }
            step *= 2;
        }
    }
}

/// The larger, or a NaN if there is one.
fn max_or_nan(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// The largest size in a row, or NaN.
fn amax(row: &[f32]) -> f32 {
    row.iter().map(|x| x.abs()).fold(LEAST_AMAX, max_or_nan)
}

/// What integers are multiplied with.
fn integer_scale(amax: f32, head_dim: usize) -> f32 {
    amax / S8_MAX * rotation::norm(head_dim as u32)
}

/// The nearest integer; NaN is 0, for its scale says it.
fn to_integer(x: f32, amax: f32) -> i8 {
    (x * (S8_MAX / amax)).round_ties_even() as i8
}

#[cfg(test)]
mod tests {
    use fulgurite::{Dtype, Mask};

    use super::*;
    use crate::forward::values::Values;

    #[test]
    fn rotated_rows_keep_their_products_and_blocks_their_places() {
        for head_dim in [64, 96, 128, 192, 256] {
            let one: Vec<f32> = (0..head_dim).map(|i| (i as f32 * 0.7).sin()).collect();
            let other: Vec<f32> = (0..head_dim).map(|i| (i as f32 * 1.3).cos()).collect();
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let want = dot(&one, &other);
            let (mut a, mut b) = (one, other);
            rotate(&mut a);
            rotate(&mut b);
            let norm = rotation::norm(head_dim as u32);
            assert!((dot(&a, &b) * norm * norm - want).abs() < 1e-4, "{head_dim}");
        }
    }

    #[test]
    fn transposed_values_are_permuted_and_padded() {
        let kv = [1, 1, 17, 64];
        let inputs = Values::Normal.inputs(Dtype::Bf16, [1, 1, 3, 64], kv, 5);
        let (q, k, v) = (inputs.q.view(), inputs.k.view(), inputs.v.view());
        let problem = Problem { q, k, v, mask: Mask::Full, scale: 0.125 };
        let all = Quantised::of(&problem, Shape { head_dim: 64, kv_rows: 128 });
        let turned = all.transposed(0, 17, 128);
        assert_eq!(turned.len(), 64 * 128);
        assert_eq!(turned[5 * 128 + 2], all.v8[8 * 64 + 5]);
        assert_eq!(turned[5 * 128 + 16], all.v8[16 * 64 + 5]);
        assert!(turned[5 * 128 + 17..6 * 128].iter().all(|&bits| bits == 0));
        assert!(all.v8.iter().all(|bits| bits & 0x7f <= 0x7e));
    }
}
