//! What is found when an answer is judged: rules, findings, and the measures that rules share.

use fulgurite::Dtype;
use reference::tensor::{RowId, decode};

/// How much worse than the model's error a kernel's may be.
pub const RMS_FACTOR: f64 = 1.05;

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
    /// The element nearest to its proved limit, or farthest beyond it.
    Bound,
    /// Elements that differ from the one value that has all the weight.
    Dominant,
    /// Elements that differ from the constant.
    Constant,
    /// Rows that changed though nothing they see did.
    Untouched,
    /// One of these, of a gradient.
    Of(Measure, Gradient),
}

/// What is measured of each gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// As [`Rule::Places`].
    Places,
    /// As [`Rule::Rms`].
    Rms,
    /// As [`Rule::Element`].
    Element,
}

/// A gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradient {
    /// That of the queries.
    Dq,
    /// That of the keys.
    Dk,
    /// That of the values.
    Dv,
}

impl Gradient {
    /// All of them.
    pub const ALL: [Gradient; 3] = [Gradient::Dq, Gradient::Dk, Gradient::Dv];

    /// The tensor's name in calls.
    pub const fn name(self) -> &'static str {
        match self {
            Gradient::Dq => "dq",
            Gradient::Dk => "dk",
            Gradient::Dv => "dv",
        }
    }
}

impl Rule {
    /// The name in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Places => "places",
            Rule::Rms => "rms",
            Rule::Element => "element",
            Rule::Lse => "lse",
            Rule::Bound => "bound",
            Rule::Dominant => "dominant",
            Rule::Constant => "constant",
            Rule::Untouched => "untouched",
            Rule::Of(Measure::Places, Gradient::Dq) => "places of dq",
            Rule::Of(Measure::Places, Gradient::Dk) => "places of dk",
            Rule::Of(Measure::Places, Gradient::Dv) => "places of dv",
            Rule::Of(Measure::Rms, Gradient::Dq) => "rms of dq",
            Rule::Of(Measure::Rms, Gradient::Dk) => "rms of dk",
            Rule::Of(Measure::Rms, Gradient::Dv) => "rms of dv",
            Rule::Of(Measure::Element, Gradient::Dq) => "element of dq",
            Rule::Of(Measure::Element, Gradient::Dk) => "element of dk",
            Rule::Of(Measure::Element, Gradient::Dv) => "element of dv",
        }
    }

    /// The rule, whatever tensor it is applied to.
    pub const fn plain(self) -> Rule {
        match self {
            Rule::Of(Measure::Places, _) => Rule::Places,
            Rule::Of(Measure::Rms, _) => Rule::Rms,
            Rule::Of(Measure::Element, _) => Rule::Element,
            rule => rule,
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

    /// What is wrong, for people.
    pub fn complaint(&self) -> String {
        let at = self.row.map_or(String::new(), |id| {
            format!(" (batch {}, head {}, row {})", id.batch, id.head, id.row)
        });
        format!("{} {:.3e} > {:.3e}{at}", self.rule.name(), self.value, self.limit)
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

/// Elements as numbers.
pub fn values(dtype: Dtype, bits: &[u16]) -> Vec<f64> {
    bits.iter().map(|&bits| f64::from(decode(dtype, bits))).collect()
}

/// Squared distance of two rows.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
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

/// Half a unit in the last place of 1, and half the distance of the least numbers.
pub fn roundings(dtype: Dtype) -> (f64, f64) {
    match dtype {
        Dtype::Bf16 => (2f64.powi(-8), 2f64.powi(-134)),
        Dtype::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        other => panic!("no kernel has elements of {}", other.name()),
    }
}
