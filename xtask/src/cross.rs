//! `cargo xtask cross`: the crates compile for platforms other than this one, and with the oldest
//! Rust that they promise.

use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::error::{Error, Result};
use crate::process::{cargo, query, run_slow};
use crate::workspace::Workspace;

/// The platforms: all that is looked at is whether the code compiles.
const TARGETS: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-unknown-linux-gnu"];

/// What users compile: the crate, the C interface and that for several GPUs, which bring all other
/// published packages.
const PACKAGES: [&str; 8] = [
    "--package",
    "fulgurite",
    "--package",
    "fulgurite-c",
    "--package",
    "fulgurite-parallel",
    "--features",
    "fulgurite/emulator",
];

/// The oldest Rust that the packages promise.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Options of `cross`.
#[derive(Args, Clone, Debug)]
pub struct CrossArgs {
    /// Fail where a target or the oldest Rust is not installed, instead of saying so
    #[arg(long)]
    all: bool,
}

/// One check, or why it cannot be done here.
#[derive(Debug, PartialEq, Eq)]
enum Check {
    /// For a platform whose standard library is there.
    Target(&'static str),
    /// With the oldest Rust, as rustup's toolchain of this name.
    Oldest(String),
    /// What is missing, and how it is installed.
    Skipped(String),
}

/// Checks all that this machine can check, and says what it cannot.
pub fn run(workspace: &Workspace, arguments: &CrossArgs) -> Result<()> {
    let toolchains = query("rustup", &["toolchain", "list"]).unwrap_or_default();
    let mut checks: Vec<Check> =
        TARGETS.iter().map(|target| for_target(target, has_std(target))).collect();
    checks.push(with_oldest(&toolchains));
    for check in checks {
        match check {
            Check::Skipped(text) if arguments.all => return Err(Error::Option(text)),
            Check::Skipped(text) => println!("skipped: {text}"),
            Check::Target(target) => {
                let mut command = cargo(workspace.root());
                command.args(["check", "--target", target]).args(PACKAGES);
                run_slow(&format!("cargo check for {target}"), &mut command)?;
                println!("compiles for {target}");
            }
            Check::Oldest(toolchain) => {
                run_slow(
                    &format!("cargo check with {toolchain}"),
                    &mut oldest(workspace, &toolchain),
                )?;
                println!("compiles with Rust {OLDEST} ({toolchain})");
            }
        }
    }
    Ok(())
}

fn for_target(target: &'static str, has_std: bool) -> Check {
    if has_std {
        return Check::Target(target);
    }
    Check::Skipped(format!("no standard library for {target} here: `rustup target add {target}`"))
}

/// The toolchain of the oldest Rust among those that rustup lists.
fn with_oldest(toolchains: &str) -> Check {
    let of_version = |name: &&str| {
        let rest = name.strip_prefix(OLDEST);
        rest.is_some_and(|rest| rest.starts_with(['.', '-']) || rest.is_empty())
    };
    let mut names = toolchains.lines().filter_map(|line| line.split_whitespace().next());
    match names.find(of_version) {
        Some(name) => Check::Oldest(name.to_string()),
        None => Check::Skipped(format!(
            "Rust {OLDEST} is not here: `rustup toolchain install {OLDEST} --profile minimal`"
        )),
    }
}

/// The check with another toolchain, without lints, as for a dependency: those follow the pinned
/// toolchain.
fn oldest(workspace: &Workspace, toolchain: &str) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(workspace.root()).args(["run", toolchain, "cargo", "check"]).args(PACKAGES);
    command.arg("--target-dir").arg(workspace.target().join("oldest"));
    command.env("RUSTFLAGS", "--cap-lints=allow");
    command
}

/// Whether the standard library for a target is installed with this toolchain.
pub fn has_std(target: &str) -> bool {
    query("rustc", &["--print", "target-libdir", "--target", target]).is_some_and(|directory| {
        let items = Path::new(&directory).read_dir().into_iter().flatten().flatten();
        items.into_iter().any(|item| item.file_name().to_string_lossy().starts_with("libstd-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_target_is_said_with_the_remedy() {
        assert_eq!(for_target(TARGETS[0], true), Check::Target(TARGETS[0]));
        let Check::Skipped(text) = for_target(TARGETS[0], false) else { panic!("it is missing") };
        assert!(text.contains(&format!("`rustup target add {}`", TARGETS[0])), "{text}");
    }

    #[test]
    fn the_oldest_rust_is_found_by_its_version() {
        let list = format!("stable-x (default)\n{OLDEST}0.0-x\n{OLDEST}.0-x (active)\n");
        assert_eq!(with_oldest(&list), Check::Oldest(format!("{OLDEST}.0-x")));
        let Check::Skipped(text) = with_oldest("stable-x (default)\n") else { panic!("not there") };
        assert!(text.contains(&format!("rustup toolchain install {OLDEST}")), "{text}");
    }

    #[test]
    fn the_standard_library_of_this_machine_is_found() {
        let own = query("rustc", &["-vV"]).expect("rustc runs");
        let own = own.lines().find_map(|line| line.strip_prefix("host: ")).expect("it says so");
        assert!(has_std(own));
        assert!(!has_std("no-such-target"));
    }
}
