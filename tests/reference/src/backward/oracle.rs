//! The reference: gradients in float64, written to be trusted at a glance.
//!
//! With weights `w` of a row, `dp_j = d_out · v_j` and `delta = Σ w_j dp_j`, which is
//! `d_out · out`, gradients of scores are `w_j (dp_j − delta + d_lse)`. Keys that the mask
//! excludes are never read.

use rayon::prelude::*;

use super::{Gradients, OfHead, joined};
use crate::forward::oracle::Problem;
use crate::tensor::View;

/// Gradients of the sum of `d_out ∘ attention(problem)` and, where there is one, of `d_lse ∘` the
/// log-sum-exp, `[batch, head, row]`.
pub fn gradients(problem: &Problem, d_out: View, d_lse: Option<&[f32]>) -> Gradients<f64> {
    let [batches, kv_heads, ..] = problem.k.layout.shape;
    let of_head = |index: usize| head(problem, d_out, d_lse, [index / kv_heads, index % kv_heads]);
    joined((0..batches * kv_heads).into_par_iter().map(of_head).collect())
}

/// The rows of a head as float64.
fn rows(tensor: View, batch: usize, head: usize) -> Vec<Vec<f64>> {
    let row = |row| tensor.row([batch, head, row]).map(f64::from).collect();
    (0..tensor.layout.shape[2]).map(row).collect()
}

fn head(
    problem: &Problem,
    d_out: View,
    d_lse: Option<&[f32]>,
    [batch, kv_head]: [usize; 2],
) -> OfHead<f64> {
    let [_, heads, q_len, head_dim] = problem.q.layout.shape;
    let group = heads / problem.k.layout.shape[1];
    let (keys, values) = (rows(problem.k, batch, kv_head), rows(problem.v, batch, kv_head));
    let zeros = |rows: usize| vec![0.0; rows * head_dim];
    let (mut dq, mut dk, mut dv) = (zeros(group * q_len), zeros(keys.len()), zeros(keys.len()));
    for (place, head) in (kv_head * group..(kv_head + 1) * group).enumerate() {
        let (queries, d_outs) = (rows(problem.q, batch, head), rows(d_out, batch, head));
        for (row, (query, d_out)) in queries.iter().zip(&d_outs).enumerate() {
            let kept = problem.kept_keys(row);
            let scores: Vec<f64> =
                keys[kept.clone()].iter().map(|key| problem.scale * dot(query, key)).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= total);
            let dp: Vec<f64> = values[kept.clone()].iter().map(|value| dot(d_out, value)).collect();
            let of_lse = d_lse.map_or(0.0, |all| all[(batch * heads + head) * q_len + row].into());
            let delta = dot(&weights, &dp) - of_lse;
            let dq = &mut dq[(place * q_len + row) * head_dim..][..head_dim];
            for (key, (weight, dp)) in kept.zip(weights.iter().zip(&dp)) {
                let ds = problem.scale * weight * (dp - delta);
                add(dq, ds, &keys[key]);
                add(&mut dk[key * head_dim..][..head_dim], ds, query);
                add(&mut dv[key * head_dim..][..head_dim], *weight, d_out);
            }
        }
    }
    Gradients { q: dq, k: dk, v: dv }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(sums: &mut [f64], factor: f64, row: &[f64]) {
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
}
