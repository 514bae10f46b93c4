//! The program `fulgurite-check`: verifies and measures; it is a package of its own, since it
//! needs the host crate and this program must work when nothing else compiles.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::artifacts;
use crate::build::{self, BuildArgs};
use crate::closed_output;
use crate::error::{Error, Result};
use crate::process::{cargo, run};
use crate::workspace::{Workspace, write_if_changed};

/// Name of the program.
pub const PROGRAM: &str = "fulgurite-check";

/// The program of the first look, and its package.
const DEMO: &str = "fulgurite-demo";
const DEMO_PACKAGE: &str = "demo";

/// The package of the C interface, its header in the checkout, and its library as cargo names it,
/// which the host crate's own name is not free for.
const C_PACKAGE: &str = "fulgurite-c";
const C_BUILT: &str = "libfulgurite_c.so";
/// The library's name for those who load it or link with it.
const C_LIBRARY: &str = "libfulgurite.so";
/// The name by which programs that are linked with the library look for it.
const C_SONAME: &str = "libfulgurite.so.0";
const C_HEADER: &str = "host/c/fulgurite.h";

/// What stands beside the program in `dist`.
const DIST_README: &str = "\
fulgurite-check verifies and measures Fulgurite's attention kernels.

It needs an NVIDIA driver, a Hopper GPU (H100, H200), and
GLIBC; no CUDA toolkit, no Rust.
The kernels are inside the program; the driver compiles each one on first use.

    ./fulgurite-check verify                  compare every kernel with a float64 reference
    ./fulgurite-check bench                   measure the kernels
    ./fulgurite-check bench --peers-dir DIR   measure peers beside them (Python with PyTorch)
    ./fulgurite-check first-use               time from process start to first result
    ./fulgurite-check info                    what a report of an error should say
    ./fulgurite-check help                    all options

libfulgurite.so and fulgurite.h are the C interface (libfulgurite.so.0 is the same library, by the
name that linked programs look for); `bench --peers-dir` uses the library.
";

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
            library(workspace)?;
        }
    }
    let mut command = Command::new(program(workspace)?);
    command.arg(subcommand).args(arguments);
    let result = run(&format!("{PROGRAM} {subcommand}"), &mut command);
    closed_output::pass_on_closed(&result);
    result
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

/// Puts the program and the C interface into `target/dist`, ready for a machine with a GPU.
pub fn dist(workspace: &Workspace, build: &BuildArgs) -> Result<()> {
    build::run(workspace, build)?;
    let (library, program) = (library(workspace)?, program(workspace)?);
    let directory = workspace.target().join("dist");
    fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let copy = directory.join(PROGRAM);
    let mut glibc = Vec::new();
    for (from, to) in [
        (program, copy.clone()),
        (library.clone(), directory.join(C_LIBRARY)),
        (library, directory.join(C_SONAME)),
        (workspace.root().join(C_HEADER), directory.join("fulgurite.h")),
    ] {
        let content = fs::read(&from).map_err(Error::file("read", &from))?;
        glibc.extend(glibc_needed(&content));
        fs::copy(&from, &to).map_err(Error::file("write", &to))?;
    }
    let text = DIST_README.replace("GLIBC", &glibc_text(glibc.into_iter().max()));
    write_if_changed(&directory.join("README.txt"), &text)?;
    println!("{}", copy.display());
    Ok(())
}

/// The newest version of glibc whose symbols a program or library names, as in `[2, 34]`: the
/// loader refuses to start it with an older one.
pub fn glibc_needed(content: &[u8]) -> Option<[u32; 2]> {
    let mark = b"GLIBC_";
    let version = |at: usize| {
        let text = &content[at + mark.len()..];
        let end = text.iter().position(|byte| *byte == 0)?;
        let mut numbers = std::str::from_utf8(&text[..end]).ok()?.split('.');
        Some([numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?])
    };
    let places = content.windows(mark.len()).enumerate().filter(|(_, bytes)| *bytes == mark);
    places.filter_map(|(at, _)| version(at)).max()
}

fn glibc_text(needed: Option<[u32; 2]>) -> String {
    needed.map_or_else(
        || "the C library of the machine that built it".to_string(),
        |[major, minor]| format!("glibc {major}.{minor} or later (`ldd --version` tells)"),
    )
}

/// Builds the C interface, which embeds the PTX that is there, and puts it under its name beside
/// what cargo built. Together with the program it would get the emulator that only that needs.
fn library(workspace: &Workspace) -> Result<PathBuf> {
    let built = built(workspace, C_BUILT, &["--package", C_PACKAGE])?;
    let named = built.with_file_name(C_LIBRARY);
    fs::copy(&built, &named).map_err(Error::file("write", &named))?;
    Ok(named)
}

/// Builds the program, which embeds the PTX that is there.
fn program(workspace: &Workspace) -> Result<PathBuf> {
    built(workspace, PROGRAM, &["--package", "tests", "--bin", PROGRAM])
}

fn built(workspace: &Workspace, file: &str, arguments: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(workspace.root());
    command.args(["build", "--release"]).args(arguments);
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

    #[test]
    fn the_newest_glibc_counts() {
        let content = b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0GLIBC_2.";
        assert_eq!(glibc_needed(content), Some([2, 34]));
        assert_eq!(glibc_needed(b"static"), None);
        assert!(glibc_text(Some([2, 34])).contains("glibc 2.34 or later"));
    }

    #[test]
    fn the_glibc_of_this_program_is_read() {
        let own = std::env::current_exe().and_then(fs::read).expect("it can be read");
        if cfg!(target_env = "gnu") {
            assert!(glibc_needed(&own).is_some_and(|version| version >= [2, 17]));
        }
    }
}
