//! The program `fulgurite-check`: verifies and measures; it is a package of its own, since it
//! needs the host crate and this program must work when nothing else compiles.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::artifacts;
use crate::build::{self, BuildArgs};
use crate::closed_output;
use crate::dist::{C_LIBRARY, Platform};
use crate::error::{Error, Result};
use crate::process::{cargo, run};
use crate::workspace::Workspace;

/// Name of the program.
pub const PROGRAM: &str = "fulgurite-check";

/// The program of the first look, and its package.
const DEMO: &str = "fulgurite-demo";
const DEMO_PACKAGE: &str = "demo";

/// The package of the C interface, and its library as cargo names it, which the host crate's own
/// name is not free for.
const C_PACKAGE: &str = "fulgurite-c";
const C_BUILT: &str = "libfulgurite_c.so";

/// Runs a subcommand of the program, which is built first, with the PTX in it; without the PTX if
/// the arguments ask for what needs none.
pub fn run_subcommand(
    workspace: &Workspace,
    subcommand: &str,
    arguments: &[String],
    build: &BuildArgs,
) -> Result<()> {
    if !only_tells(arguments) {
        build::run(workspace, build)?;
        // The harness loads it from beside the program.
        if subcommand == "bench" {
            library(workspace, None)?;
        }
    }
    let mut command = Command::new(program(workspace, None)?);
    command.arg(subcommand).args(arguments);
    let result = run(&format!("{PROGRAM} {subcommand}"), &mut command);
    closed_output::pass_on_closed(&result);
    result
}

/// Runs a subcommand of the program as `cargo test` builds it. Where tests ran before that costs
/// nothing; a build of its own would compile all kernels for the emulator once more, in minutes.
pub fn run_tested(workspace: &Workspace, subcommand: &str, arguments: &[String]) -> Result<()> {
    let mut tests = cargo(workspace.root());
    tests.args(["test", "--workspace", "--no-run"]);
    let program = artifacts::build("building the tests", PROGRAM, &mut tests)?;
    run(&format!("{PROGRAM} {subcommand}"), Command::new(program).arg(subcommand).args(arguments))
}

/// Builds the demo and runs it. It has no PTX and one kernel, and a profile of its own, so that
/// this takes seconds.
pub fn demo(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut build = cargo(workspace.root());
    build.args(["build", "--profile", "quick", "--package", DEMO_PACKAGE, "--bin", DEMO]);
    let program = artifacts::build(&format!("building {DEMO}"), DEMO, &mut build)?;
    let result = run(DEMO, Command::new(program).args(arguments));
    closed_output::pass_on_closed(&result);
    result
}

/// Whether arguments ask the program to tell something about itself or its records: that needs no
/// PTX, and nothing shall be installed for it.
fn only_tells(arguments: &[String]) -> bool {
    arguments
        .iter()
        .any(|argument| ["-h", "--help", "--list", "--page"].contains(&argument.as_str()))
}

/// Builds the C interface, which embeds the PTX that is there, and puts it under its name beside
/// what cargo built. Together with the program it would get the emulator that only that needs.
pub fn library(workspace: &Workspace, cross: Option<&Platform>) -> Result<PathBuf> {
    let built = built(workspace, C_BUILT, &["--package", C_PACKAGE], cross)?;
    let named = built.with_file_name(C_LIBRARY);
    fs::copy(&built, &named).map_err(Error::file("write", &named))?;
    Ok(named)
}

/// Builds the program, which embeds the PTX that is there.
pub fn program(workspace: &Workspace, cross: Option<&Platform>) -> Result<PathBuf> {
    built(workspace, PROGRAM, &["--package", "tests", "--bin", PROGRAM], cross)
}

/// Builds for this machine, or for another platform.
fn built(
    workspace: &Workspace,
    file: &str,
    arguments: &[&str],
    cross: Option<&Platform>,
) -> Result<PathBuf> {
    let mut command = cargo(workspace.root());
    command.args(["build", "--release"]).args(arguments);
    if let Some(platform) = cross {
        platform.choose(&mut command);
    }
    if let Some(commit) = commit(workspace) {
        command.env("FULGURITE_COMMIT", commit);
    }
    artifacts::build(&format!("building {file}"), file, &mut command)
}

/// The commit of the checkout, for `info`; none outside of git.
fn commit(workspace: &Workspace) -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(workspace.root()).args(["describe", "--always", "--dirty", "--abbrev=12"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_lists_need_no_kernels() {
        let tells = |arguments: &[&str]| {
            only_tells(&arguments.iter().map(|word| word.to_string()).collect::<Vec<_>>())
        };
        assert!(tells(&["--help"]) && tells(&["-h"]) && tells(&["--filter", "d64", "--list"]));
        assert!(!tells(&[]) && !tells(&["--filter", "--helpful"]));
    }
}
