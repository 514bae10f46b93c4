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

/// What stands beside the program in `dist`.
const DIST_README: &str = "\
fulgurite-check verifies and measures Fulgurite's attention kernels.

It needs an NVIDIA driver and a Hopper GPU (H100, H200), nothing else: no CUDA toolkit, no Rust.
The kernels are inside the program; the driver compiles each one on first use.

    ./fulgurite-check verify     compare every kernel with a float64 reference
    ./fulgurite-check bench      measure the kernels
    ./fulgurite-check help       all options
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

/// Puts the program into `target/dist`, ready to be copied to a machine with a GPU.
pub fn dist(workspace: &Workspace, build: &BuildArgs) -> Result<()> {
    let program = program(workspace, build)?;
    let directory = workspace.target().join("dist");
    fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let copy = directory.join(PROGRAM);
    fs::copy(&program, &copy).map_err(Error::file("write", &copy))?;
    write_if_changed(&directory.join("README.txt"), DIST_README)?;
    println!("{}", copy.display());
    Ok(())
}

/// Builds the PTX, then the program that embeds it.
fn program(workspace: &Workspace, build: &BuildArgs) -> Result<PathBuf> {
    build::run(workspace, build)?;
    let mut command = cargo(workspace.root());
    command.args(["build", "--release", "--package", "tests", "--bin", PROGRAM]);
    run(&format!("building {PROGRAM}"), &mut command)?;
    Ok(workspace.target().join("release").join(PROGRAM))
}
