//! What must come of a case in 8 bits.

use reference::forward::eight_bits::{EightBits, Quantised};
use reference::forward::lowprec::{Arithmetic, LowPrecision};
use reference::forward::oracle::{self, Reference};
use reference::forward::values::{Inputs, Values};

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
        let arithmetic = Arithmetic { kv_rows: quantised.shape.kv_rows, ..Arithmetic::EIGHT_BITS };
        let phases = match is_peaked(case.values) {
            true => arithmetic.phases().map(|phase| eight_bits.model(&rows, phase)).to_vec(),
            false => Vec::new(),
        };
        let (of_quantised, doubts) = eight_bits.reference(&rows);
        Known {
            own: oracle::attention(&problem, &rows),
            of_quantised,
            doubts,
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
