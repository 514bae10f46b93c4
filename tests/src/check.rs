//! One case on one backend: run it, compare it, say what was found.

use crate::backend::{Backend, Ran};
use crate::cases::Case;
use crate::compare::{Answer, Finding, compare, untouched};
use crate::lowprec::{self, Arithmetic, LowPrecision};
use crate::oracle::{self, Problem, Reference};
use crate::tensor::Tensor;
use crate::values::{Inputs, Poison, Values};

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

    /// Whether something is wrong.
    pub fn failed(&self) -> bool {
        !self.passed() && !matches!(self, Outcome::Skipped(_))
    }
}

/// Results of a launch: the output and its log-sum-exp.
type Results = (Tensor, Option<Vec<f32>>);

/// Runs a case and compares it with the reference.
pub fn check(case: &Case, backend: &dyn Backend) -> Outcome {
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
            let affected = |index: usize| sees_poison(case, poison, &reference, index);
            let (rows, head_dim) = (&reference.rows, reference.head_dim);
            findings.push(untouched(rows, head_dim, affected, clean.answer(), answer));
            Outcome::Ran(findings)
        }
        Err(outcome) => outcome,
    }
}

/// Runs a case's options on given inputs and compares with the reference.
pub fn check_inputs(case: &Case, inputs: &Inputs, backend: &dyn Backend) -> Outcome {
    match run(case, inputs, backend) {
        Ok(results) => {
            let (reference, model) = expected(case, inputs);
            let constant = match case.values {
                Values::ConstantV(value) => Some(value),
                _ => None,
            };
            let sampled = Sampled::of(&results, &reference);
            let findings = compare(case.dtype, &reference, &model, sampled.answer(), constant);
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

fn run(case: &Case, inputs: &Inputs, backend: &dyn Backend) -> Result<Results, Outcome> {
    let mut launch = case.launch(inputs);
    match backend.run(&mut launch) {
        Ok(Ran::Done) => launch.results().map_err(Outcome::Failed),
        Ok(Ran::Skipped(reason)) => Err(Outcome::Skipped(reason)),
        Err(error) => Err(Outcome::Failed(error)),
    }
}

/// Products that the reference of one case may take; beyond it, only every n-th row is compared.
const REFERENCE_BUDGET: usize = 20_000_000_000;

/// The reference and the model's answer, for all rows or for as many as the budget allows.
pub fn expected(case: &Case, inputs: &Inputs) -> (Reference, LowPrecision) {
    let problem = Problem {
        q: inputs.q.view(),
        k: inputs.k.view(),
        v: inputs.v.view(),
        mask: case.mask,
        scale: case.scale(),
    };
    let all = problem.rows();
    let step = (all.len() * case.kv_len * case.head_dim * 2).div_ceil(REFERENCE_BUDGET).max(1);
    let rows: Vec<_> = all.into_iter().step_by(step).collect();
    let reference = oracle::attention(&problem, &rows);
    let model = lowprec::attention(&problem, &rows, Arithmetic::PEER);
    (reference, model)
}

/// Whether a row's result may depend on what was planted.
fn sees_poison(case: &Case, poison: Poison, reference: &Reference, index: usize) -> bool {
    let row = reference.rows[index];
    let group_size = case.heads.0 / case.heads.1;
    match poison {
        Poison::QueryNan | Poison::QueryInf => {
            (row.batch, row.head) == (0, 0) && Poison::query_rows(case.q_len).any(|r| r == row.row)
        }
        Poison::KeyNan | Poison::KeyInf => {
            row.batch == 0
                && row.head / group_size == 0
                && reference.kept[index] > Poison::key_row(case.kv_len)
        }
    }
}
