//! What can be checked without a GPU.

use fulgurite::DeviceFacts;
use fulgurite::internals::{KERNELS, Kernel, VARIANTS};
use output::Pulse;
use reference::forward::closed_forms;

use super::run_jobs;
use crate::case::{Job, Needs};
use crate::device::Model;
use crate::forward::mutants::are_seen;
use crate::report::{Tally, Who};

/// A check's name and what it found.
type Check = (&'static str, Result<(), String>);

/// Plans, PTX and the reference: everything but the arithmetic of kernels.
pub fn static_checks(jobs: &[Job]) -> Vec<Check> {
    let mut checks: Vec<Check> =
        closed_forms::ALL.iter().map(|(name, form)| (*name, form())).collect();
    checks.push(("every case is planned for its variant", every(jobs, plan)));
    checks.push(("every variant's PTX is embedded and sound", every(KERNELS, ptx)));
    checks
}

/// Applies a check to all, and tells of the first that fails and how many do.
fn every<T>(all: &[T], one: impl Fn(&T) -> Result<(), String>) -> Result<(), String> {
    let mut failures = all.iter().filter_map(|item| one(item).err());
    match failures.next() {
        None => Ok(()),
        Some(first) => match failures.count() {
            0 => Err(first),
            more => Err(format!("{first} (and {more} more)")),
        },
    }
}

fn plan(job: &Job) -> Result<(), String> {
    let (entry, case) = (job.entry(), job.name());
    let plan = job.blank().call.plan(&DeviceFacts::h200());
    let plan = plan.map_err(|error| format!("{entry} {case}: {error}"))?;
    match plan.entry {
        Some(planned) if planned == entry => Ok(()),
        Some(planned) => Err(format!("{entry} {case}: planned as {planned}")),
        None => Err(format!("{entry} {case}: planned as no work")),
    }
}

fn ptx(kernel: &Kernel) -> Result<(), String> {
    let Some(text) = fulgurite::ptx(kernel.entry) else {
        return Err(format!("{} is not in this build: run `cargo xtask build`", kernel.entry));
    };
    match ptx_faults(kernel, &text).first() {
        None => Ok(()),
        Some(fault) => Err(format!("{}: {fault}", kernel.entry)),
    }
}

/// What is wrong with a kernel's PTX, judged by its text.
pub fn ptx_faults(kernel: &Kernel, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let entries = text.matches(".entry ").count();
    if entries != 1 || !text.contains(&format!(".entry {}", kernel.entry)) {
        faults.push(format!("{entries} entries, want the one of its name"));
    }
    let parameter = format!(".b8 {}_param_0[{}]", kernel.entry, kernel.param_bytes);
    let mut wanted = vec![
        format!(".target {}\n", kernel.arch.target()),
        format!(".maxntid {}, 1, 1\n", kernel.launch.threads),
        format!(".param .align 64 {parameter}"),
    ];
    // Kernels with consumers multiply.
    if kernel.launch.consumer_registers > 0 {
        wanted.push("wgmma.mma_async".to_owned());
    }
    for want in wanted {
        if !text.contains(&want) {
            faults.push(format!("`{}` is missing", want.trim_end()));
        }
    }
    for bad in [".local", ".extern .func", "call.uni"] {
        if text.contains(bad) {
            faults.push(format!("`{bad}` must not occur"));
        }
    }
    faults
}

/// Runs the case list on the model of a right kernel, and planted errors, which must be seen.
pub fn verify_model(jobs: &[Job], tally: &mut Tally) {
    println!("Rules and cases, on a model of a right kernel (no kernel of the table runs):");
    let pulse = Pulse::text("planted errors");
    for variant in [&VARIANTS[1], &VARIANTS[10]] {
        tally
            .add_check(&format!("planted errors are seen ({})", variant.entry), &are_seen(variant));
    }
    drop(pulse);
    let light: Vec<Job> = jobs.iter().filter(|job| job.needs() < Needs::Gpu).cloned().collect();
    tally.add_records(Who::Model, run_jobs(&light, &Model));
}
