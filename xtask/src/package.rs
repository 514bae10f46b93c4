//! `cargo xtask package`: everything that must hold before the crates are published.
//!
//! Kernels are generated, git ignores them, and cargo packs whatever lies there: also old ones, or
//! none. Nor can cargo tell a changed source from a generated file. So both are checked here.

mod contents;
mod outside;
mod state;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use output::Pulse;

use crate::error::{Error, Result};
use crate::process::{capture, cargo};
use crate::workspace::Workspace;

/// The packages that are published, each after those that it depends on.
pub const PUBLISHED: [&str; 5] =
    ["fulgurite-spec", "fulgurite-gpu", "fulgurite-kernels", "fulgurite", "fulgurite-parallel"];

/// The one that programs use, and that holds the kernels.
const MAIN: &str = "fulgurite";

/// The version of all packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks the tree and the kernels, packs, looks into the packages, uses them from outside.
pub fn run(workspace: &Workspace) -> Result<()> {
    state::check_tree(workspace.root())?;
    state::check_kernels(workspace)?;
    println!("the tree is clean, and every kernel is that of the sources");
    dry_run(workspace)?;
    let unpacked = unpack(workspace)?;
    contents::check(workspace, &unpacked)?;
    let bytes = contents::check_size(&archive(workspace, MAIN))?;
    println!("{MAIN}-{VERSION}.crate: {}", contents::describe_size(bytes));
    println!("{}", outside::run(workspace, &unpacked)?.trim_end());
    if !has_repository(workspace)? {
        println!("note: [workspace.package] names no `repository`: the registry will show none");
    }
    let packages = PUBLISHED.map(|name| format!("-p {name}")).join(" ");
    println!("ready; to publish just this state: cargo publish --allow-dirty {packages}");
    Ok(())
}

/// Has cargo pack the packages and build each from its package, and does not let it warn.
fn dry_run(workspace: &Workspace) -> Result<()> {
    let said = for_all(workspace, &["publish", "--dry-run"])?;
    let warnings = warnings(&said);
    if warnings.is_empty() { Ok(()) } else { Err(Error::Package(warnings)) }
}

/// Runs a command of cargo on all packages and returns what it said on the way.
fn for_all(workspace: &Workspace, arguments: &[&str]) -> Result<String> {
    let name = format!("cargo {}", arguments.join(" "));
    let pulse = name.clone();
    let _pulse = Pulse::of(move || pulse.clone());
    let mut command = cargo(workspace.root());
    // It must be told to take generated files; what else is dirty was refused before.
    command.args(arguments).args(["--allow-dirty", "--color=never"]);
    for package in PUBLISHED {
        command.args(["--package", package]);
    }
    command.arg("--target-dir").arg(workspace.target());
    let said = capture(&name, &mut command)?.stderr;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// What cargo warns of, but for the dry run's own end.
fn warnings(said: &str) -> Vec<String> {
    let lines = said.lines().map(str::trim);
    let warnings = lines.filter(|line| line.starts_with("warning"));
    warnings.filter(|line| !line.contains("due to dry run")).map(str::to_string).collect()
}

/// Where cargo puts a package.
fn archive(workspace: &Workspace, package: &str) -> PathBuf {
    workspace.target().join("package").join(format!("{package}-{VERSION}.crate"))
}

/// Packs once more, since a dry run keeps no package in a place that cargo's users may rely on, and
/// unpacks into an empty directory; returns it.
fn unpack(workspace: &Workspace) -> Result<PathBuf> {
    for_all(workspace, &["package", "--no-verify"])?;
    let to = workspace.target().join("unpacked");
    if to.is_dir() {
        fs::remove_dir_all(&to).map_err(Error::file("remove", &to))?;
    }
    fs::create_dir_all(&to).map_err(Error::file("create", &to))?;
    for package in PUBLISHED {
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(archive(workspace, package)).arg("-C").arg(&to);
        capture(&format!("unpacking {package}"), &mut tar)?;
    }
    Ok(to)
}

/// The directory of an unpacked package.
fn unpacked_package(unpacked: &Path, package: &str) -> PathBuf {
    unpacked.join(format!("{package}-{VERSION}"))
}

/// Whether the manifest of the workspace says where the sources are.
fn has_repository(workspace: &Workspace) -> Result<bool> {
    let manifest = crate::workspace::read(&workspace.root().join("Cargo.toml"))?;
    Ok(manifest.lines().any(|line| line.starts_with("repository")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_warning_but_the_end_of_the_dry_run_counts() {
        let said = "   Packaging fulgurite v0.1.0\nwarning: manifest has no documentation\n\
                    warning: `fulgurite` (lib) generated 1 warning\n   Uploading\n\
                    warning: aborting upload due to dry run\n";
        assert_eq!(
            warnings(said),
            [
                "warning: manifest has no documentation",
                "warning: `fulgurite` (lib) generated 1 warning"
            ]
        );
        assert_eq!(warnings("    Finished\nwarning: aborting upload due to dry run"), [""; 0]);
    }

    #[test]
    fn the_published_packages_are_those_that_say_so() {
        let workspace = Workspace::find().expect("cargo knows the checkout");
        let mut command = cargo(workspace.root());
        command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
        let said = capture("cargo metadata", &mut command).expect("it runs").stdout;
        let metadata: serde_json::Value = serde_json::from_slice(&said).expect("it is JSON");
        let packages = metadata["packages"].as_array().expect("a list");
        let published = packages.iter().filter(|package| package["publish"].is_null());
        let mut names: Vec<_> = published.filter_map(|package| package["name"].as_str()).collect();
        names.sort_unstable();
        let mut wanted = PUBLISHED;
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        for package in packages.iter().filter(|package| package["publish"].is_null()) {
            for dependency in package["dependencies"].as_array().expect("a list") {
                let name = dependency["name"].as_str().expect("a name");
                if PUBLISHED.contains(&name) {
                    assert_eq!(dependency["req"], format!("={VERSION}"), "{package} of {name}");
                }
            }
        }
    }
}
