//! `cargo xtask interop`: the examples for other crates that drive GPUs compile.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Result;
use crate::process::{answer, cargo, run_slow};
use crate::workspace::{Workspace, make_directory};

/// Where the examples are, each a package of its own.
const FOLDER: &str = "host/interop";

/// The examples, each by the crate that it is for.
const EXAMPLES: [&str; 3] = ["cust", "cubecl", "cuda-core"];

/// The variables that name a toolkit for cuda-core, and where it is as a rule.
const TOOLKIT_VARIABLES: [&str; 2] = ["CUDA_TOOLKIT_PATH", "CUDA_HOME"];
const TOOLKIT: &str = "/usr/local/cuda";

/// Lints each example whose dependencies can be had here, and says of the others why not.
pub fn run(workspace: &Workspace) -> Result<()> {
    let toolkits = TOOLKIT_VARIABLES.iter().filter_map(std::env::var_os);
    let toolkits = toolkits.map(PathBuf::from).chain([PathBuf::from(TOOLKIT)]);
    let toolkit = toolkits.into_iter().find(|it| it.join("include/cuda.h").is_file());
    for name in EXAMPLES {
        match obstacle(workspace, name, toolkit.as_deref()) {
            Some(text) => println!("skipped: {FOLDER}/{name}: {text}"),
            None => check(workspace, name)?,
        }
    }
    Ok(())
}

/// Why an example cannot be checked here.
fn obstacle(workspace: &Workspace, name: &str, toolkit: Option<&Path>) -> Option<String> {
    if name == "cuda-core" && toolkit.is_none() {
        return Some(format!(
            "its dependencies read the headers of a CUDA 13 toolkit, by libclang: set \
             CUDA_TOOLKIT_PATH to one (there is none at {TOOLKIT})"
        ));
    }
    let mut fetch = step(workspace, name, "fetch");
    answer(&mut fetch).is_none().then(|| "`cargo fetch` cannot get its dependencies".to_string())
}

fn check(workspace: &Workspace, name: &str) -> Result<()> {
    let mut format = cargo(&workspace.root().join(FOLDER).join(name));
    run_slow(&format!("cargo fmt ({name})"), format.args(["fmt", "--check"]))?;
    let empty = workspace.target().join("interop/toolkit");
    make_directory(&empty.join("lib64"))?;
    let mut lints = step(workspace, name, "clippy");
    // All that cust's build script asks for is a folder, where it looks for libraries to link.
    lints.env("CUDA_LIBRARY_PATH", &empty);
    lints.arg("--target-dir").arg(workspace.target().join("interop"));
    lints.args(["--", "--deny", "warnings"]);
    run_slow(&format!("cargo clippy ({name})"), &mut lints)?;
    println!("{FOLDER}/{name} compiles");
    Ok(())
}

/// Cargo in an example, with the versions that it was written for.
fn step(workspace: &Workspace, name: &str, subcommand: &str) -> Command {
    let mut command = cargo(&workspace.root().join(FOLDER).join(name));
    command.args([subcommand, "--locked"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_checked() {
        let workspace = Workspace::find().expect("cargo knows the checkout");
        let folder = workspace.root().join(FOLDER).read_dir().expect("it is there");
        let mut found: Vec<String> = folder
            .map(|item| item.expect("readable").file_name().to_string_lossy().into_owned())
            .filter(|name| workspace.root().join(FOLDER).join(name).is_dir())
            .collect();
        found.sort();
        let mut wanted = EXAMPLES.to_vec();
        wanted.sort();
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_missing_toolkit_is_said() {
        let workspace = Workspace::at(Path::new("nowhere"));
        let text = obstacle(&workspace, "cuda-core", None).expect("there is no toolkit");
        assert!(text.contains("CUDA_TOOLKIT_PATH"), "{text}");
        let text = obstacle(&workspace, "cubecl", None).expect("there is no package");
        assert!(text.contains("cargo fetch"), "{text}");
    }
}
