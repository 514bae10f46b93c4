//! A model of a good backward on tensor cores, for deriving what error is unavoidable.
//!
//! It starts from the output and the log-sum-exp as the forward stored them. Scores, probabilities
//! and sums are float32; probabilities and gradients of scores are rounded to the element type
//! before they are multiplied, and gradients once at the end.

use std::f32::consts::LOG2_E;

use rayon::prelude::*;

use super::{Gradients, OfHead, joined};
use crate::forward::oracle::Problem;
use crate::tensor::{View, decode, encode};

/// What a forward left, its output and the log-sum-exp of each row, and the latter's gradient.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The output.
    pub out: View<'a>,
    /// The log-sum-exp, `[batch, head, row]`.
    pub lse: &'a [f32],
    /// Its gradient, if there is one.
    pub d_lse: Option<&'a [f32]>,
}

/// The model's gradients, as elements.
pub fn gradients(problem: &Problem, stored: Stored, d_out: View) -> Gradients<u16> {
    let [batches, kv_heads, ..] = problem.k.layout.shape;
    let of_head = |index: usize| head(problem, stored, d_out, [index / kv_heads, index % kv_heads]);
    joined((0..batches * kv_heads).into_par_iter().map(of_head).collect())
}

fn rows(tensor: View, batch: usize, head: usize) -> Vec<Vec<f32>> {
    (0..tensor.layout.shape[2]).map(|row| tensor.row([batch, head, row]).collect()).collect()
}

fn head(
    problem: &Problem,
    stored: Stored,
    d_out: View,
    [batch, kv_head]: [usize; 2],
) -> OfHead<u16> {
    let dtype = problem.q.layout.dtype;
    let [_, heads, q_len, head_dim] = problem.q.layout.shape;
    let group = heads / problem.k.layout.shape[1];
    let scale_log2 = problem.scale as f32 * LOG2_E;
    let round = |x: f32| decode(dtype, encode(dtype, f64::from(x)));
    let (keys, values) = (rows(problem.k, batch, kv_head), rows(problem.v, batch, kv_head));
    let zeros = |rows: usize| vec![0.0_f32; rows * head_dim];
    let (mut dq, mut dk, mut dv) = (zeros(group * q_len), zeros(keys.len()), zeros(keys.len()));
    for (place, head) in (kv_head * group..(kv_head + 1) * group).enumerate() {
        let (queries, outs) = (rows(problem.q, batch, head), rows(stored.out, batch, head));
        let d_outs = rows(d_out, batch, head);
        for (row, (query, d_out)) in queries.iter().zip(&d_outs).enumerate() {
            let index = (batch * heads + head) * q_len + row;
            let lse2 = stored.lse[index] * LOG2_E;
            let delta = dot(d_out, &outs[row]) - stored.d_lse.map_or(0.0, |all| all[index]);
            let dq = &mut dq[(place * q_len + row) * head_dim..][..head_dim];
            for key in problem.kept_keys(row) {
                let prob = dot(query, &keys[key]).mul_add(scale_log2, -lse2).exp2();
                let ds = round(prob * (dot(d_out, &values[key]) - delta));
                add(dq, ds, &keys[key]);
                add(&mut dk[key * head_dim..][..head_dim], ds, query);
                add(&mut dv[key * head_dim..][..head_dim], round(prob), d_out);
            }
        }
    }
    let stored = |sums: Vec<f32>, factor: f32| {
        sums.into_iter().map(|sum| encode(dtype, f64::from(sum * factor))).collect()
    };
    let scale = problem.scale as f32;
    Gradients { q: stored(dq, scale), k: stored(dk, scale), v: stored(dv, 1.0) }
}

/// Sum of products in float32, in eight interleaved sums.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

fn add(sums: &mut [f32], factor: f32, row: &[f32]) {
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
}
