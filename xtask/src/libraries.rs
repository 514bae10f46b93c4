//! The libraries that the kernels are compiled against: `core`, where it is not there already, and
//! those of this workspace.
//!
//! rustc compiles them, without cargo: cargo takes profiles, flags, variables and wrappers from
//! files of any folder above the checkout and of the user's home, and the PTX must depend on
//! nothing outside the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fulgurite_spec::Arch;

use crate::compile::flags;
use crate::error::{Error, Result};
use crate::manifest::content_hash;
use crate::process::capture;
use crate::progress::Progress;
use crate::toolchain::Toolchain;
use crate::workspace::{Workspace, write_if_changed};

/// Libraries of this workspace and their roots, each after those that it uses.
const OURS: [(&str, &str); 2] =
    [("fulgurite_spec", "kernels/spec/src/lib.rs"), ("fulgurite_gpu", "kernels/gpu/src/lib.rs")];

/// What every crate without `std` is linked with. Nothing of it may reach the PTX, where calls are
/// refused, so that an empty one will do.
const BUILTINS: &str =
    "#![feature(compiler_builtins)]\n#![compiler_builtins]\n#![no_std]\n//! Empty.\n";

/// The architecture that libraries are compiled for. One will do: all of theirs that reaches PTX is
/// inlined into a kernel, and so compiled for that kernel's.
const LIBRARY_ARCH: Arch = Arch::Sm90;

/// A compiled library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    name: &'static str,
    path: PathBuf,
    /// Of the compiler: found without a declaration in the source.
    implied: bool,
}

impl Library {
    fn new(name: &'static str, directory: &Path, implied: bool) -> Library {
        Library { name, path: directory.join(format!("lib{name}.rlib")), implied }
    }
}

/// The compiler's arguments that let a crate use libraries.
pub fn arguments(libraries: &[Library]) -> Vec<String> {
    let mut arguments = Vec::new();
    for Library { name, path, implied } in libraries {
        let manner = if *implied { "noprelude,nounused:" } else { "" };
        arguments.extend(["--extern".to_string(), format!("{manner}{name}={}", path.display())]);
        if let Some(directory) = path.parent().map(Path::display) {
            arguments.extend(["-L".to_string(), format!("dependency={directory}")]);
        }
    }
    arguments
}

/// Compiles the libraries; returns them and the compiler's messages.
pub fn compile(workspace: &Workspace, toolchain: &Toolchain) -> Result<(Vec<Library>, String)> {
    let progress = Progress::spinner("compiling the kernels' libraries");
    let mut libraries = match toolchain.core_source() {
        Some(source) => core(workspace, toolchain, source, &progress)?,
        None => Vec::new(),
    };
    let directory = workspace.kernels(LIBRARY_ARCH).join("libraries");
    let mut messages = String::new();
    for (name, root) in OURS {
        messages += &library(workspace, toolchain, (name, root), &directory, &libraries)?;
        libraries.push(Library::new(name, &directory, false));
    }
    Ok((libraries, messages))
}

fn library(
    workspace: &Workspace,
    toolchain: &Toolchain,
    (name, root): (&str, &str),
    directory: &Path,
    uses: &[Library],
) -> Result<String> {
    fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    let mut rustc = toolchain.rustc();
    rustc
        .current_dir(workspace.root())
        .args(["--crate-name", name, "--crate-type", "lib", "--out-dir"])
        .arg(directory)
        .args(flags(toolchain, LIBRARY_ARCH))
        .args(arguments(uses))
        .arg(root);
    let output = capture(&format!("compiling {name}"), &mut rustc)?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `core` and an empty library of builtins, kept until compiler or flags are others.
fn core(
    workspace: &Workspace,
    toolchain: &Toolchain,
    source: &Path,
    progress: &Progress,
) -> Result<Vec<Library>> {
    let made_from = [
        toolchain.details.as_str(),
        &flags(toolchain, LIBRARY_ARCH).join(" "),
        BUILTINS,
        include_str!("libraries.rs"),
    ];
    let key = content_hash(made_from.join("\n").as_bytes());
    let parent = workspace.kernels(LIBRARY_ARCH).join("core");
    let directory = parent.join(&key);
    let libraries = ["core", "compiler_builtins"].map(|name| Library::new(name, &directory, true));
    if libraries.iter().all(|library| library.path.is_file()) {
        return Ok(libraries.into());
    }
    let started = Instant::now();
    // Under another name until it is complete: this program may be stopped at any time.
    let part = parent.join(format!("{key}-{}", std::process::id()));
    let builtins = part.join("compiler_builtins.rs");
    write_if_changed(&builtins, BUILTINS)?;
    let mut known = Vec::new();
    for (name, root) in [("core", source), ("compiler_builtins", &builtins)] {
        let mut rustc = toolchain.rustc();
        rustc
            .current_dir(workspace.root())
            .args(["--crate-name", name, "--crate-type", "lib", "--out-dir"])
            .arg(&part)
            .args(["-Zforce-unstable-if-unmarked", "--cap-lints", "allow"])
            .args(flags(toolchain, LIBRARY_ARCH))
            .args(arguments(&known))
            .arg(root);
        capture(&format!("compiling {name}"), &mut rustc)?;
        known = vec![Library::new("core", &part, false)];
    }
    let _ = fs::remove_dir_all(&directory);
    fs::rename(&part, &directory).map_err(Error::file("rename", &part))?;
    let seconds = started.elapsed().as_secs_f64();
    progress.note(&format!("  compiled core in {seconds:.1} s"));
    Ok(libraries.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_compiler_need_no_declaration() {
        let directory = Path::new("there");
        let libraries = [
            Library::new("core", directory, true),
            Library::new("fulgurite_gpu", directory, false),
        ];
        assert_eq!(
            arguments(&libraries),
            [
                "--extern",
                "noprelude,nounused:core=there/libcore.rlib",
                "-L",
                "dependency=there",
                "--extern",
                "fulgurite_gpu=there/libfulgurite_gpu.rlib",
                "-L",
                "dependency=there",
            ]
        );
    }
}
