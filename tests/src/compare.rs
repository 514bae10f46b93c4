//! When is an answer right? The rules, with the reason for each limit.
//!
//! * **places**: an output is NaN exactly where the reference is, and finite elsewhere; a row
//!   without keys is zero, with a log-sum-exp of −∞.
//! * **rms**: ‖out − ref‖ / ‖ref‖ is at most 1.05 times that of [`lowprec`](crate::lowprec), which
//!   rounds where FlashAttention-2 and cuDNN round (about 2.05e-3 for bf16 and 2.6e-4 for f16 on
//!   normal data). Both errors are random, so few rows need slack: see [`sampling_slack`].
//! * **element**: the rule of FlashAttention's own tests, max|out − ref| ≤ 2 · max|model − ref| +
//!   2 · max|(ref + 0.3 − 0.3) − ref|, the last in the element type: no single element may be off,
//!   however many right ones surround it.
//! * **lse**: the log-sum-exp is a float32 sum of exponentials of float32 scores. Scores carry
//!   roundings relative to their size, so the limit is [`LSE_TOLERANCE`] · max(1, largest |score|).
//! * **constant**: with every element of V equal, the output is exactly that value; this takes the
//!   place of *rms* and *element*.

use fulgurite::Dtype;

use crate::lowprec::LowPrecision;
use crate::oracle::{Reference, RowId};
use crate::tensor::{decode, encode};

/// How much worse than the model's error a kernel's may be.
pub const RMS_FACTOR: f64 = 1.05;

/// Error of a log-sum-exp relative to the largest score of its row: about 170 units in the last
/// place of float32. The tensor core adds with truncation along the head dim (up to 16 steps of a
/// unit each), scaling and the exponential of two add a few more; a lost key among 10 000 costs
/// 1e-4 and is seen.
pub const LSE_TOLERANCE: f64 = 2e-5;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// NaN and zeros where they belong; value: elements where not.
    Places,
    /// Relative root-mean-square error.
    Rms,
    /// Largest absolute error.
    Element,
    /// Error of the log-sum-exp of the worst row.
    Lse,
    /// Elements that differ from the constant.
    Constant,
    /// Rows that changed though nothing they see did.
    Untouched,
}

impl Rule {
    /// The name in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Places => "places",
            Rule::Rms => "rms",
            Rule::Element => "element",
            Rule::Lse => "lse",
            Rule::Constant => "constant",
            Rule::Untouched => "untouched",
        }
    }
}

/// The outcome of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What was measured.
    pub value: f64,
    /// The most it may be.
    pub limit: f64,
    /// The worst row.
    pub row: Option<RowId>,
}

impl Finding {
    /// Whether the rule holds; a value that is not a number fails.
    pub fn passed(&self) -> bool {
        self.value <= self.limit
    }

    /// Value over limit: above 1 fails.
    pub fn severity(&self) -> f64 {
        match (self.value, self.limit) {
            (value, _) if value.is_nan() => f64::INFINITY,
            (0.0, _) => 0.0,
            (value, limit) => value / limit,
        }
    }
}

/// A kernel's answer for the rows of a [`Reference`].
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Output elements, row after row.
    pub out: &'a [u16],
    /// Log-sum-exp of every row, if it was asked for.
    pub lse: Option<&'a [f32]>,
}

/// Applies every rule; `constant` is the value of all elements of V, if there is one.
pub fn compare(
    dtype: Dtype,
    reference: &Reference,
    model: &LowPrecision,
    answer: Answer,
    constant: Option<f32>,
) -> Vec<Finding> {
    assert_eq!(answer.out.len(), reference.out.len(), "outputs of the reference's rows");
    let got = values(dtype, answer.out);
    let mut findings = vec![places(reference, &got, answer.lse)];
    match constant {
        Some(constant) => findings.push(exactly(reference, &got, f64::from(constant))),
        None => {
            let ideal = values(dtype, &model.out);
            findings.push(rms(reference, &got, &ideal));
            findings.push(element(dtype, reference, &got, &ideal));
        }
    }
    if let Some(lse) = answer.lse {
        findings.push(log_sum_exp(reference, lse));
    }
    findings
}

fn values(dtype: Dtype, bits: &[u16]) -> Vec<f64> {
    bits.iter().map(|&bits| f64::from(decode(dtype, bits))).collect()
}

/// Rows of the reference with their index; those that hold numbers only.
fn number_rows(reference: &Reference) -> impl Iterator<Item = usize> + '_ {
    let rows = reference.out.chunks(reference.head_dim).enumerate();
    rows.filter(|(_, row)| row.iter().all(|x| x.is_finite())).map(|(index, _)| index)
}

fn places(reference: &Reference, got: &[f64], lse: Option<&[f32]>) -> Finding {
    let mut wrong = 0;
    let mut first = None;
    let rows = reference.out.chunks(reference.head_dim).zip(got.chunks(reference.head_dim));
    for (index, (want, got)) in rows.enumerate() {
        let agrees = |(want, got): &(&f64, &f64)| match reference.kept[index] {
            0 => **got == 0.0,
            _ => want.is_nan() == got.is_nan() && want.is_infinite() == got.is_infinite(),
        };
        let mut row_wrong = want.iter().zip(got).filter(|pair| !agrees(pair)).count();
        if let Some(lse) = lse {
            let (want, got) = (reference.lse[index], f64::from(lse[index]));
            let agrees =
                if want.is_nan() { !got.is_finite() } else { got.is_finite() || got == want };
            row_wrong += usize::from(!agrees);
        }
        if row_wrong > 0 {
            first = first.or(Some(reference.rows[index]));
        }
        wrong += row_wrong;
    }
    Finding { rule: Rule::Places, value: wrong as f64, limit: 0.0, row: first }
}

/// Squared distance of two rows.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn rms(reference: &Reference, got: &[f64], ideal: &[f64]) -> Finding {
    let head_dim = reference.head_dim;
    let (mut norm, mut error, mut ideal_errors) = (0.0, 0.0, Vec::new());
    let mut worst = (-1.0, None);
    for index in number_rows(reference) {
        let range = index * head_dim..(index + 1) * head_dim;
        let want = &reference.out[range.clone()];
        let row_error = distance(want, &got[range.clone()]);
        if row_error > worst.0 || row_error.is_nan() {
            worst = (row_error, Some(reference.rows[index]));
        }
        error += row_error;
        ideal_errors.push(distance(want, &ideal[range]));
        norm += want.iter().map(|x| x * x).sum::<f64>();
    }
    let relative = |square: f64| {
        if square == 0.0 { 0.0 } else { (square / norm).sqrt() }
    };
    let limit = relative(ideal_errors.iter().sum()) * (RMS_FACTOR + sampling_slack(&ideal_errors));
    Finding { rule: Rule::Rms, value: relative(error), limit, row: worst.1 }
}

/// By how much the ratio of two equally good kernels' errors may be off by chance.
///
/// An error's square is a sum over rows of e². The variance of that sum is at most Σ e⁴, so its
/// relative standard deviation is at most 1/√n with n = (Σ e²)² / Σ e⁴, the effective number of
/// rows; the root halves that, the ratio of two independent errors makes it √½ / √n. Twice that is
/// granted: 140% for a single row, 2% for five thousand. The bound is far from tight (the elements
/// of a row are nearly independent), so it amounts to many standard deviations.
pub fn sampling_slack(squared_errors: &[f64]) -> f64 {
    let sum: f64 = squared_errors.iter().sum();
    let sum_of_squares: f64 = squared_errors.iter().map(|e| e * e).sum();
    if sum == 0.0 { 0.0 } else { 2.0 * (0.5 * sum_of_squares).sqrt() / sum }
}

fn element(dtype: Dtype, reference: &Reference, got: &[f64], ideal: &[f64]) -> Finding {
    let head_dim = reference.head_dim;
    let round = |x: f64| f64::from(decode(dtype, encode(dtype, x)));
    let (mut worst, mut row) = (0.0, None);
    let (mut ideal_worst, mut noise): (f64, f64) = (0.0, 0.0);
    for index in number_rows(reference) {
        for i in index * head_dim..(index + 1) * head_dim {
            let want = reference.out[i];
            let error = (got[i] - want).abs();
            if error > worst || error.is_nan() {
                (worst, row) = (error, Some(reference.rows[index]));
            }
            ideal_worst = ideal_worst.max((ideal[i] - want).abs());
            let rounded = round(want);
            noise = noise.max((round(round(rounded + 0.3) - 0.3) - rounded).abs());
        }
    }
    Finding { rule: Rule::Element, value: worst, limit: 2.0 * (ideal_worst + noise), row }
}

fn log_sum_exp(reference: &Reference, lse: &[f32]) -> Finding {
    let mut worst = Finding { rule: Rule::Lse, value: 0.0, limit: LSE_TOLERANCE, row: None };
    for (index, (&want, &got)) in reference.lse.iter().zip(lse).enumerate() {
        if !want.is_finite() {
            continue;
        }
        let finding = Finding {
            rule: Rule::Lse,
            value: (f64::from(got) - want).abs(),
            limit: LSE_TOLERANCE * reference.peak[index].max(1.0),
            row: Some(reference.rows[index]),
        };
        if finding.severity() > worst.severity() {
            worst = finding;
        }
    }
    worst
}

fn exactly(reference: &Reference, got: &[f64], constant: f64) -> Finding {
    let rows = got.chunks(reference.head_dim).enumerate().filter(|(i, _)| reference.kept[*i] > 0);
    let mut wrong = 0;
    let mut first = None;
    for (index, row) in rows {
        let row_wrong = row.iter().filter(|&&x| x != constant).count();
        if row_wrong > 0 {
            first = first.or(Some(reference.rows[index]));
        }
        wrong += row_wrong;
    }
    Finding { rule: Rule::Constant, value: wrong as f64, limit: 0.0, row: first }
}

/// Compares two answers bit by bit in the rows that `affected` says nothing about.
pub fn untouched(
    rows: &[RowId],
    head_dim: usize,
    affected: impl Fn(usize) -> bool,
    clean: Answer,
    planted: Answer,
) -> Finding {
    let mut finding = Finding { rule: Rule::Untouched, value: 0.0, limit: 0.0, row: None };
    for (index, row) in rows.iter().enumerate().filter(|(index, _)| !affected(*index)) {
        let range = index * head_dim..(index + 1) * head_dim;
        let same_lse = match (clean.lse, planted.lse) {
            (Some(clean), Some(planted)) => clean[index].to_bits() == planted[index].to_bits(),
            _ => true,
        };
        if clean.out[range.clone()] != planted.out[range] || !same_lse {
            finding.value += 1.0;
            finding.row = finding.row.or(Some(*row));
        }
    }
    finding
}
