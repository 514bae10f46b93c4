//! When are gradients right? The rules, with the reason for each limit; each gradient is judged
//! alone.
//!
//! * **places**: NaN and infinity where the reference has them and nowhere else; rows that no score
//!   depends on are exactly zero: dq of rows without keys, dk and dv of keys that no row sees.
//! * **rms**: ‖gradient − ref‖ / ‖ref‖ is at most 1.05 times that of the model
//!   ([`lowprec`](reference::backward::lowprec)), which rounds where kernels on tensor cores must,
//!   and the slack of few rows: see [`sampling_slack`].
//! * **element**: the rule of FlashAttention's own tests, max|gradient − ref| is at most
//!   2 · max|model − ref| + 2 · max|(ref + 0.3 − 0.3) − ref|, the last in the element type.

use fulgurite::Dtype;
use reference::backward::row_id;
use reference::tensor::{decode, encode};

use crate::rules::{
    Finding, Gradient, Measure, RMS_FACTOR, Rule, distance, sampling_slack, values,
};

/// A gradient as elements, beside the reference's and the model's.
#[derive(Clone, Copy)]
pub struct Compared<'a> {
    /// Which gradient.
    pub gradient: Gradient,
    /// Its element type.
    pub dtype: Dtype,
    /// Batch entries, heads, rows, columns.
    pub shape: [usize; 4],
    /// What is right.
    pub reference: &'a [f64],
    /// The model's elements.
    pub model: &'a [u16],
    /// The kernel's.
    pub got: &'a [u16],
    /// Whether no score depends on a row: a query without keys, or a key that no row sees.
    pub alone: &'a dyn Fn(usize) -> bool,
}

impl std::fmt::Debug for Compared<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compared").field("gradient", &self.gradient).finish_non_exhaustive()
    }
}

impl Compared<'_> {
    /// Applies every rule.
    pub fn findings(&self) -> Vec<Finding> {
        let [got, model] = [self.got, self.model].map(|bits| values(self.dtype, bits));
        let mut findings = vec![self.places(&got), self.element(&got, &model)];
        // Where all are zero there is nothing that an error could be relative to.
        if self.number_rows().any(|(_, row)| row.iter().any(|x| *x != 0.0)) {
            findings.push(self.rms(&got, &model));
        }
        findings
    }

    fn finding(&self, measure: Measure, value: f64, limit: f64, row: Option<usize>) -> Finding {
        let [_, heads, rows, _] = self.shape;
        let row = row.map(|index| row_id(index, heads, rows));
        Finding { rule: Rule::Of(measure, self.gradient), value, limit, row }
    }

    fn places(&self, got: &[f64]) -> Finding {
        let [_, _, rows, columns] = self.shape;
        let agrees = |i: usize| {
            let (want, got) = (self.reference[i], got[i]);
            let is_number =
                want.is_nan() == got.is_nan() && want.is_infinite() == got.is_infinite();
            is_number && (got == 0.0 || !(self.alone)(i / columns % rows))
        };
        let wrong: Vec<usize> = (0..got.len()).filter(|&i| !agrees(i)).collect();
        let row = wrong.first().map(|index| index / columns);
        self.finding(Measure::Places, wrong.len() as f64, 0.0, row)
    }

    fn rms(&self, got: &[f64], model: &[f64]) -> Finding {
        let (mut norm, mut error) = (0.0, 0.0);
        let mut model_errors = Vec::new();
        let mut worst = (-1.0, None);
        for (index, want) in self.number_rows() {
            let range = index * self.shape[3]..(index + 1) * self.shape[3];
            let row_error = distance(want, &got[range.clone()]);
            if row_error > worst.0 || row_error.is_nan() {
                worst = (row_error, Some(index));
            }
            error += row_error;
            model_errors.push(distance(want, &model[range]));
            norm += want.iter().map(|x| x * x).sum::<f64>();
        }
        let relative = |square: f64| if square == 0.0 { 0.0 } else { (square / norm).sqrt() };
        let of_model = relative(model_errors.iter().sum());
        let limit = of_model * (RMS_FACTOR + sampling_slack(&model_errors));
        self.finding(Measure::Rms, relative(error), limit, worst.1)
    }

    fn element(&self, got: &[f64], model: &[f64]) -> Finding {
        let round = |x: f64| f64::from(decode(self.dtype, encode(self.dtype, x)));
        let (mut worst, mut row) = (0.0, None);
        let (mut model_worst, mut noise): (f64, f64) = (0.0, 0.0);
        for (index, want) in self.number_rows() {
            for (column, &want) in want.iter().enumerate() {
                let i = index * self.shape[3] + column;
                let error = (got[i] - want).abs();
                if error > worst || error.is_nan() {
                    (worst, row) = (error, Some(index));
                }
                model_worst = model_worst.max((model[i] - want).abs());
                let rounded = round(want);
                noise = noise.max((round(round(rounded + 0.3) - 0.3) - rounded).abs());
            }
        }
        self.finding(Measure::Element, worst, 2.0 * (model_worst + noise), row)
    }

    /// Rows of the reference that hold numbers only, with their index.
    fn number_rows(&self) -> impl Iterator<Item = (usize, &[f64])> {
        let rows = self.reference.chunks(self.shape[3]).enumerate();
        rows.filter(|(_, row)| row.iter().all(|x| x.is_finite()))
    }
}
