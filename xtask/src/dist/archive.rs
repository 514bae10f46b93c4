//! An archive as it is released: a prefix that may be unpacked anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Built, C_HEADER, C_LIBRARY, C_SONAME, Platform, found, put, readme};
use crate::error::{Error, Result};
use crate::harness::PROGRAM;
use crate::process::capture;
use crate::workspace::{Workspace, files_below, write_if_changed};

/// Documents of the checkout that go along.
const DOCUMENTS: [&str; 4] =
    ["LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md", "TROUBLESHOOTING.md"];

/// What stands at the end of the README.
const LAYOUT: &str = "\
include/fulgurite.h and lib/libfulgurite.so are the C interface. Programs find them with

    export PKG_CONFIG_PATH=PREFIX/lib/pkgconfig
    cc forward.c $(pkg-config --cflags --libs fulgurite) -l:libcuda.so.1

or, in CMake with -DCMAKE_PREFIX_PATH=PREFIX, by find_package(fulgurite) and the target
fulgurite::fulgurite; at run time by LD_LIBRARY_PATH=PREFIX/lib, or by an rpath. PREFIX is this
folder, wherever it lies. share/doc/fulgurite has examples, licences and what to do about errors.

    bin/fulgurite-check bench --peers-dir DIR --library lib/libfulgurite.so

measures peers beside ourselves (Python with PyTorch).
";

/// Writes the archive of a platform into a directory; returns its path.
pub(super) fn write(
    workspace: &Workspace,
    dist: &Path,
    platform: &Platform,
    built: &Built,
) -> Result<PathBuf> {
    let name = format!("fulgurite-{}-{}-linux", env!("CARGO_PKG_VERSION"), platform.arch());
    let prefix = dist.join(&name);
    if prefix.exists() {
        fs::remove_dir_all(&prefix).map_err(Error::file("remove", &prefix))?;
    }
    fill(workspace.root(), &prefix, built)?;
    let archive = dist.join(format!("{name}.tar.xz"));
    let mut tar = Command::new("tar");
    // The same content makes the same archive, whoever packs it and when.
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
    tar.arg("-C").arg(dist).arg("-cJf").arg(&archive).arg(&name);
    capture(&format!("packing {name}"), &mut tar)?;
    Ok(archive)
}

/// Puts everything to its place below a prefix.
fn fill(root: &Path, prefix: &Path, built: &Built) -> Result<()> {
    put(&built.program, &prefix.join("bin").join(PROGRAM))?;
    put(&built.library, &prefix.join("lib").join(C_SONAME))?;
    link(C_SONAME, &prefix.join("lib").join(C_LIBRARY))?;
    put(&root.join(C_HEADER), &prefix.join("include/fulgurite.h"))?;
    for (name, text) in found::files() {
        write_if_changed(&prefix.join(name), &text)?;
    }
    let documents = prefix.join("share/doc/fulgurite");
    for name in DOCUMENTS {
        put(&root.join(name), &documents.join(name))?;
    }
    let examples = root.join("host/c/examples");
    for example in files_below(&examples, &|_| true, &|_| true)? {
        let name = example.strip_prefix(&examples).unwrap_or(&example);
        put(&example, &documents.join("examples").join(name))?;
    }
    write_if_changed(&prefix.join("README.txt"), &(readme(built, "bin/fulgurite-check")? + LAYOUT))
}

/// A link in the same directory; where there are none, a copy.
fn link(name: &str, at: &Path) -> Result<()> {
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(name, at);
    #[cfg(not(unix))]
    let linked = fs::copy(at.with_file_name(name), at).map(|_| ());
    linked.map_err(Error::file("create", at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_all_that_programs_and_lawyers_ask_for() {
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let dist = scratch.path();
        let made = |name: &str| {
            let path = dist.join(name);
            fs::write(&path, name).expect("a file of our own");
            path
        };
        let built = Built { program: made("program"), library: made("library") };
        let workspace = Workspace::find().expect("cargo knows the checkout");
        let platform = Platform::ALL[1];
        let archive = match write(&workspace, dist, &platform, &built) {
            Err(Error::Failed { output, .. }) if output.contains("xz") => {
                eprintln!("skipped: there is no `xz` here");
                return;
            }
            written => written.expect("it can be packed"),
        };
        let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(name, format!("fulgurite-{version}-aarch64-linux.tar.xz"));
        let first = fs::read(&archive).expect("it is there");
        let listed = capture("tar", Command::new("tar").arg("-tJf").arg(&archive)).expect("tar");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for file in [
            "bin/fulgurite-check",
            "include/fulgurite.h",
            "lib/libfulgurite.so",
            "lib/libfulgurite.so.0",
            "lib/pkgconfig/fulgurite.pc",
            "lib/cmake/fulgurite/fulguriteConfig.cmake",
            "share/doc/fulgurite/LICENSE-APACHE",
            "share/doc/fulgurite/examples/forward.c",
            "README.txt",
        ] {
            let path = format!("fulgurite-{version}-aarch64-linux/{file}");
            assert!(listed.lines().any(|line| line == path), "{path} is missing in:\n{listed}");
        }
        write(&workspace, dist, &platform, &built).expect("it can be packed again");
        assert!(first == fs::read(&archive).expect("it is there"), "another archive of the same");
    }
}
