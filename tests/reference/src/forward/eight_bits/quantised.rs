//! A call's tensors as a right quantiser leaves them.

use fulgurite::Dtype;

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
    /// What values are: e4m3, or the tensors' own type, in which they stay as they are.
    pub values: Dtype,
}

/// How near to the middle of two integers float32 may round either way: it has a number of 127 to
/// within 2⁻¹⁸, and some additions before it.
const NEAR_MIDDLE: f64 = 1.0 / 16384.0;

/// Integers that share scales, as they are made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Integers {
    /// The integers, row after row.
    pub elements: Vec<i8>,
    /// Which of them float32 may round the other way.
    pub doubtful: Vec<bool>,
    /// Their scales.
    pub scales: Vec<f32>,
}

impl Integers {
    /// Adds rows that share a scale.
    fn add(&mut self, rows: &[Vec<f64>]) {
        let scale = s8_scale(largest(rows.iter().flatten()));
        self.scales.push(scale as f32);
        self.elements.extend(rows.iter().flatten().map(|x| s8(*x, scale)));
        let is_doubtful = |x: &f64| ((x / scale).fract().abs() - 0.5).abs() < NEAR_MIDDLE;
        self.doubtful.extend(rows.iter().flatten().map(is_doubtful));
    }
}

/// A call's tensors in 8 bits, contiguous, every batch entry with K and V of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantised {
    /// What of the scheme depends on the kernel.
    pub shape: Shape,
    /// `[batch, query head, q_len, head dim]`, rotated; a scale for each row.
    pub q: Integers,
    /// `[batch, query head, q_len]`: `scale · q·k_shift`.
    pub q_shift: Vec<f32>,
    /// `[batch, KV head, kv_len, head dim]`, less `k_shift`, rotated; a scale for each KV tile.
    pub k: Integers,
    /// `[batch, KV head, head dim]`, not rotated.
    pub k_shift: Vec<f32>,
    /// e4m3 `[batch, KV head, kv_len, head dim]`, less `v_shift`. This and what follows is empty
    /// where values stay as they are.
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
            q: Integers::default(),
            q_shift: Vec::new(),
            k: Integers::default(),
            k_shift: Vec::new(),
            v8: Vec::new(),
            v_scale: Vec::new(),
            v_shift: Vec::new(),
        };
        let head_dim = shape.head_dim;
        for batch in 0..batches {
            for head in 0..kv_heads {
                all.add_k(&rows(&problem.k, batch, head, head_dim));
                if shape.values == Dtype::E4m3 {
                    all.add_v(&rows(&problem.v, batch, head, head_dim));
                }
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
            self.q.add(&[rotated(row)]);
        }
    }

    fn add_k(&mut self, rows: &Rows) {
        let means = means(rows);
        for tile in less(rows, &means).chunks(self.shape.kv_rows) {
            let tile: Rows = tile.iter().map(|row| rotated(row)).collect();
            self.k.add(&tile);
        }
        self.k_shift.extend(means.iter().map(|mean| *mean as f32));
    }

    fn add_v(&mut self, rows: &Rows) {
        let means = means(rows);
        let scale = e4m3_scale(rows, &means);
        let elements = less(rows, &means).into_iter().flatten();
        self.v8.extend(
            elements
                .map(|x| e4m3::encode(if x.is_finite() { (x / scale) as f32 } else { f32::NAN })),
        );
        self.v_scale.push(scale as f32);
        self.v_shift.extend(means.iter().map(|mean| *mean as f32));
    }
}
