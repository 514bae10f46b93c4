//! `cargo xtask dist`: what machines without Rust need, as a directory and as archives to release.

mod archive;
mod found;
pub mod glibc;
mod platform;

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::{self, BuildArgs};
use crate::error::{Error, Result};
use crate::harness::{self, PROGRAM};
use crate::workspace::{Workspace, write_if_changed};
pub use platform::Platform;

/// The library's name for those who load it or link with it.
pub const C_LIBRARY: &str = "libfulgurite.so";

/// The name by which programs that are linked with the library look for it.
const C_SONAME: &str = "libfulgurite.so.0";

/// The header in the checkout.
const C_HEADER: &str = "host/c/fulgurite.h";

/// What stands beside the program.
const README: &str = "\
fulgurite-check verifies and measures Fulgurite's attention kernels.

It needs an NVIDIA driver, a Hopper GPU (H100, H200), and
GLIBC; no CUDA toolkit, no Rust.
The kernels are inside the program; the driver compiles each one on first use.

    PROGRAM verify      compare every kernel with a float64 reference
    PROGRAM bench       measure the kernels
    PROGRAM bench --errors --peers-dir DIR   compare errors instead
    PROGRAM first-use   time from process start to first result
    PROGRAM info        what a report of an error should say
    PROGRAM help        all options

";

/// What stands at its end where all lies in one folder.
const BESIDE: &str = "\
libfulgurite.so and fulgurite.h are the C interface (libfulgurite.so.0 is the same library, by the
name that linked programs look for). `bench --peers-dir DIR` measures peers beside ourselves (Python
with PyTorch), and uses the library.
";

/// What a platform gets.
struct Built {
    program: PathBuf,
    library: PathBuf,
}

/// Puts the program and the C interface of this machine into `target/dist`, and an archive for each
/// platform that can be built for here.
pub fn run(workspace: &Workspace, build: &BuildArgs) -> Result<()> {
    build::run(workspace, build)?;
    let dist = workspace.target().join("dist");
    let own = build_for(workspace, None)?;
    println!("{}", beside_each_other(workspace, &own, &dist)?.display());
    for platform in Platform::ALL {
        let other;
        let built = match platform.missing() {
            Some(text) => {
                println!("no archive for {}: {text}", platform.arch());
                continue;
            }
            None if platform.is_own() => &own,
            None => {
                other = build_for(workspace, Some(&platform))?;
                &other
            }
        };
        println!("{}", archive::write(workspace, &dist, &platform, built)?.display());
    }
    Ok(())
}

fn build_for(workspace: &Workspace, cross: Option<&Platform>) -> Result<Built> {
    let library = harness::library(workspace, cross)?;
    Ok(Built { program: harness::program(workspace, cross)?, library })
}

/// All in one directory, where the program's `bench` finds the library; returns the program.
fn beside_each_other(workspace: &Workspace, built: &Built, to: &Path) -> Result<PathBuf> {
    let copy = to.join(PROGRAM);
    put(&built.program, &copy)?;
    put(&built.library, &to.join(C_LIBRARY))?;
    put(&built.library, &to.join(C_SONAME))?;
    put(&workspace.root().join(C_HEADER), &to.join("fulgurite.h"))?;
    let text = readme(built, "./fulgurite-check")? + BESIDE;
    write_if_changed(&to.join("README.txt"), &text)?;
    Ok(copy)
}

/// Copies a file, and makes its directory.
fn put(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    }
    fs::copy(from, to).map_err(Error::file("write", to))?;
    Ok(())
}

/// The README of a program and a library, by the program's place.
fn readme(built: &Built, program: &str) -> Result<String> {
    let mut needed = Vec::new();
    for file in [&built.program, &built.library] {
        needed.extend(glibc::needed(&fs::read(file).map_err(Error::file("read", file))?));
    }
    let text = README.replace("PROGRAM", program);
    Ok(text.replace("GLIBC", &glibc::text(needed.into_iter().max())))
}
