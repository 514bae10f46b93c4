//! Finds a ptxas, or fetches NVIDIA's from PyPI.

use std::env;
use std::path::{Path, PathBuf};

use super::PtxasArgs;
use crate::error::{Error, Result};
use crate::process::query;
use crate::python;
use crate::toolchain::may_install;
use crate::workspace::{Workspace, files_below};

/// What to do where there is none.
pub const ADVICE: &str = "give --ptxas PATH, or --fetch-ptxas to install it from PyPI";

/// Environment variable that names a ptxas.
const PTXAS_VARIABLE: &str = "FULGURITE_PTXAS";

/// PyPI's packages with ptxas and nvdisasm, and the hashes of their files.
const REQUIREMENTS: &str = include_str!("../../requirements.txt");

/// The programs of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The assembler.
    pub ptxas: PathBuf,
    /// The disassembler; without it, nothing is counted in the code.
    pub nvdisasm: Option<PathBuf>,
}

impl Tools {
    /// A ptxas, and the nvdisasm beside it, among what was fetched, or in the `PATH`.
    fn with(workspace: &Workspace, ptxas: PathBuf) -> Result<Tools> {
        let beside = Some(ptxas.with_file_name("nvdisasm")).filter(|path| path.is_file());
        let fetched = fetched(workspace, "nvdisasm")?;
        let in_path = || query("nvdisasm", &["--version"]).map(|_| PathBuf::from("nvdisasm"));
        Ok(Tools { ptxas, nvdisasm: beside.or(fetched).or_else(in_path) })
    }
}

/// The programs to use: the ptxas of the option, of the variable, the one fetched before, that of
/// the `PATH`; else a fetched one if that is wanted.
pub fn find_or_fetch(workspace: &Workspace, arguments: &PtxasArgs) -> Result<Option<Tools>> {
    let named = arguments.ptxas.clone().or_else(|| env::var_os(PTXAS_VARIABLE).map(PathBuf::from));
    if let Some(path) = named {
        if path.is_file() {
            return Tools::with(workspace, path).map(Some);
        }
        let path = path.display();
        return Err(Error::Option(format!("{path} is not a file; --ptxas takes the program")));
    }
    let environment = environment(workspace);
    let is_fetched = python::is_made(&environment, REQUIREMENTS);
    if wants_fetch(arguments, may_install()?) && !is_fetched {
        match python::make(&environment, REQUIREMENTS) {
            Err(error) if !arguments.fetch_ptxas => {
                println!("ptxas could not be installed: {error}");
            }
            result => result?,
        }
    }
    let in_path = || query("ptxas", &["--version"]).map(|_| PathBuf::from("ptxas"));
    let ptxas = fetched(workspace, "ptxas")?.or_else(in_path);
    ptxas.map(|ptxas| Tools::with(workspace, ptxas)).transpose()
}

/// Whether to fetch: on the user's word, or where it is welcome and the user lets this program
/// install.
fn wants_fetch(arguments: &PtxasArgs, may_install: bool) -> bool {
    arguments.fetch_ptxas || (arguments.fetch_if_possible && may_install)
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

fn fetched(workspace: &Workspace, program: &str) -> Result<Option<PathBuf>> {
    let libraries = environment(workspace).join("lib");
    let wanted = Path::new("bin").join(program);
    let files = files_below(&libraries, &|_| true, &|path| path.ends_with(&wanted))?;
    Ok(files.into_iter().next())
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

    #[test]
    fn nothing_is_fetched_against_the_users_will() {
        let welcome = PtxasArgs { fetch_if_possible: true, ..PtxasArgs::default() };
        let asked = PtxasArgs { fetch_ptxas: true, ..PtxasArgs::default() };
        assert!(wants_fetch(&welcome, true) && !wants_fetch(&welcome, false));
        assert!(wants_fetch(&asked, false) && !wants_fetch(&PtxasArgs::default(), true));
    }

    #[test]
    fn every_package_has_hashes() {
        let text = REQUIREMENTS.replace("\\\n", "");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() >= 2);
        for line in lines {
            let hashes = line.matches("--hash=sha256:").count();
            assert!(line.contains("==") && hashes == 2, "x86_64 and aarch64: {line}");
        }
    }
}
