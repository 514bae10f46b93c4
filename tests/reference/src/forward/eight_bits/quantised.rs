//! A call's tensors as a right quantiser leaves them.

use crate::e4m3;
use crate::forward::oracle::Problem;
use crate::forward::quantise::{
    Rows, dot, e4m3_scale, largest, less, means, rotated, rows, s8, s8_scale,
};

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
                all.add_k(&rows(&problem.k, batch, head, head_dim));
                all.add_v(&rows(&problem.v, batch, head, head_dim));
            }
            for head in 0..q_heads {
                let entry = batch * kv_heads + problem.kv_head(head);
                let k_shift = all.k_shift[entry * head_dim..(entry + 1) * head_dim].iter();
                let k_shift: Vec<f64> = k_shift.copied().map(f64::from).collect();
                all.add_q(&rows(&problem.q, batch, head, head_dim), &k_shift, problem.scale);
            }
        }
        all
    }

    fn add_q(&mut self, rows: &Rows, k_shift: &[f64], scale: f64) {
        for row in rows {
            self.q_shift.push((scale * dot(row, k_shift)) as f32);
            add_integers(&[rotated(row)], &mut self.q_scale, &mut self.q8);
        }
    }

    fn add_k(&mut self, rows: &Rows) {
        let means = finite_means(rows);
        for tile in less(rows, &means).chunks(self.shape.kv_rows) {
            let tile: Rows = tile.iter().map(|row| rotated(row)).collect();
            add_integers(&tile, &mut self.k_scale, &mut self.k8);
        }
        self.k_shift.extend(means.iter().map(|mean| *mean as f32));
    }

    fn add_v(&mut self, rows: &Rows) {
        let means = finite_means(rows);
        // A NaN stays in its column: the scale is that of the others.
        let sizes = rows.iter().flatten().filter(|x| !x.is_nan());
        let scale = e4m3_scale(largest(sizes), largest(&means));
        let elements = less(rows, &means).into_iter().flatten();
        self.v8.extend(elements.map(|x| e4m3::encode((x / scale) as f32)));
        self.v_scale.push(scale as f32);
        self.v_shift.extend(means.iter().map(|mean| *mean as f32));
    }
}

/// The mean of each column, as float32 has it. One that is no number would spread to all keys:
/// nothing is subtracted there.
fn finite_means(rows: &Rows) -> Vec<f64> {
    let finite = |mean: f64| if mean.is_finite() { f64::from(mean as f32) } else { 0.0 };
    means(rows).into_iter().map(finite).collect()
}

/// Rows that share a scale.
fn add_integers(rows: &[Vec<f64>], scales: &mut Vec<f32>, integers: &mut Vec<i8>) {
    let scale = s8_scale(largest(rows.iter().flatten()));
    scales.push(scale as f32);
    integers.extend(rows.iter().flatten().map(|x| s8(*x, scale)));
}
