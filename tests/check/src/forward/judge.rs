//! What must come of a case of attention, and whether it did.

use fulgurite::{Dtype, Precision};
use reference::forward::lowprec::{self, Arithmetic, LowPrecision};
use reference::forward::oracle::{self, Problem, Reference};
use reference::forward::values::{Exact, Inputs, LONE_ROW, Poison, Values};
use reference::tensor::{RowId, Tensor, decode, encode};

use super::call;
use super::cases::ForwardCase;
use super::compare::{Answer, Claim, Reach, compare, untouched};
use crate::call::Launch;
use crate::case::{self, Case, Summary};
use crate::device::Device;
use crate::memory::Memory;
use crate::rules::Finding;

pub mod eight_bits;

/// Results of a launch: the output and its log-sum-exp.
pub type Results = (Tensor, Option<Vec<f32>>);

/// The results in a launch's memory.
pub fn results(memory: &Memory) -> Results {
    (memory.tensor("out"), memory.numbers("lse").map(<[f32]>::to_vec))
}

/// Judges a case's launches: the one, or that without and that with what is planted.
pub fn judge(case: &ForwardCase, ran: &[Launch]) -> Vec<Finding> {
    let (clean, last) = (&ran[0].memory, &ran[ran.len() - 1].memory);
    let [q, k, v] = call::inputs(last);
    let inputs = Inputs { q, k, v };
    if case.precision != Precision::Given {
        return eight_bits::judge(case, &inputs, last);
    }
    if case.dtype_of_inputs() == Dtype::E4m3 {
        return eight_bits::judge_given(case, &inputs, last);
    }
    let (reference, model) = expected(case, &inputs);
    let sampled = Sampled::of(&results(last), &reference);
    let answer = sampled.answer();
    let Some(poison) = case.poison else {
        let phases = climb_models(case, &inputs, &reference);
        return compare(case.dtype, &reference, &model, answer, claim(case, &phases));
    };
    let mut findings = compare(case.dtype, &reference, &model, answer, None);
    let clean = Sampled::of(&results(clean), &reference);
    let affected = |index: usize| reach(case, poison, &reference, index);
    let (rows, head_dim) = (&reference.rows, reference.head_dim);
    findings.push(untouched(rows, head_dim, affected, clean.answer(), answer));
    findings
}

/// A case's options on inputs from elsewhere.
#[derive(Clone, Debug)]
pub struct Given {
    /// The case.
    pub case: ForwardCase,
    /// The inputs.
    pub inputs: Inputs,
    /// The kernel that a plan chooses.
    pub entry: &'static str,
}

impl Case for Given {
    fn name(&self) -> &str {
        &self.case.name
    }

    fn entry(&self) -> &'static str {
        self.entry
    }

    fn products(&self) -> usize {
        self.case.products()
    }

    fn blank(&self) -> Launch {
        self.case.blank()
    }

    fn launches(&self) -> Vec<Launch> {
        vec![self.case.launch(&self.inputs)]
    }

    fn judge(&self, ran: &[Launch]) -> Vec<Finding> {
        judge(&self.case, ran)
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
/// The outcome, if there is nothing to compare: skipped or failed, never [`Summary::Ran`].
pub fn run(case: &ForwardCase, inputs: &Inputs, device: &dyn Device) -> Result<Results, Summary> {
    let mut launch = case.launch(inputs);
    case::run(&mut launch, device)?;
    Ok(results(&launch.memory))
}

/// Products that the reference of one case may take; beyond it, only every n-th row is compared.
const REFERENCE_BUDGET: usize = 20_000_000_000;

/// The same for long rows, of which each compares much.
const LONG_ROW_BUDGET: usize = 500_000_000;

/// Keys from which on a row is long.
pub const LONG_ROW: usize = 10_000;

/// A case as the reference sees it.
pub fn problem<'a>(case: &ForwardCase, inputs: &'a Inputs) -> Problem<'a> {
    case.call().problem([&inputs.q, &inputs.k, &inputs.v])
}

/// The reference and the model's answer, for all rows or for as many as the budget allows.
pub fn expected(case: &ForwardCase, inputs: &Inputs) -> (Reference, LowPrecision) {
    let problem = problem(case, inputs);
    let rows = compared_rows(case, &problem);
    let reference = oracle::attention(&problem, &rows);
    let model = lowprec::attention(&problem, &rows, Arithmetic::PEER);
    (reference, model)
}

/// All rows, or as many as the budget allows.
fn compared_rows(case: &ForwardCase, problem: &Problem) -> Vec<RowId> {
    let all = problem.rows();
    let budget = if case.kv_len < LONG_ROW { REFERENCE_BUDGET } else { LONG_ROW_BUDGET };
    let step = (all.len() * case.kv_len * case.head_dim * 2).div_ceil(budget).max(1);
    all.into_iter().step_by(step).collect()
}

/// The models that a climb is measured by; none for other cases.
fn climb_models(case: &ForwardCase, inputs: &Inputs, reference: &Reference) -> Vec<LowPrecision> {
    match case.values {
        Values::Climb(climb) if !climb.aligned => {
            let problem = problem(case, inputs);
            let model = |arithmetic| lowprec::attention(&problem, &reference.rows, arithmetic);
            Arithmetic::PEER.phases().map(model).to_vec()
        }
        _ => Vec::new(),
    }
}

/// What is known of a case's data.
fn claim<'a>(case: &ForwardCase, phases: &'a [LowPrecision]) -> Option<Claim<'a>> {
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

/// KV tiles that follow the maxima at least: up to so many, no row keeps an anchor.
const SETTLED_TILES: usize = 4;

/// What of a row's result may depend on what was planted.
fn reach(case: &ForwardCase, poison: Poison, reference: &Reference, index: usize) -> Reach {
    let row = reference.rows[index];
    let group_size = case.heads.0 / case.heads.1;
    let is_head = (row.batch, row.head) == (0, 0);
    let is_kv_head = row.batch == 0 && row.head / group_size == 0;
    // Rows of a group settle together, where rows settle at all.
    let row_local = case.variant.is_some_and(|variant| !variant.softmax.keeps_anchors());
    // A NaN in a row's first column has such kernels compute it again, another way.
    let once = case.variant.is_some_and(|variant| !variant.softmax.loses());
    let near = if row_local { 1 } else { GROUP_ROWS };
    // Only behind the first tiles do rows keep anchors, and a bad row's neighbours none.
    let settles =
        case.variant.is_some_and(|row| case.kv_len > SETTLED_TILES * row.kv_rows as usize);
    let group = if settles { near } else { 1 };
    let reached = match poison {
        Poison::QueryNan | Poison::QueryInf => {
            is_head && Poison::query_rows(case.q_len).any(|r| r / group == row.row / group)
        }
        Poison::KeyNan | Poison::KeyInf => {
            let key = Poison::key_row(case.kv_len);
            let neighbour = |other: &RowId| {
                let same = (other.batch, other.head) == (row.batch, row.head);
                same && other.row / group == row.row / group
            };
            let rows = reference.rows.iter().zip(&reference.kept);
            is_kv_head && rows.filter(|(it, _)| neighbour(it)).any(|(_, kept)| kept.contains(&key))
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
