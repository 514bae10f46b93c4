//! Finds the compiler for the kernels.
//!
//! rustc compiles for `nvptx64-nvidia-cuda` out of the box, but it needs `core` for that target.
//! Three sources are tried in order, see [`Source`].

mod install;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process::query;

/// The target of the kernels.
pub const TARGET: &str = "nvptx64-nvidia-cuda";

/// Environment variable that forces one source; its values are those of [`Source::name`].
pub const SOURCE_VARIABLE: &str = "FULGURITE_KERNEL_TOOLCHAIN";

/// Where `core` for the kernels comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The workspace's own toolchain with the target installed.
    PrebuiltCore,
    /// The workspace's own toolchain with the source of `core`.
    RustSrc,
    /// Debian's packages of rustc, cargo and the source, which lie beside rustup's toolchains.
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
    rustc: PathBuf,
    cargo: PathBuf,
}

impl Toolchain {
    /// The first source that is there; where none is, installs one if that can be done without
    /// asking (as root on Debian, or through rustup), and says so.
    pub fn find_or_install() -> Result<Toolchain> {
        let sources = match env::var(SOURCE_VARIABLE) {
            Ok(name) => vec![Source::from_name(&name)?],
            Err(_) => Source::ALL.to_vec(),
        };
        if let Some(found) = sources.iter().find_map(|source| Toolchain::at(*source)) {
            return Ok(found);
        }
        install::any_of(&sources)?;
        sources.iter().find_map(|source| Toolchain::at(*source)).ok_or_else(|| {
            Error::Toolchain(format!(
                "no compiler for the kernels, also not after installing one.\n{}",
                install::advice()
            ))
        })
    }

    /// The toolchain of one source, if it is there and complete.
    fn at(source: Source) -> Option<Toolchain> {
        let (rustc, cargo) = match source {
            Source::Debian => (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo")),
            _ => {
                let cargo = env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
                (PathBuf::from("rustc"), cargo)
            }
        };
        if source == Source::Debian && !(rustc.exists() && cargo.exists()) {
            return None;
        }
        let sysroot = PathBuf::from(query(&rustc, &["--print", "sysroot"])?);
        let complete = match source {
            Source::PrebuiltCore => has_prebuilt_core(&sysroot),
            Source::RustSrc | Source::Debian => {
                sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
            }
        };
        if !complete {
            return None;
        }
        let version = query(&rustc, &["--version"])?;
        Some(Toolchain { source, version, rustc, cargo })
    }

    /// A toolchain that is never run.
    #[cfg(test)]
    pub fn for_tests(source: Source, version: &str) -> Toolchain {
        let version = version.to_string();
        Toolchain { source, version, rustc: PathBuf::from("rustc"), cargo: PathBuf::from("cargo") }
    }

    /// Whether `core` is compiled with the kernels; if not, it is there already.
    pub fn builds_core(&self) -> bool {
        self.source != Source::PrebuiltCore
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
        self.clean(Command::new(&self.rustc))
    }

    /// Its cargo, in a clean environment.
    pub fn cargo(&self) -> Command {
        let mut cargo = self.clean(Command::new(&self.cargo));
        cargo.env("RUSTC", &self.rustc);
        cargo
    }

    /// Takes away what the cargo and the rustup around this program have set: flags and
    /// directories that are meant for the host, and libraries of another compiler.
    fn clean(&self, mut command: Command) -> Command {
        for (name, _) in env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            let of_build = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_ENCODED_"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            let of_package =
                ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix));
            let of_compiler = name == "CARGO" || name.starts_with("RUSTC") || name == "RUSTFLAGS";
            if of_build || of_package || of_compiler {
                command.env_remove(name);
            }
        }
        if self.source == Source::Debian {
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
        }
        // The features abi_ptx and asm_experimental_arch are not stable yet; only the kernels,
        // never the host side, are compiled with this.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }
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
