//! `cargo xtask ci`: everything that must hold before a change is taken; and `test`, a part of it.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::build::{self, BuildArgs};
use crate::error::Result;
use crate::harness;
use crate::process::{cargo, run_slow};
use crate::python;
use crate::tidy;
use crate::unchanged;
use crate::workspace::Workspace;

/// Options of `ci`.
#[derive(Args, Clone, Debug)]
pub struct CiArgs {
    /// Leave a step out (may be given several times)
    #[arg(long, value_name = "STEP")]
    skip: Vec<Step>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    Fmt,
    Tidy,
    Demo,
    Build,
    PtxUnchanged,
    Clippy,
    Test,
    Python,
    Verify,
}

/// Runs the steps until one fails, and says how long each took.
pub fn ci(workspace: &Workspace, arguments: &CiArgs) -> Result<()> {
    let mut times: Vec<(Step, Duration)> = Vec::new();
    let mut result = Ok(());
    for step in Step::value_variants() {
        if arguments.skip.contains(step) {
            continue;
        }
        println!("== {}", name(*step));
        let started = Instant::now();
        result = run_step(workspace, *step);
        times.push((*step, started.elapsed()));
        if result.is_err() {
            break;
        }
    }
    let mut table = output::table(["step", "seconds", "result"]);
    let last = times.len().saturating_sub(1);
    for (index, (step, time)) in times.iter().enumerate() {
        let failed = index == last && result.is_err();
        let seconds = format!("{:.1}", time.as_secs_f64());
        table.add_row([name(*step), seconds, if failed { "failed" } else { "ok" }.to_string()]);
    }
    println!("{table}");
    result
}

/// What names of kernels contain that the last step runs.
const SAMPLED: &str = "fwd_sm90_bf16_d64";

fn name(step: Step) -> String {
    format!("{step:?}").to_lowercase()
}

fn run_step(workspace: &Workspace, step: Step) -> Result<()> {
    let mut build = BuildArgs::default();
    build.ptxas.fetch_if_possible = true;
    let cargo = |arguments: &[&str]| {
        let mut command = cargo(workspace.root());
        command.args(arguments);
        run_slow(&format!("cargo {}", arguments.join(" ")), &mut command)
    };
    match step {
        Step::Fmt => cargo(&["fmt", "--all", "--check"]),
        Step::Tidy => tidy::run(workspace),
        Step::Demo => harness::demo(workspace, &[]),
        Step::Build => {
            build.ptxas.exact = true;
            build::run(workspace, &build)
        }
        Step::PtxUnchanged => unchanged::run(workspace),
        Step::Clippy => {
            cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
        }
        Step::Test => test(workspace, &build, &[]),
        Step::Python => python::check_if_possible(workspace),
        Step::Verify => {
            // Tests run the small cases of all kernels; this list takes a minute a head dim.
            println!("sampled: bf16 at head dim 64; `cargo xtask verify` takes all");
            let sample = ["--filter", SAMPLED].map(str::to_owned);
            harness::run_tested(workspace, "verify", &sample)
        }
    }
}

/// Builds the PTX and runs all tests of the workspace.
pub fn test(workspace: &Workspace, build: &BuildArgs, arguments: &[String]) -> Result<()> {
    build::run(workspace, build)?;
    let mut command = cargo(workspace.root());
    command.args(["test", "--workspace"]).args(arguments);
    run_slow("cargo test", &mut command)
}
