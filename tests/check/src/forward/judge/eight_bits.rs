//! What must come of a case in 8 bits.

use fulgurite::Dtype;
use reference::forward::eight_bits::{EightBits, Quantised};
use reference::forward::lowprec::{Arithmetic, LowPrecision};
use reference::forward::oracle::{self, Reference};
use reference::forward::values::{Inputs, Values};

use super::super::call;
use super::super::cases::ForwardCase;
use super::super::compare::Answer;
use super::super::compare::eight_bits::{self, Expected};
use super::{Sampled, compared_rows, problem, results};
use crate::memory::Memory;
use crate::rules::Finding;

/// What answers to a case are judged by.
pub struct Known {
    /// What a right quantiser leaves.
    pub quantised: Quantised,
    own: Reference,
    of_quantised: Reference,
    doubts: Vec<f64>,
    largest_values: Vec<f64>,
    model: LowPrecision,
    phases: Vec<LowPrecision>,
}

impl Known {
    /// Of a case on its inputs.
    ///
    /// # Panics
    /// If the case has no kernel of its own: what is quantised depends on the kernel's tile.
    pub fn of(case: &ForwardCase, inputs: &Inputs) -> Known {
        let problem = problem(case, inputs);
        let rows = compared_rows(case, &problem);
        let quantised = case.call().quantised(&problem).expect("a kernel of 8 bits is named");
        let eight_bits = EightBits::of(&problem, quantised.clone());
        let arithmetic = call::arithmetic_of(case.precision, case.dtype);
        let arithmetic = Arithmetic { kv_rows: quantised.shape.kv_rows, ..arithmetic };
        let phases = match is_peaked(case.values) {
            true => arithmetic.phases().map(|phase| eight_bits.model(&rows, phase)).to_vec(),
            false => Vec::new(),
        };
        let (of_quantised, doubts) = eight_bits.reference(&rows);
        Known {
            own: oracle::attention(&problem, &rows),
            of_quantised,
            doubts,
            largest_values: eight_bits.largest_values(&rows),
            model: eight_bits.model(&rows, arithmetic),
            phases,
            quantised,
        }
    }

    /// Applies every rule to an answer.
    pub fn judge(&self, case: &ForwardCase, answer: Answer) -> Vec<Finding> {
        let expected = Expected {
            own: &self.own,
            quantised: &self.of_quantised,
            doubts: &self.doubts,
            models: (&self.model, &self.phases),
            constant: is_constant(case.values),
            values: self.quantised.shape.values,
            largest_values: &self.largest_values,
            parked_keys: None,
        };
        eight_bits::compare(case.dtype, expected, answer)
    }
}

/// Judges the results in memory, of the last launch of a case.
pub(super) fn judge(case: &ForwardCase, inputs: &Inputs, last: &Memory) -> Vec<Finding> {
    let known = Known::of(case, inputs);
    let sampled = Sampled::of(&results(last), &known.own);
    known.judge(case, sampled.answer())
}

/// Judges the results in memory, of the last launch of a case whose tensors have 8 bits.
pub(super) fn judge_given(case: &ForwardCase, inputs: &Inputs, last: &Memory) -> Vec<Finding> {
    let problem = problem(case, inputs);
    let rows = compared_rows(case, &problem);
    let given = case.call().given8(&problem, last).expect("the tensors have 8 bits");
    let arithmetic = call::arithmetic_of(case.precision, case.dtype_of_inputs());
    let kv_rows = case.variant.map_or(arithmetic.kv_rows, |row| row.kv_rows as usize);
    let arithmetic = Arithmetic { kv_rows, ..arithmetic };
    // Most of the error is that of rounding probabilities, which is less where the largest is
    // exact: anchors may lie anywhere, so that this is no rule.
    let phases = [1.0, 2.0].map(|thirds| {
        given.model(&rows, Arithmetic { phase: arithmetic.phase + thirds / 3.0, ..arithmetic })
    });
    let reference = given.reference(&rows);
    let model = given.model(&rows, arithmetic);
    let doubts = truncated_scores(&reference, &model);
    let expected = Expected {
        own: &reference,
        quantised: &reference,
        doubts: &doubts,
        models: (&model, &phases),
        constant: false,
        values: Dtype::E4m3,
        largest_values: &[],
        parked_keys: arithmetic.truncated_keys,
    };
    let sampled = Sampled::of(&results(last), &reference);
    eight_bits::compare(case.dtype, expected, sampled.answer())
}

/// What of the largest score of a row its scores may be off by at least, where sums of products of
/// q and k are cut off 13 bits behind the largest of them: four units.
const TRUNCATED_SCORES: f64 = 5e-4;

/// By how much each row's log-sum-exp may be off because its scores are cut off. Where a few
/// products are far larger than the score the model is off by more than the least, since each of
/// the others loses up to a unit; twice that is granted, relative to the row's largest score.
fn truncated_scores(reference: &Reference, model: &LowPrecision) -> Vec<f64> {
    let size = |row: usize| reference.peak[row].max(1.0);
    let off = reference.lse.iter().zip(&model.lse).enumerate();
    let off = off.filter(|(_, (want, _))| want.is_finite());
    let off = off.map(|(row, (want, got))| (f64::from(*got) - want).abs() / size(row));
    let share = TRUNCATED_SCORES.max(2.0 * off.fold(0.0, f64::max));
    (0..reference.lse.len()).map(|row| share * size(row)).collect()
}

/// Whether few keys have all of some rows, so that it matters which of them is at the anchor.
fn is_peaked(values: Values) -> bool {
    matches!(
        values,
        Values::LargeLogits
            | Values::DominantKey
            | Values::Sinks(_)
            | Values::LoneSink(_)
            | Values::LoneStart(_)
    )
}

/// Whether the elements of each column of V are the same.
fn is_constant(values: Values) -> bool {
    matches!(values, Values::ConstantV(_) | Values::ConstantColumns | Values::Equal(_))
}
