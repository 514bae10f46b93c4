//! One case on one backend: run it, compare it, say what was found.

use crate::device::{Device, Ran};
use crate::forward::cases::Case;
use crate::forward::compare::{Answer, Claim, Finding, Reach, compare, untouched};
use reference::forward::lowprec::{self, Arithmetic, LowPrecision};
use reference::forward::oracle::{self, Problem, Reference};
use reference::forward::values::{Exact, Inputs, LONE_ROW, Poison, Values};
use reference::tensor::{Tensor, decode, encode};

/// What became of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It ran; every rule's finding.
    Ran(Vec<Finding>),
    /// The backend could not run it, for this reason.
    Skipped(String),
    /// It failed before anything could be compared, or wrote where it may not.
    Failed(String),
}

impl Outcome {
    /// Whether it ran and every rule held.
    pub fn passed(&self) -> bool {
        matches!(self, Outcome::Ran(findings) if findings.iter().all(Finding::passed))
    }

    /// Why there is nothing to compare, of a case that did not run.
    pub fn reason(self) -> String {
        match self {
            Outcome::Failed(reason) | Outcome::Skipped(reason) => reason,
            Outcome::Ran(_) => "it ran, and gave nothing".to_owned(),
        }
    }

    /// Whether something is wrong.
    pub fn failed(&self) -> bool {
        !self.passed() && !matches!(self, Outcome::Skipped(_))
    }
}

/// Results of a launch: the output and its log-sum-exp.
pub type Results = (Tensor, Option<Vec<f32>>);

/// Runs a case and compares it with the reference.
pub fn check(case: &Case, backend: &dyn Device) -> Outcome {
    let clean = case.clean_inputs();
    let Some(poison) = case.poison else {
        return check_inputs(case, &clean, backend);
    };
    let mut planted = clean.clone();
    poison.plant(&mut planted);
    let pair =
        run(case, &clean, backend).and_then(|clean| Ok((clean, run(case, &planted, backend)?)));
    match pair {
        Ok((clean, dirty)) => {
            let (reference, model) = expected(case, &planted);
            let (dirty, clean) = (Sampled::of(&dirty, &reference), Sampled::of(&clean, &reference));
            let answer = dirty.answer();
            let mut findings = compare(case.dtype, &reference, &model, answer, None);
            let affected = |index: usize| reach(case, poison, &reference, index);
            let (rows, head_dim) = (&reference.rows, reference.head_dim);
            findings.push(untouched(rows, head_dim, affected, clean.answer(), answer));
            Outcome::Ran(findings)
        }
        Err(outcome) => outcome,
    }
}

/// Runs a case's options on given inputs and compares with the reference.
pub fn check_inputs(case: &Case, inputs: &Inputs, backend: &dyn Device) -> Outcome {
    match run(case, inputs, backend) {
        Ok(results) => {
            let (reference, model) = expected(case, inputs);
            let phases = climb_models(case, inputs, &reference);
            let claim = claim(case, &phases);
            let sampled = Sampled::of(&results, &reference);
            let findings = compare(case.dtype, &reference, &model, sampled.answer(), claim);
            Outcome::Ran(findings)
        }
        Err(outcome) => outcome,
    }
}

/// The reference's rows of a launch's results.
pub struct Sampled {
    out: Vec<u16>,
    lse: Option<Vec<f32>>,
}

impl Sampled {
    fn of((out, lse): &Results, reference: &Reference) -> Sampled {
        let [_, heads, rows, head_dim] = out.layout.shape;
        let ids = || reference.rows.iter().map(|id| (id.batch * heads + id.head) * rows + id.row);
        let row = |index: usize| &out.bits[index * head_dim..(index + 1) * head_dim];
        Sampled {
            out: ids().flat_map(row).copied().collect(),
            lse: lse.as_ref().map(|lse| ids().map(|index| lse[index]).collect()),
        }
    }

    fn answer(&self) -> Answer<'_> {
        Answer { out: &self.out, lse: self.lse.as_deref() }
    }
}

/// Runs a case's options on given inputs.
///
/// # Errors
/// The outcome, if there is nothing to compare: skipped or failed, never [`Outcome::Ran`].
pub fn run(case: &Case, inputs: &Inputs, backend: &dyn Device) -> Result<Results, Outcome> {
    let mut launch = case.launch(inputs);
    match backend.run(&mut launch) {
        Ok(Ran::Done) => launch.results().map_err(Outcome::Failed),
        Ok(Ran::Skipped(reason)) => Err(Outcome::Skipped(reason)),
        Err(error) => Err(Outcome::Failed(error)),
    }
}

/// Products that the reference of one case may take; beyond it, only every n-th row is compared.
const REFERENCE_BUDGET: usize = 20_000_000_000;

/// The same for long rows, of which each compares much.
const LONG_ROW_BUDGET: usize = 500_000_000;

/// Keys from which on a row is long.
pub const LONG_ROW: usize = 10_000;

/// A case as the reference sees it.
pub fn problem<'a>(case: &Case, inputs: &'a Inputs) -> Problem<'a> {
    let (q, k, v) = (inputs.q.view(), inputs.k.view(), inputs.v.view());
    Problem { q, k, v, mask: case.mask, scale: case.scale() }
}

/// The reference and the model's answer, for all rows or for as many as the budget allows.
pub fn expected(case: &Case, inputs: &Inputs) -> (Reference, LowPrecision) {
    let problem = problem(case, inputs);
    let all = problem.rows();
    let budget = if case.kv_len < LONG_ROW { REFERENCE_BUDGET } else { LONG_ROW_BUDGET };
    let step = (all.len() * case.kv_len * case.head_dim * 2).div_ceil(budget).max(1);
    let rows: Vec<_> = all.into_iter().step_by(step).collect();
    let reference = oracle::attention(&problem, &rows);
    let model = lowprec::attention(&problem, &rows, Arithmetic::PEER);
    (reference, model)
}

/// The models that a climb is measured by; none for other cases.
fn climb_models(case: &Case, inputs: &Inputs, reference: &Reference) -> Vec<LowPrecision> {
    match case.values {
        Values::Climb(climb) if !climb.aligned => {
            let problem = problem(case, inputs);
            let model = |arithmetic| lowprec::attention(&problem, &reference.rows, arithmetic);
            Arithmetic::phases().map(model).to_vec()
        }
        _ => Vec::new(),
    }
}

/// What is known of a case's data.
fn claim<'a>(case: &Case, phases: &'a [LowPrecision]) -> Option<Claim<'a>> {
    match case.values {
        Values::ConstantV(value) => Some(Claim::Constant(value)),
        Values::Equal(value) => {
            Some(Claim::Equal(decode(case.dtype, encode(case.dtype, f64::from(value)))))
        }
        Values::Exact(Exact::Dominant(_)) => Some(Claim::Dominant),
        Values::Exact(_) => Some(Claim::Exact),
        Values::Climb(climb) if climb.aligned => Some(Claim::AlignedClimb),
        Values::Climb(_) => Some(Claim::Climb(phases)),
        _ => None,
    }
}

/// Rows of a head whose results may depend on each other's queries in kernels with anchors.
const GROUP_ROWS: usize = 64;

/// What of a row's result may depend on what was planted.
fn reach(case: &Case, poison: Poison, reference: &Reference, index: usize) -> Reach {
    let row = reference.rows[index];
    let group_size = case.heads.0 / case.heads.1;
    let is_head = (row.batch, row.head) == (0, 0);
    let is_kv_head = row.batch == 0 && row.head / group_size == 0;
    // Rows of a group settle together, where rows settle at all.
    let row_local = case.variant.is_some_and(|variant| !variant.softmax.keeps_anchors());
    // A NaN in a row's first column has such kernels compute it again, another way.
    let once = case.variant.is_some_and(|variant| !variant.softmax.loses());
    let near = if row_local { 1 } else { GROUP_ROWS };
    let reached = match poison {
        Poison::QueryNan | Poison::QueryInf => {
            is_head && Poison::query_rows(case.q_len).any(|r| r == row.row)
        }
        Poison::KeyNan | Poison::KeyInf => {
            is_kv_head && reference.kept[index] > Poison::key_row(case.kv_len)
        }
        Poison::RowNan | Poison::RowInf | Poison::RowPeak | Poison::RowHuge => {
            is_head && row.row / near == LONE_ROW / near
        }
        Poison::HeadNan => is_kv_head,
        Poison::ValueNan(column) if is_kv_head && (column > 0 || once) => {
            return Reach::Column(column);
        }
        Poison::ValueNan(_) => is_kv_head,
    };
    if reached { Reach::Row } else { Reach::Nothing }
}
