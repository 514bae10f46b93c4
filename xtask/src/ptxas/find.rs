//! Finds a ptxas, or fetches NVIDIA's from PyPI.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PtxasArgs;
use crate::error::{Error, Result};
use crate::process::{capture, query};
use crate::progress::Progress;
use crate::workspace::{Workspace, files_below};

/// What to do where there is none.
pub const ADVICE: &str = "give --ptxas PATH, or --fetch-ptxas to install it from PyPI";

/// Environment variable that names a ptxas.
const PTXAS_VARIABLE: &str = "FULGURITE_PTXAS";

/// PyPI's package with ptxas; one release, so that the golden numbers mean the same everywhere.
const PACKAGE: &str = "nvidia-cuda-nvcc==13.0.88";

/// The ptxas to use: the option, the variable, the one fetched before, the `PATH`; else a
/// fetched one if that is wanted.
pub fn find_or_fetch(workspace: &Workspace, arguments: &PtxasArgs) -> Result<Option<PathBuf>> {
    let named = arguments.ptxas.clone().or_else(|| env::var_os(PTXAS_VARIABLE).map(PathBuf::from));
    if let Some(path) = named {
        if path.is_file() {
            return Ok(Some(path));
        }
        let path = path.display();
        return Err(Error::Option(format!("{path} is not a file; --ptxas takes the program")));
    }
    if let Some(path) = fetched(workspace)? {
        return Ok(Some(path));
    }
    if query("ptxas", &["--version"]).is_some() {
        return Ok(Some(PathBuf::from("ptxas")));
    }
    if !arguments.fetch_ptxas && !arguments.fetch_if_possible {
        return Ok(None);
    }
    match fetch(workspace) {
        Err(error) if !arguments.fetch_ptxas => println!("ptxas could not be installed: {error}"),
        result => result?,
    }
    fetched(workspace)
}

/// The release of a ptxas, as in `13.0.88`.
pub fn version(ptxas: &Path) -> Result<String> {
    let text = query(ptxas, &["--version"]).unwrap_or_default();
    release(&text).map(str::to_string).ok_or_else(|| Error::Unreadable {
        what: format!("the version of {}", ptxas.display()),
        got: text.clone(),
    })
}

/// `13.0.88` of `Cuda compilation tools, release 13.0, V13.0.88`.
fn release(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.split_once(", V")).map(|(_, version)| version.trim())
}

fn environment(workspace: &Workspace) -> PathBuf {
    workspace.target().join("ptxas")
}

fn fetched(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let libraries = environment(workspace).join("lib");
    let files = files_below(&libraries, &|_| true, &|path| path.ends_with("bin/ptxas"))?;
    Ok(files.into_iter().next())
}

fn fetch(workspace: &Workspace) -> Result<()> {
    let directory = environment(workspace);
    let _progress = Progress::spinner("installing ptxas from PyPI");
    println!("installing ptxas from PyPI: {PACKAGE}");
    let mut python = Command::new("python3");
    capture("python3 -m venv", python.args(["-m", "venv"]).arg(&directory))?;
    let mut pip = Command::new(directory.join("bin/pip"));
    capture("pip install", pip.args(["install", "--quiet", PACKAGE]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read() {
        let text = "ptxas: NVIDIA (R) Ptx optimizing assembler\n\
                    Cuda compilation tools, release 13.0, V13.0.88\n\
                    Build cuda_13.0.r13.0/compiler.36424714_0\n";
        assert_eq!(release(text), Some("13.0.88"));
        assert_eq!(release("no ptxas"), None);
    }

    #[test]
    fn a_named_ptxas_must_exist() {
        let workspace = Workspace::at(Path::new("nowhere"));
        let path = Some(PathBuf::from("nowhere/ptxas"));
        let arguments = PtxasArgs { ptxas: path, ..PtxasArgs::default() };
        let error = find_or_fetch(&workspace, &arguments).expect_err("no such file").to_string();
        assert!(error.contains("nowhere/ptxas is not a file"), "{error}");
    }
}
