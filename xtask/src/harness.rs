//! The program `fulgurite-check`: verifies and measures; it is a package of its own, since it
//! needs the host crate and this program must work when nothing else compiles.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::build::{self, BuildArgs};
use crate::error::{Error, Result};
use crate::process::{cargo, run};
use crate::workspace::{Workspace, write_if_changed};

/// Name of the program.
pub const PROGRAM: &str = "fulgurite-check";

/// The package of the C interface, its library, and its header in the checkout.
const C_PACKAGE: &str = "fulgurite-c";
const C_LIBRARY: &str = "libfulgurite_c.so";
/// The name by which programs that are linked with the library look for it.
const C_SONAME: &str = "libfulgurite_c.so.0";
const C_HEADER: &str = "host/c/fulgurite.h";

/// What stands beside the program in `dist`.
const DIST_README: &str = "\
fulgurite-check verifies and measures Fulgurite's attention kernels.

It needs an NVIDIA driver and a Hopper GPU (H100, H200), nothing else: no CUDA toolkit, no Rust.
The kernels are inside the program; the driver compiles each one on first use.

    ./fulgurite-check verify                  compare every kernel with a float64 reference
    ./fulgurite-check bench                   measure the kernels
    ./fulgurite-check bench --peers-dir DIR   measure peers beside them (Python with PyTorch)
    ./fulgurite-check first-use               time from process start to first result
    ./fulgurite-check info                    what a report of an error should say
    ./fulgurite-check help                    all options

libfulgurite_c.so and fulgurite.h are the C interface; `bench --peers-dir` uses the library.
";

/// Builds the PTX and the program, and runs a subcommand of it.
pub fn run_subcommand(
    workspace: &Workspace,
    subcommand: &str,
    arguments: &[String],
    build: &BuildArgs,
) -> Result<()> {
    let program = program(workspace, build)?;
    let mut command = Command::new(program);
    command.arg(subcommand).args(arguments);
    run(&format!("{PROGRAM} {subcommand}"), &mut command)
}

/// Puts the program and the C interface into `target/dist`, ready for a machine with a GPU.
pub fn dist(workspace: &Workspace, build: &BuildArgs) -> Result<()> {
    let program = program(workspace, build)?;
    let directory = workspace.target().join("dist");
    fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let copy = directory.join(PROGRAM);
    for (from, to) in [
        (program.clone(), copy.clone()),
        (program.with_file_name(C_LIBRARY), directory.join(C_LIBRARY)),
        (program.with_file_name(C_LIBRARY), directory.join(C_SONAME)),
        (workspace.root().join(C_HEADER), directory.join("fulgurite.h")),
    ] {
        fs::copy(&from, &to).map_err(Error::file("write", &to))?;
    }
    write_if_changed(&directory.join("README.txt"), DIST_README)?;
    println!("{}", copy.display());
    Ok(())
}

/// Builds the PTX, then the C interface and the program, which both embed it.
fn program(workspace: &Workspace, build: &BuildArgs) -> Result<PathBuf> {
    build::run(workspace, build)?;
    // One after the other: together, the library would get the emulator that the program needs.
    for arguments in [&["--package", C_PACKAGE][..], &["--package", "tests", "--bin", PROGRAM]] {
        let mut command = cargo(workspace.root());
        command.args(["build", "--release"]).args(arguments);
        if let Some(commit) = commit(workspace) {
            command.env("FULGURITE_COMMIT", commit);
        }
        run(&format!("building {}", arguments[1]), &mut command)?;
    }
    Ok(workspace.target().join("release").join(PROGRAM))
}

/// The commit of the checkout, for `info`; none outside of git.
fn commit(workspace: &Workspace) -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(workspace.root()).args(["describe", "--always", "--dirty", "--abbrev=12"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
