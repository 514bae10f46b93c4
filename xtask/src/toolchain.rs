//! Finds the compiler for the kernels.
//!
//! rustc compiles for `nvptx64-nvidia-cuda` out of the box, but it needs `core` for that target.
//! Three sources are tried in order, see [`Source`].

mod install;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process::answer;
pub use install::may_install;

/// The target of the kernels.
pub const TARGET: &str = "nvptx64-nvidia-cuda";

/// Environment variable that forces one source; its values are those of [`Source::name`].
pub const SOURCE_VARIABLE: &str = "FULGURITE_KERNEL_TOOLCHAIN";

/// All that the compiler of the kernels gets to know of this program's environment: how to find
/// itself, through rustup as well, and where to put temporary files. Flags, wrappers, profiles and
/// libraries that are meant for other builds stay out.
const KEPT_VARIABLES: [&str; 10] = [
    "PATH",
    "HOME",
    "USERPROFILE",
    "SYSTEMROOT",
    "TMPDIR",
    "TMP",
    "TEMP",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "CARGO_HOME",
];

/// The root of `core` below a sysroot.
const CORE_SOURCE: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";

/// Where `core` for the kernels comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The workspace's own toolchain with the target installed.
    PrebuiltCore,
    /// The workspace's own toolchain with the source of `core`.
    RustSrc,
    /// Debian's packages of rustc and the source, which lie beside rustup's toolchains.
    Debian,
}

impl Source {
    /// Every source, the preferred one first.
    pub const ALL: [Source; 3] = [Source::PrebuiltCore, Source::RustSrc, Source::Debian];

    /// The value of [`SOURCE_VARIABLE`] that forces it.
    pub fn name(self) -> &'static str {
        match self {
            Source::PrebuiltCore => "rustup-target",
            Source::RustSrc => "rustup-src",
            Source::Debian => "debian",
        }
    }

    /// The source of that name.
    pub fn from_name(name: &str) -> Result<Source> {
        Source::ALL.into_iter().find(|source| source.name() == name).ok_or_else(|| {
            let names: Vec<_> = Source::ALL.iter().map(|source| source.name()).collect();
            Error::Option(format!(
                "{SOURCE_VARIABLE} is `{name}`; allowed are {}",
                names.join(", ")
            ))
        })
    }
}

/// A compiler that can build the kernels.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Where `core` comes from.
    pub source: Source,
    /// What `rustc --version` says.
    pub version: String,
    /// What `rustc -vV` says: also which LLVM it has.
    pub details: String,
    rustc: PathBuf,
    /// The source of `core`, where that is compiled with the kernels.
    core_source: Option<PathBuf>,
}

impl Toolchain {
    /// The first source that is there; where none is, installs one (through rustup, or as root on
    /// Debian) if the user lets it, and says so before.
    pub fn find_or_install() -> Result<Toolchain> {
        let sources = match env::var(SOURCE_VARIABLE) {
            Ok(name) => vec![Source::from_name(&name)?],
            Err(_) => Source::ALL.to_vec(),
        };
        if let Some(found) = sources.iter().find_map(|source| Toolchain::at(*source)) {
            return Ok(found);
        }
        install::any_of(&sources, &install::Means::of_environment()?)?;
        sources.iter().find_map(|source| Toolchain::at(*source)).ok_or_else(|| {
            Error::Toolchain(format!(
                "no compiler for the kernels, also not after installing one.\n{}",
                install::advice()
            ))
        })
    }

    /// The toolchain of one source, if it is there and complete.
    fn at(source: Source) -> Option<Toolchain> {
        let rustc = match source {
            Source::Debian => PathBuf::from("/usr/bin/rustc"),
            Source::PrebuiltCore | Source::RustSrc => PathBuf::from("rustc"),
        };
        if source == Source::Debian && !rustc.exists() {
            return None;
        }
        let ask = |argument: &[&str]| answer(clean(Command::new(&rustc)).args(argument));
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
        let core_source = (source != Source::PrebuiltCore).then(|| sysroot.join(CORE_SOURCE));
        let complete = match &core_source {
            None => has_prebuilt_core(&sysroot),
            Some(source) => source.exists(),
        };
        let details = complete.then(|| ask(&["--version", "--verbose"]))??;
        let version = details.lines().next()?.to_string();
        Some(Toolchain { source, version, details, rustc, core_source })
    }

    /// A toolchain that is never run.
    #[cfg(test)]
    pub fn for_tests(source: Source, version: &str) -> Toolchain {
        let rustc = PathBuf::from("rustc");
        let core_source = (source != Source::PrebuiltCore).then(|| PathBuf::from(CORE_SOURCE));
        let version = version.to_string();
        Toolchain { source, details: version.clone(), version, rustc, core_source }
    }

    /// The source of `core`, where that is compiled with the kernels; none if `core` is there
    /// already.
    pub fn core_source(&self) -> Option<&Path> {
        self.core_source.as_deref()
    }
    /// One line for the user: what was taken.
    pub fn describe(&self) -> String {
        let core = match self.source {
            Source::PrebuiltCore => format!("with its {TARGET} target"),
            Source::RustSrc => "with core compiled from its rust-src".to_string(),
            Source::Debian => "from Debian's packages, with core compiled from source".to_string(),
        };
        format!("kernel compiler: {} {core}", self.version)
    }

    /// The compiler, in a clean environment.
    pub fn rustc(&self) -> Command {
        let mut command = clean(Command::new(&self.rustc));
        // The features abi_ptx and asm_experimental_arch are not stable yet; only the kernels,
        // never the host side, are compiled with this.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }
}

/// Takes the environment away, but for [`KEPT_VARIABLES`].
fn clean(mut command: Command) -> Command {
    command.env_clear();
    for name in KEPT_VARIABLES {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn has_prebuilt_core(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    std::fs::read_dir(libraries).is_ok_and(|items| {
        items.flatten().any(|item| {
            let name = item.file_name();
            name.to_string_lossy().starts_with("libcore-")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sources_are_read_back() {
        for source in Source::ALL {
            assert_eq!(Source::from_name(source.name()).expect("its own name"), source);
        }
        let error = Source::from_name("nightly").expect_err("no such source").to_string();
        assert!(error.contains("rustup-target, rustup-src, debian"), "{error}");
    }
}
