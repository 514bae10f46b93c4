//! A model of good low-precision flash attention, for deriving what error is unavoidable.
//!
//! It does what FlashAttention-2 does on tensor cores: scores in float32, probabilities relative
//! to the running row maximum and rounded to the element type, row sums and the output
//! accumulated in float32, one rounding at the end. Its error against float64 on a case's inputs
//! is the yardstick for a kernel on the same inputs.

use fulgurite::Dtype;
use rayon::prelude::*;

use crate::e4m3;
use crate::forward::oracle::Problem;
use crate::tensor::{RowId, View, decode, encode};

/// The choices that flash-attention kernels differ in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// Keys in one step of the online softmax.
    pub kv_rows: usize,
    /// How far (in log₂ units) the row maximum may grow before the output is rescaled to it.
    pub rescale_threshold: f32,
    /// How far (in log₂ units) above the maximum the point lies that probabilities are relative
    /// to: with 0 the largest is 1 and has no rounding error.
    pub phase: f32,
    /// Whether steps are taken from the last to the first, as kernels of ours do. It matters only
    /// where probabilities may become too small for their type.
    pub last_first: bool,
    /// Sums as the tensor core has them of e4m3 ([`truncated`]), the output's of so many keys and
    /// then added elsewhere; `None`: float32 and all keys.
    pub truncated_keys: Option<usize>,
}

impl Arithmetic {
    /// What FlashAttention-2 and cuDNN do: steps of 128 keys, always relative to the maximum.
    pub const PEER: Arithmetic = Arithmetic {
        kv_rows: 128,
        rescale_threshold: 0.0,
        phase: 0.0,
        last_first: false,
        truncated_keys: None,
    };

    /// Probabilities in e4m3, 2³ at the anchor: what lies 5.8 octaves above it still fits.
    pub const EIGHT_BITS: Arithmetic =
        Arithmetic { phase: -3.0, last_first: true, ..Arithmetic::PEER };

    /// The same where q and k are e4m3 too, and V's mean was not subtracted.
    pub const E4M3: Arithmetic = Arithmetic { truncated_keys: Some(512), ..Arithmetic::EIGHT_BITS };

    /// The same relative to points that no key need be at, so that every key is rounded: what a
    /// softmax whose anchors are not the maxima comes to in the mean.
    pub fn phases(self) -> [Arithmetic; 8] {
        std::array::from_fn(|i| Arithmetic { phase: self.phase + i as f32 / 8.0, ..self })
    }
}

/// The model's answer for some rows.
#[derive(Clone, Debug)]
pub struct LowPrecision {
    /// Outputs as elements, row after row.
    pub out: Vec<u16>,
    /// Log-sum-exp of each row.
    pub lse: Vec<f32>,
}

/// What makes elements of a row's output, and its last log-sum-exp.
type Finish<'a> = dyn Fn(&RowId, Vec<f32>, f32) -> (Vec<u16>, f32) + 'a;

/// What a row's scores are multiplied with.
type ScaleOf<'a> = dyn Fn(&RowId) -> f64 + 'a;

/// Rows of one head that one task computes, at most.
const TASK_ROWS: usize = 64;

/// Attention of the given rows, which must be sorted.
pub fn attention(problem: &Problem, rows: &[RowId], arithmetic: Arithmetic) -> LowPrecision {
    let dtype = problem.q.layout.dtype;
    let finish = |_: &RowId, out: Vec<f32>, lse: f32| {
        (out.into_iter().map(|x| encode(dtype, f64::from(x))).collect(), lse)
    };
    attention_then(problem, rows, arithmetic, |_| problem.scale, finish)
}

/// As [`attention`]; `scale_of` says what a row's scores are multiplied with, `finish` makes
/// elements of its output, and its last log-sum-exp.
pub(super) fn attention_then(
    problem: &Problem,
    rows: &[RowId],
    arithmetic: Arithmetic,
    scale_of: impl Fn(&RowId) -> f64 + Sync,
    finish: impl Fn(&RowId, Vec<f32>, f32) -> (Vec<u16>, f32) + Sync,
) -> LowPrecision {
    let task_rows = rows.len().div_ceil(2 * rayon::current_num_threads()).clamp(1, TASK_ROWS);
    let tasks: Vec<&[RowId]> = rows
        .chunk_by(|a, b| (a.batch, a.head) == (b.batch, b.head))
        .flat_map(|head| head.chunks(task_rows))
        .collect();
    let answers: Vec<LowPrecision> = tasks
        .par_iter()
        .map(|task| head_rows(problem, task, arithmetic, (&scale_of, &finish)))
        .collect();
    let mut all = LowPrecision { out: Vec::new(), lse: Vec::with_capacity(rows.len()) };
    for answer in answers {
        all.out.extend(answer.out);
        all.lse.extend(answer.lse);
    }
    all
}

fn head_rows(
    problem: &Problem,
    rows: &[RowId],
    arithmetic: Arithmetic,
    (scale_of, finish): (&ScaleOf, &Finish),
) -> LowPrecision {
    let (batch, kv_head) = (rows[0].batch, problem.kv_head(rows[0].head));
    let end = rows.iter().map(|id| problem.kept_keys(id.row).end).max().unwrap_or(0);
    let load = |tensor: View| -> Vec<f32> {
        (0..end).flat_map(|key| tensor.row([batch, kv_head, key]).collect::<Vec<_>>()).collect()
    };
    let (keys, values) = (load(problem.k), load(problem.v));
    let mut answer = LowPrecision { out: Vec::new(), lse: Vec::with_capacity(rows.len()) };
    for id in rows {
        let q_row: Vec<f32> = problem.q.row([batch, id.head, id.row]).collect();
        let kept = problem.kept_keys(id.row);
        let kept = kept.start * q_row.len()..kept.end * q_row.len();
        let row = OnlineRow::new((problem, scale_of(id)), arithmetic, &q_row);
        let (out, lse) = row.run(&keys[kept.clone()], &values[kept]);
        let (out, lse) = finish(id, out, lse);
        answer.out.extend(out);
        answer.lse.push(lse);
    }
    answer
}

/// The online softmax of one row.
///
/// A score's distance from the maximum is taken before it is scaled. So it keeps its precision
/// however large both are: it is exact between half and twice the maximum, and elsewhere nothing of
/// its key is left.
struct OnlineRow<'a> {
    q: &'a [f32],
    problem: &'a Problem<'a>,
    arithmetic: Arithmetic,
    scale: f64,
    scale_log2: f32,
    out: Vec<f32>,
    /// What was added elsewhere of the output.
    parked: Vec<f32>,
    /// Keys whose products `out` holds.
    held: usize,
    /// Largest score so far, not scaled.
    row_max: f32,
    row_sum: f32,
}

impl<'a> OnlineRow<'a> {
    fn new((problem, scale): (&'a Problem<'a>, f64), arithmetic: Arithmetic, q: &'a [f32]) -> Self {
        let scale_log2 = (scale * std::f64::consts::LOG2_E) as f32;
        let zeros = || vec![0.0; q.len()];
        OnlineRow {
            q,
            problem,
            arithmetic,
            scale,
            scale_log2,
            out: zeros(),
            parked: zeros(),
            held: 0,
            row_max: f32::NEG_INFINITY,
            row_sum: 0.0,
        }
    }

    fn run(mut self, keys: &[f32], values: &[f32]) -> (Vec<f32>, f32) {
        if keys.is_empty() {
            return (self.out, f32::NEG_INFINITY);
        }
        let step = self.arithmetic.kv_rows * self.q.len();
        let steps = keys.chunks(step).zip(values.chunks(step));
        match self.arithmetic.last_first {
            true => steps.rev().for_each(|(keys, values)| self.step(keys, values)),
            false => steps.for_each(|(keys, values)| self.step(keys, values)),
        }
        let all = self.out.iter().zip(&self.parked);
        let out = all.map(|(held, parked)| (held + parked) / self.row_sum).collect();
        let sum = (self.row_sum.log2() + self.arithmetic.phase) * std::f32::consts::LN_2;
        (out, self.row_max.mul_add(self.scale as f32, sum))
    }

    /// One tile of keys and values.
    fn step(&mut self, keys: &[f32], values: &[f32]) {
        let head_dim = self.q.len();
        let dtype = self.problem.v.layout.dtype;
        let scale_log2 = self.scale_log2;
        let product = if self.arithmetic.truncated_keys.is_some() { truncated_dot } else { dot };
        let scores: Vec<f32> = keys.chunks(head_dim).map(|key| product(self.q, key)).collect();
        let tile_max = scores.iter().copied().fold(self.row_max, f32::max);
        if (tile_max - self.row_max) * scale_log2 > self.arithmetic.rescale_threshold {
            let factor = ((self.row_max - tile_max) * scale_log2).exp2();
            self.row_sum *= factor;
            self.out.iter_mut().chain(&mut self.parked).for_each(|x| *x *= factor);
            self.row_max = tile_max;
        }
        let prob =
            |score: &f32| ((score - self.row_max) * scale_log2 - self.arithmetic.phase).exp2();
        let probs: Vec<f32> = scores.iter().map(prob).collect();
        self.row_sum += probs.iter().sum::<f32>();
        let round = |prob: &f32| match dtype {
            Dtype::E4m3 => e4m3::round(*prob),
            _ => decode(dtype, encode(dtype, f64::from(*prob))),
        };
        let rounded: Vec<f32> = probs.iter().map(round).collect();
        match self.arithmetic.truncated_keys {
            Some(keys) => self.add_truncated(keys, &rounded, values),
            None => {
                for (prob, value) in rounded.iter().zip(values.chunks(head_dim)) {
                    self.out.iter_mut().zip(value).for_each(|(sum, x)| *sum += prob * x);
                }
            }
        }
    }

    /// Adds products step by step of the tensor core, and empties the sum every so many keys.
    fn add_truncated(&mut self, keys: usize, probs: &[f32], values: &[f32]) {
        let head_dim = self.q.len();
        if self.held + probs.len() > keys {
            self.parked.iter_mut().zip(&mut self.out).for_each(|(sum, held)| {
                *sum += std::mem::take(held);
            });
            self.held = 0;
        }
        self.held += probs.len();
        for (probs, values) in probs.chunks(STEP).zip(values.chunks(STEP * head_dim)) {
            for (column, sum) in self.out.iter_mut().enumerate() {
                let mut step = [(0.0, 0.0); STEP];
                for (key, (pair, prob)) in step.iter_mut().zip(probs).enumerate() {
                    *pair = (*prob, values[key * head_dim + column]);
                }
                *sum = truncated(*sum, &step[..probs.len()]);
            }
        }
    }
}

/// Products of e4m3 that the tensor core adds at a time.
const STEP: usize = 32;

/// Sum of products of e4m3 in steps of the tensor core.
fn truncated_dot(a: &[f32], b: &[f32]) -> f32 {
    let steps = a.chunks(STEP).zip(b.chunks(STEP));
    steps.fold(0.0, |sum, (a, b)| {
        let mut step = [(0.0, 0.0); STEP];
        for (pair, (a, b)) in step.iter_mut().zip(a.iter().zip(b)) {
            *pair = (*a, *b);
        }
        truncated(sum, &step[..a.len()])
    })
}

/// One step of the tensor core with e4m3: products and what they are added to are cut off 13 bits
/// behind the largest exponent of any, that of a product being its factors' together, and so is
/// what they come to (MMA-Sim, arXiv 2511.10909). What is no number stays none.
fn truncated(sum: f32, pairs: &[(f32, f32)]) -> f32 {
    let exponent = |x: f32| ((x.to_bits() >> 23) & 0xff) as i32 - 127;
    // Subnormals have the least exponent; 0 has one that is never the largest beside another.
    let of = |x: f32| if x == 0.0 { -127 } else { exponent(x).max(e4m3::LEAST_EXPONENT) };
    let of_pairs = pairs.iter().map(|(a, b)| of(*a) + of(*b));
    let largest = of_pairs.fold(exponent(sum), i32::max);
    let unit = 2f64.powi(largest - 13);
    let cut = |term: f64| (term / unit).trunc();
    let terms = pairs.iter().map(|(a, b)| cut(f64::from(*a) * f64::from(*b)));
    let whole = terms.sum::<f64>() + cut(f64::from(sum));
    // Few bits: exact, unless it is too small for float32.
    f32::from_bits(((whole * unit) as f32).to_bits() & !0x3ff)
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
