//! Where things are in the checkout.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use fulgurite_spec::Arch;

use crate::artifacts;
use crate::error::{Error, Result};

/// The checkout this program works on.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The checkout that cargo runs this program from, or the one it was compiled in; its target
    /// directory is the one that cargo names.
    pub fn find() -> Result<Workspace> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        let target = artifacts::target_directory(&root)?;
        Ok(Workspace { root, target })
    }

    /// A checkout at this place.
    pub fn at(root: &Path) -> Workspace {
        Workspace::with_target(root, &root.join("target"))
    }

    /// A checkout at this place that builds into that directory.
    pub fn with_target(root: &Path, target: &Path) -> Workspace {
        Workspace { root: root.to_path_buf(), target: target.to_path_buf() }
    }

    /// The top directory of the checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where the generated PTX goes, one file per entry.
    pub fn ptx(&self) -> PathBuf {
        self.root.join("host/ptx")
    }

    /// Where the probes' generated PTX goes.
    pub fn probes(&self) -> PathBuf {
        self.root.join("tests/check/ptx")
    }

    /// Where everything between source and PTX of one architecture is kept.
    pub fn kernels(&self, arch: Arch) -> PathBuf {
        self.target.join("kernels").join(arch.target())
    }

    /// The resource numbers that no build may exceed.
    pub fn golden_resources(&self) -> PathBuf {
        self.root.join("tests/golden/resources.txt")
    }
}

/// Reads a text file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::file("read", path))
}

/// Writes a file, and its directory, unless it has this content already: a file that keeps its
/// time of change does not make cargo build its readers again.
pub fn write_if_changed(path: &Path, content: &str) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content.as_bytes()) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    fs::write(path, content).map_err(Error::file("write", path))
}

/// Makes a directory, unless it is there.
pub fn make_directory(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::file("create", directory))
}

/// All files below a directory for which `keep` holds, sorted; directories for which `enter` does
/// not hold are left out. A directory that is not there has no files.
pub fn files_below(
    directory: &Path,
    enter: &dyn Fn(&Path) -> bool,
    keep: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        if !directory.is_dir() {
            continue;
        }
        for item in fs::read_dir(&directory).map_err(Error::file("list", &directory))? {
            let path = item.map_err(Error::file("list", &directory))?.path();
            if path.is_dir() {
                if enter(&path) {
                    open.push(path);
                }
            } else if keep(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
