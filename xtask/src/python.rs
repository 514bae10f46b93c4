//! Python: environments with packages of PyPI, taken by their hashes, and the checks of the Python
//! package.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts;
use crate::error::Result;
use crate::process::{capture, cargo, query, run, run_slow};
use crate::progress::Progress;
use crate::toolchain::may_install;
use crate::workspace::{Workspace, read, write_if_changed};

/// The package, in the checkout.
pub const PACKAGE: &str = "host/python";

/// What the tests of the package need.
const TEST_REQUIREMENTS: &str = include_str!("../../host/python/requirements/test.txt");

/// Whether an environment was made, and from these requirements.
pub fn is_made(environment: &Path, requirements: &str) -> bool {
    read(&made_from(environment)).is_ok_and(|text| text == requirements)
}

/// Makes an environment with the packages that a text names, with their hashes.
pub fn make(environment: &Path, requirements: &str) -> Result<()> {
    let packages = requirements.lines().filter(|line| line.contains("=="));
    let packages: Vec<&str> = packages.map(|line| line.trim_end_matches([' ', '\\'])).collect();
    println!("installing from PyPI into {}: {}", environment.display(), packages.join(", "));
    let _progress = Progress::spinner("installing packages from PyPI");
    let mut python = Command::new("python3");
    capture("python3 -m venv", python.args(["-m", "venv", "--clear"]).arg(environment))?;
    let wanted = environment.join("wanted.txt");
    write_if_changed(&wanted, requirements)?;
    capture("pip install", pip(environment).arg(&wanted))?;
    write_if_changed(&made_from(environment), requirements)
}

/// What an environment was made from, written when it is complete.
fn made_from(environment: &Path) -> PathBuf {
    environment.join("requirements.txt")
}

/// pip, taking the files with the hashes that a file names, which follows, and no others.
fn pip(environment: &Path) -> Command {
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:"]);
    pip.arg("--requirement");
    pip
}

/// A program of an environment, in the package's folder, that leaves nothing there.
pub fn program(workspace: &Workspace, environment: &Path, name: &str) -> Command {
    let mut program = Command::new(environment.join("bin").join(name));
    program.current_dir(workspace.root().join(PACKAGE)).env("PYTHONDONTWRITEBYTECODE", "1");
    program
}

/// Checks the types of the Python package and runs those of its tests that need neither PyTorch nor
/// a GPU; the others say why they are skipped. The arguments go to pytest.
pub fn check(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let environment = environment(workspace);
    if !is_made(&environment, TEST_REQUIREMENTS) {
        make(&environment, TEST_REQUIREMENTS)?;
    }
    let mut types = program(workspace, &environment, "mypy");
    types.arg("--cache-dir").arg(environment.join("mypy-cache"));
    run_slow("mypy", &mut types)?;
    let mut build = cargo(workspace.root());
    build.args(["build", "--package", "fulgurite-c"]);
    let file = "libfulgurite_c.so";
    let library = artifacts::build(&format!("building {file}"), file, &mut build)?;
    let mut tests = program(workspace, &environment, "pytest");
    tests.args(["-p", "no:cacheprovider"]).args(arguments).env("FULGURITE_LIBRARY", library);
    run("pytest", &mut tests)
}

/// The same, or a word on why not: where this program may install nothing, or Python makes no
/// environments.
pub fn check_if_possible(workspace: &Workspace) -> Result<()> {
    let is_there = is_made(&environment(workspace), TEST_REQUIREMENTS);
    if is_there || (may_install()? && query("python3", &["-c", "import ensurepip"]).is_some()) {
        return check(workspace, &[]);
    }
    println!(
        "the Python package is not checked: no python3 with venv, or nothing may be installed"
    );
    Ok(())
}

/// Where the environment of the package's tests is.
fn environment(workspace: &Workspace) -> PathBuf {
    workspace.target().join("python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_taken_by_their_hashes_alone() {
        let pip = pip(Path::new("there"));
        let arguments: Vec<_> = pip.get_args().collect();
        for wanted in ["--require-hashes", "--no-deps"] {
            assert!(arguments.iter().any(|argument| *argument == wanted), "{wanted}");
        }
        let lines = TEST_REQUIREMENTS.replace("\\\n", "");
        for line in lines.lines() {
            assert!(line.contains("==") && line.contains("--hash=sha256:"), "{line}");
        }
    }

    #[test]
    fn an_environment_of_other_packages_is_made_again() {
        let place = tempfile::tempdir().expect("a temporary folder");
        assert!(!is_made(place.path(), "a==1"));
        write_if_changed(&made_from(place.path()), "a==1").expect("it can be written");
        assert!(is_made(place.path(), "a==1") && !is_made(place.path(), "a==2"));
    }
}
