//! The rules for kernels of 8 bits. Two answers are known: of the call's own tensors, and of the
//! numbers that quantised ones stand for, which a kernel computes with.
//!
//! * **places**, **lse**: as ever, beside the answer on quantised tensors. A key that is no number
//!   takes its KV tile with it, which shares a scale. To the size that roundings of scores count
//!   against belongs what K's mean took, for it is added at the end. Where a number of q or k lies
//!   in the middle of two integers, to within what float32 tells, either is right: *lse* grants the
//!   rows that it reaches what the other would turn their scores by (*bound* has room for it).
//! * **rms**, **element**: as ever, beside the answer on the *own* tensors. The yardstick is a
//!   model
//!   that computes with quantised numbers and rounds probabilities to e4m3. It follows maxima, so
//!   that the largest probability has no rounding error; anchors may lie anywhere below it. Where
//!   few keys have all of a row, a model in which none is exact counts as well, as for climbs.
//! * **bound**: as ever, beside the answer on quantised tensors, of values less their means: what
//!   is
//!   known exactly has no error. Half a unit of e4m3 is 2⁻⁴, or 2⁻¹³ of the largest probability for
//!   those below 2⁻⁹ of it. The tensor core truncates each sum of 32 products and what it had to 13
//!   bits. Where values stay in 16 bits, half a unit is theirs, which leaves no room for integers
//!   rounded the other way: turns `d` of scores, `Σ w |d|` in the mean, turn the output by that
//!   much of `Σ w |v|` and of the largest `|v|` at most.
//! * **constant**: where the elements of each column of V are the same, nothing is left of them
//!   less their mean: the output is exactly that value.
//! * Tensors that the caller has in e4m3 have one answer, on the numbers that are meant. There the
//!   tensor core truncates sums of scores as well, to 13 bits: *lse* grants 5e-4 of the largest
//!   score for that, or twice what the model is off by, and *bound* as much of the weights. The
//!   model truncates its sums likewise, and empties its output every 512 keys; so no column of
//!   values counts as known exactly.
//! * *dominant* and *untouched* say nothing here: the value that has all of a row is rounded itself
//!   and its probability is exact only at the anchor; scales and means depend on all keys.

use fulgurite::Dtype;
use reference::forward::lowprec::LowPrecision;
use reference::forward::oracle::Reference;
use reference::tensor::{decode, encode};

use super::{Answer, element, log_sum_exp, places, rms, turn};
use crate::rules::{Finding, RMS_FACTOR, Rule, roundings, values};

/// Half a unit in the last place of e4m3.
const E4M3_HALF_UNIT: f64 = 0.0625;

/// What of a sum a step of the tensor core may cut off, for each of the two that it adds.
const TRUNCATION: f64 = 1.0 / 4096.0;

/// Keys of a step of the tensor core.
const STEP_KEYS: usize = 32;

/// What answers are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The answer on the call's own tensors.
    pub own: &'a Reference,
    /// The answer on quantised ones, values in `magnitude` less their means.
    pub quantised: &'a Reference,
    /// What integers that may be rounded either way may turn each row's log-sum-exp by.
    pub doubts: &'a [f64],
    /// The models' answers: of one that follows maxima, and of those that count besides.
    pub models: (&'a LowPrecision, &'a [LowPrecision]),
    /// Whether the elements of each column of V are the same.
    pub constant: bool,
    /// The type in which the kernel has probabilities and values.
    pub values: Dtype,
    /// The largest size of a value of each row's KV head, if values have 16 bits.
    pub largest_values: &'a [f64],
    /// Keys whose products the accumulator holds at most, where it is emptied: then scores are cut
    /// off as well, and rows turn by their doubts.
    pub parked_keys: Option<usize>,
}

/// Applies every rule.
pub fn compare(dtype: Dtype, expected: Expected, answer: Answer) -> Vec<Finding> {
    let Expected { own, quantised, doubts, models: (model, others), constant, .. } = expected;
    let got = values(dtype, answer.out);
    let mut findings = vec![places(quantised, &got, answer.lse)];
    if constant {
        findings.push(exactly(dtype, quantised, own, &got));
    } else {
        let own = numbers_of_both(own, quantised);
        let ideal = |model: &LowPrecision| values(dtype, &model.out);
        let (model, others) = (ideal(model), others.iter().map(ideal).collect::<Vec<_>>());
        let both: [&[Vec<f64>]; 2] = [std::slice::from_ref(&model), &others];
        let counted = if others.is_empty() { &both[..1] } else { &both[..] };
        findings.push(rms(&own, &got, counted));
        let elements = std::iter::once(&model).chain(&others);
        let elements = elements.map(|ideal| element(dtype, &own, &got, ideal));
        findings.extend(elements.max_by(|a, b| a.limit.total_cmp(&b.limit)));
    }
    findings.push(bound(dtype, &expected, &got));
    findings.extend(answer.lse.map(|lse| log_sum_exp(quantised, lse, false, |row| doubts[row])));
    findings
}

/// The answer on own tensors, without the rows that quantising spoils.
fn numbers_of_both(own: &Reference, quantised: &Reference) -> Reference {
    let mut own = own.clone();
    let pairs = own.out.iter_mut().zip(&quantised.out);
    pairs.filter(|(_, other)| !other.is_finite()).for_each(|(x, _)| *x = f64::NAN);
    own
}

fn exactly(dtype: Dtype, quantised: &Reference, own: &Reference, got: &[f64]) -> Finding {
    let round = |x: f64| f64::from(decode(dtype, encode(dtype, x)));
    let mut finding = Finding { rule: Rule::Constant, value: 0.0, limit: 0.0, row: None };
    for (index, id) in own.rows.iter().enumerate().filter(|(i, _)| !quantised.kept[*i].is_empty()) {
        let range = index * own.head_dim..(index + 1) * own.head_dim;
        let wrong = range.filter(|&i| got[i] != round(own.out[i])).count();
        if wrong > 0 {
            finding.row = finding.row.or(Some(*id));
        }
        finding.value += wrong as f64;
    }
    finding
}

fn bound(dtype: Dtype, expected: &Expected, got: &[f64]) -> Finding {
    let Expected { quantised: reference, doubts, values: of_values, parked_keys, .. } = *expected;
    let largest_values = expected.largest_values;
    let head_dim = reference.head_dim;
    let (unit, least) = roundings(dtype);
    let mut worst = Finding { rule: Rule::Bound, value: 0.0, limit: least, row: None };
    for (index, id) in reference.rows.iter().enumerate() {
        let keys = reference.kept[index].len().min(parked_keys.unwrap_or(usize::MAX));
        let steps = keys.div_ceil(STEP_KEYS) as f64;
        let is_e4m3 = of_values == Dtype::E4m3;
        let doubt = if is_e4m3 && parked_keys.is_none() { 0.0 } else { doubts[index] };
        // Weights that turn by so much in the mean, each on its own.
        let turned = if is_e4m3 { 0.0 } else { doubts[index] * largest_values[index] };
        let share = match of_values {
            Dtype::E4m3 => E4M3_HALF_UNIT + steps * TRUNCATION,
            _ => unit,
        };
        let range = index * head_dim..(index + 1) * head_dim;
        for i in range.filter(|&i| reference.out[i].is_finite()) {
            let (want, size) = (reference.out[i], reference.magnitude[i]);
            let rounded = share * size + unit * want.abs() + reference.faint[i];
            let finding = Finding {
                rule: Rule::Bound,
                value: (got[i] - want).abs(),
                limit: RMS_FACTOR * rounded
                    + (turn(reference, index, false) + doubt) * size
                    + turned
                    + least,
                row: Some(*id),
            };
            if finding.severity() > worst.severity() {
                worst = finding;
            }
        }
    }
    worst
}
