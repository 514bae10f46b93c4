//! The reference: attention in float64, written to be trusted at a glance.
//!
//! A key that the mask excludes is never read: it is skipped, not multiplied by zero, so that a NaN
//! in it cannot spread. A row without any key gives zeros and a log-sum-exp of −∞.

use std::ops::Range;

use fulgurite::{Dtype, Mask};
use rayon::prelude::*;

use crate::tensor::{RowId, View};

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

/// The keys, always neighbours, that a mask shows a row of a call with so many queries and keys. By
/// what the mask means, not by the ranges that the kernels work with.
pub fn kept_keys(mask: Mask, (q_len, kv_len): (usize, usize), row: usize) -> Range<usize> {
    let sees = |col: i64| mask.sees(row as i64, col, q_len as i64, kv_len as i64);
    let Some(first) = (0..kv_len as i64).find(|&col| sees(col)) else {
        return 0..0;
    };
    let (mut seen, mut unseen) = (first + 1, kv_len as i64);
    while seen < unseen {
        let col = seen + (unseen - seen) / 2;
        if sees(col) {
            seen = col + 1;
        } else {
            unseen = col;
        }
    }
    first as usize..seen as usize
}

impl Problem<'_> {
    /// The keys that a row sees: always neighbours.
    pub fn kept_keys(&self, row: usize) -> Range<usize> {
        kept_keys(self.mask, (self.q.layout.shape[2], self.k.layout.shape[2]), row)
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
    /// Mean size of what an element sums: Σ weight · |v|, for every element of `out`.
    pub magnitude: Vec<f64>,
    /// The most that rounding subnormal probabilities (f16: below 2⁻¹⁴ of the largest, e4m3: 2⁻⁹)
    /// may change an element, for every element of `out`.
    pub faint: Vec<f64>,
    /// Largest absolute scaled score of each row: the size against which its rounding counts.
    pub peak: Vec<f64>,
    /// By how much each row's largest score exceeds its second; +∞ for a single key.
    pub lead: Vec<f64>,
    /// The keys that each row sees.
    pub kept: Vec<Range<usize>>,
}

/// Rows of one head that one task computes, at most: they share what is decoded.
const TASK_ROWS: usize = 64;

/// Keys that are decoded at a time, so that long rows need little memory.
const KEY_BLOCK: usize = 512;

/// Attention of the given rows, which must be sorted.
pub fn attention(problem: &Problem, rows: &[RowId]) -> Reference {
    let head_dim = problem.v.layout.shape[3];
    // Few rows of many keys are spread over all processors.
    let task_rows = rows.len().div_ceil(2 * rayon::current_num_threads()).clamp(1, TASK_ROWS);
    let tasks: Vec<&[RowId]> = rows
        .chunk_by(|a, b| (a.batch, a.head) == (b.batch, b.head))
        .flat_map(|head| head.chunks(task_rows))
        .collect();
    let answers: Vec<Vec<RowAnswer>> =
        tasks.par_iter().map(|task| head_rows(problem, task)).collect();
    let elements = || Vec::with_capacity(rows.len() * head_dim);
    let numbers = || Vec::with_capacity(rows.len());
    let mut reference = Reference {
        rows: rows.to_vec(),
        head_dim,
        out: elements(),
        lse: numbers(),
        magnitude: elements(),
        faint: elements(),
        peak: numbers(),
        lead: numbers(),
        kept: rows.iter().map(|id| problem.kept_keys(id.row)).collect(),
    };
    for answer in answers.into_iter().flatten() {
        reference.out.extend(answer.out);
        reference.lse.push(answer.lse);
        reference.magnitude.extend(answer.magnitude);
        reference.faint.extend(answer.faint);
        reference.peak.push(answer.peak);
        reference.lead.push(answer.lead);
    }
    reference
}

/// One row's part of a [`Reference`].
struct RowAnswer {
    out: Vec<f64>,
    lse: f64,
    magnitude: Vec<f64>,
    faint: Vec<f64>,
    peak: f64,
    lead: f64,
}

/// Attention of rows of one head.
fn head_rows(problem: &Problem, rows: &[RowId]) -> Vec<RowAnswer> {
    let (batch, kv_head) = (rows[0].batch, problem.kv_head(rows[0].head));
    let kept: Vec<Range<usize>> = rows.iter().map(|id| problem.kept_keys(id.row)).collect();
    let first_key = kept.iter().map(|kept| kept.start).min().unwrap_or(0);
    let end = kept.iter().map(|kept| kept.end).max().unwrap_or(0);
    // Calls `with(row's place, key, its elements)` for every key that a row sees, keys ascending.
    let every = |tensor: View, with: &mut dyn FnMut(usize, usize, &[f64])| {
        for start in (first_key..end).step_by(KEY_BLOCK) {
            let keys = start..end.min(start + KEY_BLOCK);
            let decoded = keys.map(|key| tensor.row([batch, kv_head, key]).map(f64::from));
            let decoded: Vec<Vec<f64>> = decoded.map(Iterator::collect).collect();
            for (place, kept) in kept.iter().enumerate() {
                let seen = (start..).zip(&decoded).filter(|(key, _)| kept.contains(key));
                seen.for_each(|(key, elements)| with(place, key, elements));
            }
        }
    };
    let q_row = |id: &RowId| problem.q.row([batch, id.head, id.row]).map(f64::from).collect();
    let queries: Vec<Vec<f64>> = rows.iter().map(q_row).collect();
    let mut scores: Vec<Vec<f64>> =
        kept.iter().map(|kept| Vec::with_capacity(kept.len())).collect();
    every(problem.k, &mut |place, _, key| {
        scores[place].push(problem.scale * dot(&queries[place], key));
    });
    let head_dim = problem.v.layout.shape[3];
    let faint_from = faint_from(problem.v.layout.dtype);
    let mut weighed: Vec<Weighed> =
        scores.iter().map(|scores| Weighed::new(scores, head_dim, faint_from)).collect();
    every(problem.v, &mut |place, key, value| weighed[place].add(key - kept[place].start, value));
    weighed.into_iter().map(|row| row.answer).collect()
}

/// Below what part of the largest probability one is subnormal in an element type, and the most
/// that rounding it may then change, as the same part. bf16 has the range of float32; e4m3 has 2³
/// for the largest.
fn faint_from(dtype: Dtype) -> (f64, f64) {
    match dtype {
        Dtype::Bf16 => (0.0, 0.0),
        Dtype::F16 => (2f64.powi(-14), 2f64.powi(-25)),
        Dtype::E4m3 => (2f64.powi(-9), 2f64.powi(-13)),
        _ => panic!("no reference for elements of {}", dtype.name()),
    }
}

/// A row's weights, and the sums of values that they weigh.
struct Weighed {
    weights: Vec<f64>,
    /// The largest weight.
    top: f64,
    faint_from: (f64, f64),
    answer: RowAnswer,
}

impl Weighed {
    fn new(scores: &[f64], head_dim: usize, faint_from: (f64, f64)) -> Weighed {
        let zeros = || vec![0.0; head_dim];
        let (mut max, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for &score in scores {
            second = second.max(score.min(max));
            max = max.max(score);
        }
        let mut weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        let answer = RowAnswer {
            out: zeros(),
            lse: if scores.is_empty() { f64::NEG_INFINITY } else { max + total.ln() },
            magnitude: zeros(),
            faint: zeros(),
            peak: scores.iter().copied().map(f64::abs).fold(0.0, f64::max),
            lead: max - second,
        };
        Weighed { weights, top: 1.0 / total, faint_from, answer }
    }

    /// Adds the value of a key, of those that the row sees.
    fn add(&mut self, key: usize, value: &[f64]) {
        let (weight, answer) = (self.weights[key], &mut self.answer);
        for ((sum, size), x) in answer.out.iter_mut().zip(&mut answer.magnitude).zip(value) {
            *sum += weight * x;
            *size += weight * x.abs();
        }
        let (below, change) = self.faint_from;
        if weight < below * self.top && weight > 0.0 {
            let change = weight.min(change * self.top);
            answer.faint.iter_mut().zip(value).for_each(|(sum, x)| *sum += change * x.abs());
        }
    }
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
