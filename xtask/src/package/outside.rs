//! A new project outside the checkout that has nothing but the packages.

use std::fs;
use std::path::Path;

use super::{MAIN, PUBLISHED, VERSION, unpacked_package};
use crate::error::{Error, Result};
use crate::process::{cargo, run_for_output};
use crate::workspace::{Workspace, write_if_changed};

/// The project's program.
const PROGRAM: &str = include_str!("outside/program.rs");

/// Builds and runs the project; returns what it printed: a plan, and what the machine lacks.
pub fn run(workspace: &Workspace, unpacked: &Path) -> Result<String> {
    let scratch =
        tempfile::tempdir().map_err(Error::file("create a directory in", &std::env::temp_dir()))?;
    let project = scratch.path();
    write_if_changed(&project.join("Cargo.toml"), &manifest(unpacked))?;
    write_if_changed(&project.join("src/main.rs"), PROGRAM)?;
    // The dependencies of others in the versions that this checkout is tested with.
    let (lock, copy) = (workspace.root().join("Cargo.lock"), project.join("Cargo.lock"));
    fs::copy(&lock, &copy).map_err(Error::file("write", &copy))?;
    let mut command = cargo(project);
    command.args(["run", "--quiet"]).env_remove("CARGO_TARGET_DIR");
    command.arg("--target-dir").arg(workspace.target().join("outside"));
    run_for_output("a project outside the checkout", &mut command)
}

/// The project asks for the packages as from the registry, and finds the unpacked ones.
fn manifest(unpacked: &Path) -> String {
    let mut text = format!(
        "[package]\nname = \"outside\"\nedition = \"2024\"\n\n\
         [dependencies]\n{MAIN} = \"={VERSION}\"\n\n[patch.crates-io]\n"
    );
    for package in PUBLISHED {
        let path = unpacked_package(unpacked, package);
        text += &format!("{package} = {{ path = {:?} }}\n", path.display().to_string());
    }
    text
}
