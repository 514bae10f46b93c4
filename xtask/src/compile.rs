//! Runs the compiler: the libraries once, then the kernels, one rustc per family.
//!
//! A *family* is what the table of kernels says is compiled together. In one piece the kernels
//! would be compiled on one core; as families they use all cores, and a change can be tried on one
//! of them.

use std::fs;
use std::time::Instant;

use fulgurite_spec::{Arch, Kernel};

use crate::error::{Error, Result};
use crate::libraries::{self, Library};
use crate::process::{capture, parallel};
use crate::progress::Progress;
use crate::toolchain::{TARGET, Toolchain};
use crate::workspace::{self, Workspace};

/// Kernels that are compiled together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Architecture they are compiled for.
    pub arch: Arch,
    /// What it is called, for example `d128`.
    pub name: String,
    /// Its kernels.
    pub kernels: Vec<Kernel>,
}

impl Family {
    /// The families of a table; the ones that take longest to compile, which are last there, come
    /// first, so that no core is left alone with one at the end.
    pub fn all(table: &[Kernel]) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for &kernel in table {
            let Kernel { arch, family: name, .. } = kernel;
            let known =
                families.iter_mut().find(|family| family.arch == arch && family.name == name);
            match known {
                Some(family) => family.kernels.push(kernel),
                None => {
                    families.push(Family { arch, name: name.to_string(), kernels: vec![kernel] })
                }
            }
        }
        families.reverse();
        families
    }
}

/// Flags of the compiler for libraries and kernels alike.
pub fn flags(toolchain: &Toolchain, arch: Arch) -> Vec<String> {
    let mut flags: Vec<String> = [
        "--edition=2024",
        "--target",
        TARGET,
        "-Copt-level=3",
        "-Ctarget-feature=+ptx80",
        // Without it loops over register arrays stay loops, and the arrays go to local memory.
        "-Cllvm-args=-unroll-threshold=100000",
        "-Zunstable-options",
    ]
    .map(str::to_string)
    .into();
    flags.push(format!("-Ctarget-cpu={}", arch.target()));
    if toolchain.core_source().is_some() {
        // Takes the panic machinery out of the PTX; a prebuilt core was compiled otherwise.
        flags.push("-Cpanic=immediate-abort".to_string());
    }
    flags
}

/// Compiles the libraries and then the families; returns the PTX of each family, in their order.
pub fn families(
    workspace: &Workspace,
    toolchain: &Toolchain,
    families: &[Family],
) -> Result<Vec<String>> {
    let (libraries, messages) = libraries::compile(workspace, toolchain)?;
    let mut told = warnings(&messages);
    let progress = Progress::bar("compiling the kernels", families.len());
    let results = parallel(families, |family| {
        let started = Instant::now();
        let (ptx, warnings) = compile_family(workspace, toolchain, family, &libraries)?;
        let seconds = started.elapsed().as_secs_f64();
        let (arch, name) = (family.arch.name(), &family.name);
        progress.note(&format!("  compiled {arch} {name} in {seconds:.1} s"));
        progress.advance();
        Ok((ptx, warnings))
    })?;
    drop(progress);
    for warning in results.iter().flat_map(|(_, warnings)| warnings) {
        if !told.contains(warning) {
            told.push(warning.clone());
        }
    }
    told.iter().for_each(|warning| eprintln!("{warning}\n"));
    Ok(results.into_iter().map(|(ptx, _)| ptx).collect())
}

/// The PTX of one family, and the compiler's warnings.
fn compile_family(
    workspace: &Workspace,
    toolchain: &Toolchain,
    family: &Family,
    libraries: &[Library],
) -> Result<(String, Vec<String>)> {
    // A directory of its own: rustc's temporary files are named after the crate alone.
    let directory = workspace.kernels(family.arch).join(&family.name);
    fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let mut rustc = toolchain.rustc();
    rustc
        .current_dir(workspace.root())
        .args(["--crate-name", "fulgurite_kernels", "--crate-type", "rlib"])
        .args(["-Ccodegen-units=1", "--cfg", "selected"])
        .args(family.kernels.iter().flat_map(|kernel| ["--cfg", kernel.entry]))
        .args(flags(toolchain, family.arch))
        .args(["--emit", "asm", "--out-dir"])
        .arg(&directory);
    rustc.args(libraries::arguments(libraries)).arg("kernels/src/lib.rs");
    let output = capture(&format!("compiling the kernels of {}", family.name), &mut rustc)?;
    let warnings = warnings(&String::from_utf8_lossy(&output.stderr));
    Ok((workspace::read(&directory.join("fulgurite_kernels.s"))?, warnings))
}

/// The warnings in what the compiler wrote, but for those that say nothing about the source.
fn warnings(text: &str) -> Vec<String> {
    let expected = ["unstable feature specified for `-Ctarget-feature`", "warning emitted"];
    text.split("\n\n")
        .map(|warning| warning.trim().to_string())
        .filter(|warning| !warning.is_empty())
        .filter(|warning| expected.iter().all(|text| !warning.contains(text)))
        .filter(|warning| !warning.contains("warnings emitted"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulgurite_spec::KERNELS;

    #[test]
    fn families_hold_every_kernel_once() {
        let families = Family::all(KERNELS);
        let count: usize = families.iter().map(|family| family.kernels.len()).sum();
        assert_eq!(count, KERNELS.len());
        for kernel in KERNELS {
            let holders = families.iter().filter(|family| family.kernels.contains(kernel));
            assert_eq!(holders.count(), 1, "{}", kernel.entry);
        }
    }

    #[test]
    fn warnings_about_flags_are_left_out() {
        let text = "warning: unstable feature specified for `-Ctarget-feature`: `ptx80`\n  |\n\n\
                    warning: unused variable: `x`\n --> kernels/src/lib.rs:1:1\n\n\
                    warning: 2 warnings emitted\n\n";
        assert_eq!(warnings(text), ["warning: unused variable: `x`\n --> kernels/src/lib.rs:1:1"]);
    }
}
