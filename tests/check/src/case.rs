//! A case of an operation: what is computed, and what must come of it.

use std::fmt::Debug;
use std::sync::Arc;

use crate::call::Launch;
use crate::device::{Device, Ran};
use crate::rules::Finding;

/// What a device must be to run a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Any.
    Nothing,
    /// Faster than the emulator, for which others show the same.
    Speed,
    /// A GPU.
    Gpu,
}

/// Something to check.
pub trait Case: Debug + Send + Sync {
    /// What is special about it, and its sizes; unique among the cases of an entry.
    fn name(&self) -> &str;

    /// The kernel that it is for.
    fn entry(&self) -> &'static str;

    /// Who runs it.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Multiplications of one of its products: what it costs to emulate.
    fn products(&self) -> usize;

    /// Its call on memory that holds zeros: for what does not depend on values.
    fn blank(&self) -> Launch;

    /// The launches to make; most cases have one.
    fn launches(&self) -> Vec<Launch>;

    /// Judges the launches after they ran, all of whose results are written.
    fn judge(&self, ran: &[Launch]) -> Vec<Finding>;
}

/// A case among those of other operations.
pub type Job = Arc<dyn Case>;

/// What became of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Summary {
    /// It ran; every rule's finding.
    Ran(Vec<Finding>),
    /// The device could not run it, for this reason.
    Skipped(String),
    /// It failed before anything could be compared, or wrote where it may not.
    Failed(String),
}

impl Summary {
    /// Whether it ran and every rule held.
    pub fn passed(&self) -> bool {
        matches!(self, Summary::Ran(findings) if findings.iter().all(Finding::passed))
    }

    /// Why there is nothing to compare, of a case that did not run.
    pub fn reason(self) -> String {
        match self {
            Summary::Failed(reason) | Summary::Skipped(reason) => reason,
            Summary::Ran(_) => "it ran, and gave nothing".to_owned(),
        }
    }

    /// Whether something is wrong.
    pub fn failed(&self) -> bool {
        !self.passed() && !matches!(self, Summary::Skipped(_))
    }

    /// A line for people; empty if it passed.
    pub fn complaint(&self) -> String {
        match self {
            Summary::Ran(findings) => {
                let failed = findings.iter().filter(|finding| !finding.passed());
                failed.map(Finding::complaint).collect::<Vec<_>>().join("; ")
            }
            Summary::Skipped(reason) | Summary::Failed(reason) => reason.clone(),
        }
    }
}

/// Runs a case and judges it.
pub fn check(case: &dyn Case, device: &dyn Device) -> Summary {
    let mut launches = case.launches();
    match launches.iter_mut().try_for_each(|launch| run(launch, device)) {
        Ok(()) => Summary::Ran(case.judge(&launches)),
        Err(outcome) => outcome,
    }
}

/// Makes a launch.
///
/// # Errors
/// The outcome, if there is nothing to judge: skipped or failed, never [`Summary::Ran`].
pub fn run(launch: &mut Launch, device: &dyn Device) -> Result<(), Summary> {
    match device.run(launch) {
        Ok(Ran::Done) => launch.memory.check_written().map_err(Summary::Failed),
        Ok(Ran::Skipped(reason)) => Err(Summary::Skipped(reason)),
        Err(error) => Err(Summary::Failed(error)),
    }
}
