//! Runs the compiler: the libraries once through cargo, then the kernels, one rustc per family.
//!
//! A *family* is all variants of one head dim, or all probes. Cargo would compile the kernels crate
//! in one piece on one core; as families they use all cores, and a change can be tried on one of
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fulgurite_spec::{Arch, PROBES, VARIANTS, Variant};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::process::{capture, parallel};
use crate::progress::Progress;
use crate::toolchain::{TARGET, Toolchain};
use crate::workspace::{self, Workspace};

/// Libraries of this workspace that the kernels use.
const LIBRARIES: [&str; 2] = ["fulgurite-gpu", "fulgurite-spec"];

/// Libraries of the compiler, where they are compiled with the kernels.
const CORE_LIBRARIES: [&str; 2] = ["core", "compiler_builtins"];

/// All variants of one architecture and head dim, or its probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Architecture they are compiled for.
    pub arch: Arch,
    /// What they share, for example `d128`.
    pub name: String,
    /// Its rows of the table of variants.
    pub variants: Vec<&'static Variant>,
    /// Its rows of the table of probes.
    pub probes: &'static [&'static str],
}

impl Family {
    /// The family of the probes.
    pub fn probes(arch: Arch) -> Family {
        Family { arch, name: "probe".to_string(), variants: Vec::new(), probes: PROBES }
    }

    /// Every family of variants; the ones that take longest to compile (large head dims) first, so
    /// that no core is left alone with one at the end.
    pub fn all() -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for variant in VARIANTS {
            let name = format!("d{}", variant.head_dim);
            let known = families
                .iter_mut()
                .find(|family| family.arch == variant.arch && family.name == name);
            match known {
                Some(family) => family.variants.push(variant),
                None => families.push(Family {
                    arch: variant.arch,
                    name,
                    variants: vec![variant],
                    probes: &[],
                }),
            }
        }
        families.sort_by_key(|family| std::cmp::Reverse(family.variants[0].head_dim));
        families
    }
}

/// Flags of the compiler for libraries and kernels alike.
pub fn flags(toolchain: &Toolchain, arch: Arch) -> Vec<String> {
    let mut flags: Vec<String> = [
        "-Ctarget-feature=+ptx80",
        // Without it loops over register arrays stay loops, and the arrays go to local memory.
        "-Cllvm-args=-unroll-threshold=100000",
        "-Zunstable-options",
    ]
    .map(str::to_string)
    .into();
    flags.push(format!("-Ctarget-cpu={}", arch.target()));
    if toolchain.builds_core() {
        // Takes the panic machinery out of the PTX; a prebuilt core was compiled otherwise.
        flags.push("-Cpanic=immediate-abort".to_string());
    }
    flags
}

/// A compiled library.
struct Library {
    name: String,
    path: PathBuf,
}

/// Compiles the libraries and then the families; returns the PTX of each family, in their order.
pub fn families(
    workspace: &Workspace,
    toolchain: &Toolchain,
    families: &[Family],
) -> Result<Vec<String>> {
    let mut libraries: Vec<(Arch, Vec<Library>)> = Vec::new();
    for family in families {
        if libraries.iter().all(|(arch, _)| *arch != family.arch) {
            libraries.push((family.arch, compile_libraries(workspace, toolchain, family.arch)?));
        }
    }
    let progress = Progress::bar("compiling the kernels", families.len());
    let results = parallel(families, |family| {
        let started = Instant::now();
        let libraries = libraries
            .iter()
            .find(|(arch, _)| *arch == family.arch)
            .map_or(&[][..], |(_, libraries)| libraries);
        let (ptx, warnings) = compile_family(workspace, toolchain, family, libraries)?;
        let seconds = started.elapsed().as_secs_f64();
        progress.note(&format!("  compiled {} in {seconds:.1} s", family.name));
        progress.advance();
        Ok((ptx, warnings))
    })?;
    drop(progress);
    let mut told: Vec<&str> = Vec::new();
    for warning in results.iter().flat_map(|(_, warnings)| warnings) {
        if !told.contains(&warning.as_str()) {
            eprintln!("{warning}\n");
            told.push(warning);
        }
    }
    Ok(results.into_iter().map(|(ptx, _)| ptx).collect())
}

fn compile_libraries(
    workspace: &Workspace,
    toolchain: &Toolchain,
    arch: Arch,
) -> Result<Vec<Library>> {
    let message = if toolchain.builds_core() {
        "compiling core and the kernels' libraries"
    } else {
        "compiling the kernels' libraries"
    };
    let progress = Progress::spinner(message);
    let started = Instant::now();
    let directory = workspace.kernels(arch).join("libraries");
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(workspace.root())
        .env("RUSTFLAGS", flags(toolchain, arch).join(" "))
        .args(["build", "--release", "--lib", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(&directory);
    for library in LIBRARIES {
        cargo.args(["--package", library]);
    }
    if toolchain.builds_core() {
        cargo.arg("-Zbuild-std=core");
    }
    let output = capture("compiling the kernels' libraries", &mut cargo)?;
    let seconds = started.elapsed().as_secs_f64();
    if seconds > 2.0 {
        progress.note(&format!("  compiled the kernels' libraries in {seconds:.1} s"));
    }
    let libraries = compiled_libraries(&String::from_utf8_lossy(&output.stdout));
    let mut wanted: Vec<String> = LIBRARIES.iter().map(|name| name.replace('-', "_")).collect();
    if toolchain.builds_core() {
        wanted.extend(CORE_LIBRARIES.map(str::to_string));
    }
    match wanted.iter().find(|name| libraries.iter().all(|library| library.name != **name)) {
        None => Ok(libraries),
        Some(name) => Err(Error::Unreadable {
            what: "cargo's messages".to_string(),
            got: format!("no file of the library `{name}`"),
        }),
    }
}

/// The libraries for the GPU among cargo's messages, one JSON object a line.
fn compiled_libraries(messages: &str) -> Vec<Library> {
    let mut libraries = Vec::new();
    for message in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(message) else {
            continue;
        };
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let name = message["target"]["name"].as_str().unwrap_or_default().replace('-', "_");
        let known = LIBRARIES.iter().any(|library| library.replace('-', "_") == name)
            || CORE_LIBRARIES.contains(&name.as_str());
        let file = message["filenames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .find(|file| file.ends_with(".rlib") && file.contains(TARGET));
        if let (true, Some(file)) = (known, file) {
            libraries.push(Library { name, path: PathBuf::from(file) });
        }
    }
    libraries
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
        .args(["--crate-name", "fulgurite_kernels", "--edition", "2024", "--crate-type", "rlib"])
        .args(["--target", TARGET, "-Copt-level=3", "-Ccodegen-units=1"])
        .args(["--cfg", "selected"])
        .args(family.variants.iter().flat_map(|variant| ["--cfg", variant.entry]))
        .args(family.probes.iter().flat_map(|entry| ["--cfg", entry]))
        .args(flags(toolchain, family.arch))
        .args(["--emit", "asm", "--out-dir"])
        .arg(&directory);
    for library in libraries {
        let path = library.path.display();
        // The compiler's own libraries are found without a declaration, as with cargo.
        let manner = if CORE_LIBRARIES.contains(&library.name.as_str()) {
            "noprelude,nounused:"
        } else {
            ""
        };
        rustc.args(["--extern", &format!("{manner}{}={path}", library.name)]);
        if let Some(directory) = library.path.parent().map(Path::display) {
            rustc.args(["-L", &format!("dependency={directory}")]);
        }
    }
    rustc.arg("kernels/src/lib.rs");
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
    use serde_json::json;

    #[test]
    fn families_hold_every_variant_once() {
        let families = Family::all();
        let count: usize = families.iter().map(|family| family.variants.len()).sum();
        assert_eq!(count, VARIANTS.len());
        for variant in VARIANTS {
            let holders = families.iter().filter(|family| family.variants.contains(&variant));
            assert_eq!(holders.count(), 1, "{}", variant.entry);
        }
    }

    #[test]
    fn libraries_are_read_from_messages() {
        let artifact = |name: &str, files: &[&str]| {
            let target = json!({ "name": name });
            json!({ "reason": "compiler-artifact", "target": target, "filenames": files })
        };
        let core = ["/t/nvptx64-nvidia-cuda/core.rmeta", "/t/nvptx64-nvidia-cuda/core.rlib"];
        let messages = [
            artifact("core", &core),
            artifact("build-script-build", &["/t/release/build"]),
            artifact("fulgurite_spec", &["/t/release/libfulgurite_spec-3.rlib"]),
            artifact("fulgurite_gpu", &["/t/nvptx64-nvidia-cuda/libfulgurite_gpu-2.rlib"]),
            json!({ "reason": "build-finished", "success": true }),
        ]
        .map(|message| message.to_string())
        .join("\n");
        let found = compiled_libraries(&messages);
        let names: Vec<_> = found.iter().map(|library| library.name.as_str()).collect();
        assert_eq!(names, ["core", "fulgurite_gpu"]);
        assert!(found[0].path.ends_with("core.rlib"));
    }

    #[test]
    fn warnings_about_flags_are_left_out() {
        let text = "warning: unstable feature specified for `-Ctarget-feature`: `ptx80`\n  |\n\n\
                    warning: unused variable: `x`\n --> kernels/src/lib.rs:1:1\n\n\
                    warning: 2 warnings emitted\n\n";
        assert_eq!(warnings(text), ["warning: unused variable: `x`\n --> kernels/src/lib.rs:1:1"]);
    }
}
