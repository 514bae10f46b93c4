//! The reference: attention in float64, written to be trusted at a glance.
//!
//! A key that the mask excludes is never read: it is skipped, not multiplied by zero, so that a NaN
//! in it cannot spread. A row without any key gives zeros and a log-sum-exp of −∞.

use fulgurite::Mask;
use rayon::prelude::*;

use crate::tensor::View;

/// One query row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId {
    /// Index of the batch entry.
    pub batch: usize,
    /// Index of the query head.
    pub head: usize,
    /// Index of the row in its head.
    pub row: usize,
}

/// Inputs and options of one attention.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// Queries (batch, head, row, head dim).
    pub q: View<'a>,
    /// Keys; as many heads as V, a divisor of the heads of Q.
    pub k: View<'a>,
    /// Values.
    pub v: View<'a>,
    /// Which keys a row may see.
    pub mask: Mask,
    /// Factor on the scores before the softmax.
    pub scale: f64,
}

impl Problem<'_> {
    /// Number of keys a row sees: always the first ones.
    pub fn kept_keys(&self, row: usize) -> usize {
        let (q_len, kv_len) = (self.q.layout.shape[2], self.k.layout.shape[2]);
        match self.mask {
            Mask::Full => kv_len,
            Mask::Causal => (row + 1 + kv_len).saturating_sub(q_len),
        }
    }

    /// The KV head that a query head reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head / (self.q.layout.shape[1] / self.k.layout.shape[1])
    }

    /// Every query row, in order.
    pub fn rows(&self) -> Vec<RowId> {
        let [batches, heads, rows, _] = self.q.layout.shape;
        let all = (0..batches * heads * rows).map(|index| RowId {
            batch: index / (heads * rows),
            head: index / rows % heads,
            row: index % rows,
        });
        all.collect()
    }
}

/// The exact answer for some rows.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The rows, in the order of the results.
    pub rows: Vec<RowId>,
    /// Elements of one output row.
    pub head_dim: usize,
    /// Outputs, row after row.
    pub out: Vec<f64>,
    /// Log-sum-exp of each row's scaled scores, natural logarithm.
    pub lse: Vec<f64>,
    /// Largest absolute scaled score of each row: the size against which its rounding counts.
    pub peak: Vec<f64>,
    /// Number of keys each row sees.
    pub kept: Vec<usize>,
}

/// Rows of one head that one task computes.
const TASK_ROWS: usize = 64;

/// Attention of the given rows, which must be sorted.
pub fn attention(problem: &Problem, rows: &[RowId]) -> Reference {
    let head_dim = problem.v.layout.shape[3];
    let tasks: Vec<&[RowId]> = rows
        .chunk_by(|a, b| (a.batch, a.head) == (b.batch, b.head))
        .flat_map(|head| head.chunks(TASK_ROWS))
        .collect();
    let answers: Vec<Vec<RowAnswer>> =
        tasks.par_iter().map(|task| head_rows(problem, task)).collect();
    let mut reference = Reference {
        rows: rows.to_vec(),
        head_dim,
        out: Vec::with_capacity(rows.len() * head_dim),
        lse: Vec::with_capacity(rows.len()),
        peak: Vec::with_capacity(rows.len()),
        kept: rows.iter().map(|id| problem.kept_keys(id.row)).collect(),
    };
    for answer in answers.into_iter().flatten() {
        reference.out.extend(answer.out);
        reference.lse.push(answer.lse);
        reference.peak.push(answer.peak);
    }
    reference
}

struct RowAnswer {
    out: Vec<f64>,
    lse: f64,
    peak: f64,
}

/// Attention of rows of one head.
fn head_rows(problem: &Problem, rows: &[RowId]) -> Vec<RowAnswer> {
    let (batch, kv_head) = (rows[0].batch, problem.kv_head(rows[0].head));
    let most_keys = rows.iter().map(|id| problem.kept_keys(id.row)).max().unwrap_or(0);
    let load = |tensor: View| -> Vec<Vec<f64>> {
        let row = |key| tensor.row([batch, kv_head, key]).map(f64::from).collect();
        (0..most_keys).map(row).collect()
    };
    let (keys, values) = (load(problem.k), load(problem.v));
    let one_row = |id: &RowId| {
        let q_row: Vec<f64> = problem.q.row([batch, id.head, id.row]).map(f64::from).collect();
        let kept = problem.kept_keys(id.row);
        softmax_row(&q_row, &keys[..kept], &values[..kept], problem.scale)
    };
    rows.iter().map(one_row).collect()
}

/// One row of attention over the keys it sees.
fn softmax_row(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], scale: f64) -> RowAnswer {
    let mut out = vec![0.0; q.len()];
    if keys.is_empty() {
        return RowAnswer { out, lse: f64::NEG_INFINITY, peak: 0.0 };
    }
    let scores: Vec<f64> = keys.iter().map(|key| scale * dot(q, key)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    for (weight, value) in weights.iter().zip(values) {
        for (sum, x) in out.iter_mut().zip(value) {
            *sum += weight / total * x;
        }
    }
    let peak = scores.iter().copied().map(f64::abs).fold(0.0, f64::max);
    RowAnswer { out, lse: max + total.ln(), peak }
}

/// Sum of products, in four interleaved sums so that the compiler can use vector registers.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    for (a, b) in a.chunks(4).zip(b.chunks(4)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}
