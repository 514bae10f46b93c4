//! When is an answer right? The rules, with the reason for each limit.
//!
//! * **places**: an output is NaN exactly where the reference is, and finite elsewhere; a row
//!   without keys is zero, with a log-sum-exp of −∞.
//! * **rms**: ‖out − ref‖ / ‖ref‖ is at most 1.05 times that of [`LowPrecision`], which rounds
//!   where FlashAttention-2 and cuDNN round (about 2.05e-3 for bf16 and 2.6e-4 for f16 on normal
//!   data). Both errors are random, so few rows need slack: see [`sampling_slack`].
//! * **element**: the rule of FlashAttention's own tests, max|out − ref| ≤ 2 · max|model − ref| +
//!   2 · max|(ref + 0.3 − 0.3) − ref|, the last in the element type: no single element may be off,
//!   however many right ones surround it.
//! * **lse**: the log-sum-exp is a float32 sum of exponentials of float32 scores. Scores carry
//!   roundings relative to their size, so the limit is [`LSE_TOLERANCE`] · max(1, largest |score|).
//!   One beyond what float32 holds is infinity.
//! * **bound**: what can be proved of every element, whatever the data and whatever point a row's
//!   probabilities are relative to. Let u be half a unit of the type (2⁻⁸ for bf16, 2⁻¹¹ for f16)
//!   and w a key's weight. Each probability is rounded once, by u of itself at most, so the sum is
//!   off by u · Σ w|v|; the output is rounded once, by u · |ref| or half a subnormal step. f16
//!   probabilities below 2⁻¹⁴ of the largest are off by 2⁻²⁵ of it instead. Scores in float32 turn
//!   weights by as much as they turn the log-sum-exp, [`LSE_TOLERANCE`] · max(1, largest |score|)
//!   of Σ w|v|. Both roundings are granted 5% more, for the sums in float32. A failure is a fault.
//! * **dominant**: where one key has all of a row but 2⁻⁴⁰, and more of it than roundings of scores
//!   can take away, the output is that row of V, bit for bit. A key at the point that probabilities
//!   are relative to has a power of two, which no rounding changes; a kernel whose largest
//!   probabilities are anything else fails here.
//! * **constant**: with every element of V equal, the output is exactly that value; this takes the
//!   place of *rms* and *element*.
//!
//! A case may claim more of its data, see [`Claim`]; claims other than those of climbs only narrow
//! limits. Climbs are rows whose largest scores rise from tile to tile, just slowly enough that a
//! kernel may leave its points where they are. There *rms* compares with the worse of two models:
//! the one above, in which every new maximum is exact because it has probability 1, and one in
//! which no key is. Nothing better than *bound* holds for both at once: the first model's error can
//! be 0.
//!
//! Kernels of 8 bits have rules of their own: [`eight_bits`].

pub mod eight_bits;

use fulgurite::Dtype;

use reference::forward::lowprec::LowPrecision;
use reference::forward::oracle::Reference;
use reference::tensor::{RowId, decode, encode};

use crate::rules::{Finding, RMS_FACTOR, Rule, distance, roundings, sampling_slack, values};

/// Error of a log-sum-exp relative to the largest score of its row: about 170 units in the last
/// place of float32. The tensor core adds with truncation along the head dim (up to 16 steps of a
/// unit each), scaling and the exponential of two add a few more; a lost key among 10 000 costs
/// 1e-4 and is seen.
pub const LSE_TOLERANCE: f64 = 2e-5;

/// Part of a row that all keys but one may have together, as a power of two, so that the output
/// must be that one's value: so little that no value of theirs shows in a 16-bit element.
const DOMINANT: f64 = -40.0;

/// The same if all values lie in [1, 2) and scores are exact.
const DOMINANT_OF_LIKE: f64 = -14.0;

/// From this scaled score on (in natural units, 2¹³ in base 2) kernels take differences of scores
/// before they scale them; up to there, the rounding of a scaled maximum may turn the weights of
/// the keys before it against those after it by [`NEAR_TURN`].
const FAR: f64 = 8192.0 * std::f64::consts::LN_2;

/// Largest turn of weights by roundings of scaled maxima: 2⁻¹¹ in base 2, below 2¹³.
const NEAR_TURN: f64 = std::f64::consts::LN_2 / 2048.0;

/// What a case knows of its data beyond what the reference shows.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// Every element of V is this.
    Constant(f32),
    /// Every element of q, k and v is this: scores are exact as well, and so is the log-sum-exp,
    /// but for its own roundings.
    Equal(f32),
    /// Scores are exact in float32, in whatever order their products are added: they turn no
    /// weights, and the log-sum-exp has its own roundings only.
    Exact,
    /// Exact scores, V in [1, 2), and in every row one key has all but 2⁻¹⁴.
    Dominant,
    /// A climb; answers of the models of `Arithmetic::phases`.
    Climb(&'a [LowPrecision]),
    /// A climb built so that all probabilities are rounded the same way: *bound* is all there is.
    AlignedClimb,
}

impl Claim<'_> {
    fn has_exact_scores(&self) -> bool {
        matches!(self, Claim::Equal(_) | Claim::Exact | Claim::Dominant)
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

/// Log-sum-exps of exact scores, relative to the largest: three roundings of float32, and what the
/// approximate logarithm adds.
const EXACT_LSE_TOLERANCE: f64 = 2e-6;

/// Applies every rule; `claim`: what is known of the data.
pub fn compare(
    dtype: Dtype,
    reference: &Reference,
    model: &LowPrecision,
    answer: Answer,
    claim: Option<Claim>,
) -> Vec<Finding> {
    assert_eq!(answer.out.len(), reference.out.len(), "outputs of the reference's rows");
    let got = values(dtype, answer.out);
    let ideal = |model: &LowPrecision| values(dtype, &model.out);
    let mut findings = vec![places(reference, &got, answer.lse)];
    match claim {
        Some(Claim::Constant(constant) | Claim::Equal(constant)) => {
            findings.push(exactly(reference, &got, f64::from(constant)));
        }
        Some(Claim::Climb(phases)) => {
            let phases: Vec<_> = phases.iter().map(ideal).collect();
            findings.push(rms(reference, &got, &[&[ideal(model)], &phases]));
        }
        Some(Claim::AlignedClimb) => {}
        Some(Claim::Exact | Claim::Dominant) | None => {
            let ideal = ideal(model);
            let element = element(dtype, reference, &got, &ideal);
            findings.extend([rms(reference, &got, &[&[ideal]]), element]);
        }
    }
    let exact_scores = claim.is_some_and(|claim| claim.has_exact_scores());
    findings.push(bound(dtype, reference, &got, exact_scores));
    findings.extend(dominant(dtype, reference, &got, matches!(claim, Some(Claim::Dominant))));
    if let Some(lse) = answer.lse {
        findings.push(log_sum_exp(reference, lse, exact_scores, |_| 0.0));
    }
    findings
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
        let agrees = |(want, got): &(&f64, &f64)| match reference.kept[index].len() {
            0 => **got == 0.0,
            _ => want.is_nan() == got.is_nan() && want.is_infinite() == got.is_infinite(),
        };
        let mut row_wrong = want.iter().zip(got).filter(|pair| !agrees(pair)).count();
        if let Some(lse) = lse {
            let (want, got) = (reference.lse[index], f64::from(lse[index]));
            let agrees = match want.is_nan() {
                true => !got.is_finite(),
                false => got.is_finite() || got == want || beyond_float32(reference, index, got),
            };
            row_wrong += usize::from(!agrees);
        }
        if row_wrong > 0 {
            first = first.or(Some(reference.rows[index]));
        }
        wrong += row_wrong;
    }
    Finding { rule: Rule::Places, value: wrong as f64, limit: 0.0, row: first }
}

/// Whether a row's log-sum-exp may be this infinity: the right one does not fit float32, or cannot
/// be told from one that does not.
fn beyond_float32(reference: &Reference, index: usize, got: f64) -> bool {
    let want = reference.lse[index];
    let doubt = LSE_TOLERANCE * reference.peak[index];
    want.abs() + doubt >= f64::from(f32::MAX) && got == want.signum() * f64::INFINITY
}

/// `models`: the answers of each model, several for one that is a mean; the worst counts.
fn rms(reference: &Reference, got: &[f64], models: &[&[Vec<f64>]]) -> Finding {
    let head_dim = reference.head_dim;
    let (mut norm, mut error) = (0.0, 0.0);
    let mut ideal_errors: Vec<Vec<f64>> = vec![Vec::new(); models.len()];
    let mut worst = (-1.0, None);
    for index in number_rows(reference) {
        let range = index * head_dim..(index + 1) * head_dim;
        let want = &reference.out[range.clone()];
        let row_error = distance(want, &got[range.clone()]);
        if row_error > worst.0 || row_error.is_nan() {
            worst = (row_error, Some(reference.rows[index]));
        }
        error += row_error;
        for (errors, answers) in ideal_errors.iter_mut().zip(models) {
            let all: f64 = answers.iter().map(|ideal| distance(want, &ideal[range.clone()])).sum();
            errors.push(all / answers.len() as f64);
        }
        norm += want.iter().map(|x| x * x).sum::<f64>();
    }
    let relative = |square: f64| {
        if square == 0.0 { 0.0 } else { (square / norm).sqrt() }
    };
    let allowed =
        |errors: &Vec<f64>| relative(errors.iter().sum()) * (RMS_FACTOR + sampling_slack(errors));
    let limit = ideal_errors.iter().map(allowed).fold(0.0, f64::max);
    Finding { rule: Rule::Rms, value: relative(error), limit, row: worst.1 }
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

/// By how much, relative to itself, roundings of scores may turn a weight of this row.
fn turn(reference: &Reference, index: usize, exact_scores: bool) -> f64 {
    let peak = reference.peak[index];
    match exact_scores {
        true => LSE_TOLERANCE + NEAR_TURN * (peak / FAR).min(1.0),
        false => LSE_TOLERANCE * peak.max(1.0),
    }
}

fn bound(dtype: Dtype, reference: &Reference, got: &[f64], exact_scores: bool) -> Finding {
    let head_dim = reference.head_dim;
    let (unit, least) = roundings(dtype);
    let mut worst = Finding { rule: Rule::Bound, value: 0.0, limit: least, row: None };
    for index in 0..reference.rows.len() {
        let turn = turn(reference, index, exact_scores);
        // A column of V that is no number leaves the others what they are.
        let range = index * head_dim..(index + 1) * head_dim;
        for i in range.filter(|&i| reference.out[i].is_finite()) {
            let (want, size) = (reference.out[i], reference.magnitude[i]);
            let rounded = unit * (size + want.abs()) + reference.faint[i];
            let finding = Finding {
                rule: Rule::Bound,
                value: (got[i] - want).abs(),
                limit: RMS_FACTOR * rounded + turn * size + least,
                row: Some(reference.rows[index]),
            };
            if finding.severity() > worst.severity() {
                worst = finding;
            }
        }
    }
    worst
}

/// None if no key dominates its row; `of_like`: as [`Claim::Dominant`] says.
fn dominant(dtype: Dtype, reference: &Reference, got: &[f64], of_like: bool) -> Option<Finding> {
    let head_dim = reference.head_dim;
    let round = |x: f64| f64::from(decode(dtype, encode(dtype, x)));
    let mut found = None;
    for index in number_rows(reference).filter(|&index| !reference.kept[index].is_empty()) {
        // A key loses what `turn` says, the others win it.
        let (share, doubt) = match of_like {
            true => (DOMINANT_OF_LIKE, 0.0),
            false => (DOMINANT, 2.0 * turn(reference, index, false)),
        };
        let others = (reference.kept[index].len() as f64).ln();
        if reference.lead[index] - others - doubt < -share * std::f64::consts::LN_2 {
            continue;
        }
        let differs = |i: &usize| {
            // The others may show where the value is next to nothing beside theirs.
            let others = if of_like { 0.0 } else { 2f64.powf(DOMINANT) * reference.magnitude[*i] };
            let want = reference.out[*i];
            !(round(want - others)..=round(want + others)).contains(&got[*i])
        };
        let wrong = (index * head_dim..(index + 1) * head_dim).filter(differs).count();
        let finding = found.get_or_insert(Finding {
            rule: Rule::Dominant,
            value: 0.0,
            limit: 0.0,
            row: None,
        });
        finding.value += wrong as f64;
        if wrong > 0 {
            finding.row = finding.row.or(Some(reference.rows[index]));
        }
    }
    found
}

/// `besides`: what each row is granted in addition.
fn log_sum_exp(
    reference: &Reference,
    lse: &[f32],
    exact_scores: bool,
    besides: impl Fn(usize) -> f64,
) -> Finding {
    let tolerance = if exact_scores { EXACT_LSE_TOLERANCE } else { LSE_TOLERANCE };
    let mut worst = Finding { rule: Rule::Lse, value: 0.0, limit: tolerance, row: None };
    for (index, (&want, &got)) in reference.lse.iter().zip(lse).enumerate() {
        let got = f64::from(got);
        if !want.is_finite() || beyond_float32(reference, index, got) {
            continue;
        }
        let finding = Finding {
            rule: Rule::Lse,
            value: (got - want).abs(),
            limit: tolerance * reference.peak[index].max(1.0) + besides(index),
            row: Some(reference.rows[index]),
        };
        if finding.severity() > worst.severity() {
            worst = finding;
        }
    }
    worst
}

fn exactly(reference: &Reference, got: &[f64], constant: f64) -> Finding {
    let rows =
        got.chunks(reference.head_dim).enumerate().filter(|(i, _)| !reference.kept[*i].is_empty());
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

/// What of a row may change when something is planted in the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    Nothing,
    /// One column of its output.
    Column(usize),
    /// Everything.
    Row,
}

/// Compares two answers bit by bit wherever `reach` of a row's index says that nothing may change.
pub fn untouched(
    rows: &[RowId],
    head_dim: usize,
    reach: impl Fn(usize) -> Reach,
    clean: Answer,
    planted: Answer,
) -> Finding {
    let mut finding = Finding { rule: Rule::Untouched, value: 0.0, limit: 0.0, row: None };
    for (index, row) in rows.iter().enumerate() {
        let reach = reach(index);
        let same_lse = match (clean.lse, planted.lse) {
            (Some(clean), Some(planted)) => clean[index].to_bits() == planted[index].to_bits(),
            _ => true,
        };
        let first = index * head_dim;
        let same = |column: usize| clean.out[first + column] == planted.out[first + column];
        let same_out = (0..head_dim).all(|column| reach == Reach::Column(column) || same(column));
        if reach != Reach::Row && !(same_out && same_lse) {
            finding.value += 1.0;
            finding.row = finding.row.or(Some(*row));
        }
    }
    finding
}
