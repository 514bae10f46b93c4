//! `cargo xtask candle`: lints and tests of the package for candle, without a CUDA toolkit.
//!
//! Candle's build scripts want nvcc, and its programs link CUDA's libraries. A stand-in for nvcc
//! makes empty kernels; the libraries are empty archives, and the linker leaves open what it does
//! not find. So that the tests start, a library is preloaded in which each of these functions ends
//! the process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::test_programs;
use crate::error::{Error, Result};
use crate::process::{capture, cargo, path_with, query, run_for_output, run_slow};
use crate::workspace::{Workspace, make_directory, write_if_changed};

/// The package, in the checkout.
const PACKAGE: &str = "host/candle";

/// The stand-in's environment: a folder with `bin/nvcc`.
const STAND_IN: &str = "host/candle/ci";

/// The libraries that candle links.
const LIBRARIES: [&str; 6] = ["cuda", "cudart", "cublas", "cublasLt", "curand", "nvrtc"];

/// Variables that would have candle's build scripts find another toolkit.
const OTHER_TOOLKITS: [&str; 6] = [
    "CUDARC_CUDA_VERSION",
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDA_TOOLKIT_ROOT_DIR",
    "NVCC",
    "NVCC_CCBIN",
];

/// What lets a program be linked without CUDA's libraries.
const LINK: &str = "-Clink-arg=-Wl,--unresolved-symbols=ignore-all";

/// The tests that call nothing of CUDA.
const TESTS: [&str; 9] =
    ["--lib", "--test", "cpu", "--test", "gradients", "--test", "refusals", "--test", "signatures"];

/// Checks format and lints of the package, and runs its tests that need no GPU.
pub fn run(workspace: &Workspace) -> Result<()> {
    let host = query("rustc", &["-vV"]).unwrap_or_default();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).ok_or_else(|| {
        Error::Unreadable { what: "rustc -vV".to_string(), got: "no host".to_string() }
    })?;
    let toolkit = toolkit(workspace)?;
    let mut format = cargo(&workspace.root().join(PACKAGE));
    run_slow("cargo fmt (candle)", format.args(["fmt", "--check"]))?;
    let step = |subcommand| step(workspace, &toolkit, host, subcommand);
    let mut lints = step("clippy");
    lints.args(["--all-targets", "--", "--deny", "warnings"]);
    run_slow("cargo clippy (candle)", &mut lints)?;
    if !cfg!(target_os = "linux") {
        println!("the tests of {PACKAGE} are not run: only Linux links them without CUDA");
        return Ok(());
    }
    let mut build = step("test");
    build.args(["--no-run", "--lib", "--tests", "--message-format=json-render-diagnostics"]);
    let programs = test_programs(&run_for_output("cargo test --no-run (candle)", &mut build)?);
    let library = ending_library(&toolkit, &open_symbols(&programs)?)?;
    for (name, which) in [("", &TESTS[..]), (" --doc", &["--doc"])] {
        let mut tests = step("test");
        tests.args(which).env("LD_PRELOAD", &library);
        run_slow(&format!("cargo test{name} (candle)"), &mut tests)?;
    }
    Ok(())
}

/// The functions that the linker left open in programs.
fn open_symbols(programs: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for program in programs {
        let mut nm = Command::new("nm");
        nm.args(["--dynamic", "--undefined-only", "--format=posix"]).arg(program);
        let said = capture("nm", &mut nm)?;
        names.extend(open_names(&String::from_utf8_lossy(&said.stdout)));
    }
    Ok(names)
}

/// The names in nm's list that have to be found and have no version, as those of the C library do.
fn open_names(list: &str) -> impl Iterator<Item = String> {
    list.lines().filter_map(|line| {
        let (name, kind) = line.split_once(' ')?;
        (kind.starts_with('U') && !name.contains('@')).then(|| name.to_string())
    })
}

/// A library of functions of these names that end the process.
fn ending_library(toolkit: &Path, names: &BTreeSet<String>) -> Result<PathBuf> {
    let functions = names.iter().map(|name| format!("void {name}(void) {{ abort(); }}\n"));
    let (source, library) = (toolkit.join("ending.c"), toolkit.join("libending.so"));
    write_if_changed(&source, &format!("void abort(void);\n{}", functions.collect::<String>()))?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    capture("cc", &mut cc)?;
    Ok(library)
}

/// Cargo in the package, with the stand-in. Flags are for what runs on this machine's `host`, and
/// not for build scripts and macros.
fn step(workspace: &Workspace, toolkit: &Path, host: &str, subcommand: &str) -> Command {
    let mut command = cargo(&workspace.root().join(PACKAGE));
    command.args([subcommand, "--locked", "--target", host, "--target-dir"]);
    command.arg(workspace.target().join("candle"));
    for variable in OTHER_TOOLKITS {
        command.env_remove(variable);
    }
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.env("PATH", path_with(&workspace.root().join(STAND_IN).join("bin")));
    command.env("CUDA_HOME", toolkit).env("CUDA_COMPUTE_CAP", "90");
    command.env("RUSTFLAGS", LINK).env("RUSTDOCFLAGS", LINK);
    command
}

/// A folder with empty libraries.
fn toolkit(workspace: &Workspace) -> Result<PathBuf> {
    let toolkit = workspace.target().join("candle/toolkit");
    make_directory(&toolkit.join("lib"))?;
    for library in LIBRARIES {
        let file = toolkit.join("lib").join(format!("lib{library}.a"));
        if !file.exists() {
            capture("ar", Command::new("ar").arg("crs").arg(&file))?;
        }
    }
    Ok(toolkit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand_in() -> Command {
        let workspace = Workspace::find().expect("cargo knows the checkout");
        Command::new(workspace.root().join(STAND_IN).join("bin/nvcc"))
    }

    /// What candle's build script and cudarc's ask of nvcc.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_stand_in_makes_what_nvcc_makes() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let there = |name: &str| place.path().join(name);
        let said = capture("nvcc", stand_in().arg("--version")).expect("it runs");
        let said = String::from_utf8(said.stdout).expect("text");
        assert_eq!(said.lines().nth(3), Some("Cuda compilation tools, release 13.0, V13.0.0"));

        let mut ptx = stand_in();
        ptx.args(["--ptx", "--output-directory"]).arg(place.path()).arg("src/some.cu");
        capture("nvcc", &mut ptx).expect("it makes PTX");
        let text = std::fs::read_to_string(there("some.ptx")).expect("it is there");
        assert!(text.contains(".target sm_90"));

        let (object, archive) = (there("some.o"), there("libsome.a"));
        capture("nvcc", stand_in().args(["-c", "-o"]).arg(&object).arg("src/some.cu"))
            .expect("it makes an object");
        assert!(std::fs::read(&object).expect("it is there").starts_with(b"\x7fELF"));
        capture("nvcc", stand_in().args(["--lib", "-o"]).arg(&archive).arg(&object))
            .expect("it makes an archive");
        assert!(std::fs::read(&archive).expect("it is there").starts_with(b"!<arch>\n"));
    }

    #[test]
    fn functions_that_nobody_has_are_told_from_those_of_the_c_library() {
        let list = "abort@GLIBC_2.2.5 U         \ncuInit U         \n__gmon_start__ w         \n";
        assert_eq!(open_names(list).collect::<Vec<_>>(), ["cuInit"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_library_has_the_functions() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let names = BTreeSet::from(["cuInit".to_string(), "curandCreateGenerator".to_string()]);
        let library = ending_library(place.path(), &names).expect("it compiles");
        let mut nm = Command::new("nm");
        nm.args(["--dynamic", "--defined-only", "--format=posix"]).arg(library);
        let said = capture("nm", &mut nm).expect("it is a library");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("cuInit T") && said.contains("curandCreateGenerator T"), "{said}");
    }

    #[test]
    fn no_other_toolkit_is_found() {
        let workspace = Workspace::at(Path::new("root"));
        let command = step(&workspace, Path::new("toolkit"), "some-host", "check");
        let variable = |name: &str| {
            let found = command.get_envs().find(|(variable, _)| *variable == name);
            found.and_then(|(_, value)| value).map(|it| it.to_string_lossy().into_owned())
        };
        assert_eq!(variable("CUDA_HOME").as_deref(), Some("toolkit"));
        assert!(variable("PATH").is_some_and(|it| it.starts_with("root/host/candle/ci/bin")));
        for other in OTHER_TOOLKITS {
            assert!(command.get_envs().any(|(name, value)| name == other && value.is_none()));
        }
    }
}
