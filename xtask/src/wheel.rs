//! `cargo xtask wheel`: the Python package with the shared library in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::artifacts;
use crate::build::{self, BuildArgs};
use crate::error::{Error, Result};
use crate::dist::glibc;
use crate::process::{cargo, run_slow};
use crate::python;
use crate::workspace::Workspace;

/// hatchling, which packs the wheel, and cargo-zigbuild with its linker.
const REQUIREMENTS: &str = include_str!("../../host/python/requirements/wheel.txt");

/// The glibc that wheels ask for at most: that of RHEL 8, Debian 10 and all later ones.
const GLIBC: [u32; 2] = [2, 28];

/// The shared library, as cargo names it.
const LIBRARY: &str = "libfulgurite_c.so";

/// Options of `wheel`.
#[derive(Args, Clone, Debug)]
pub struct WheelArgs {
    /// For which processor (may be given several times) [default: this machine's]
    #[arg(long, value_name = "ARCH")]
    arch: Vec<Arch>,
    /// Link with this machine's linker; the wheel may then ask for a glibc as new as this machine's
    #[arg(long)]
    plain: bool,
    /// Pack this shared library, for one ARCH, instead of building one
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
}

/// Processors that wheels are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Arch {
    #[value(name = "x86_64")]
    X86,
    #[value(name = "aarch64")]
    Arm,
}

impl Arch {
    const fn name(self) -> &'static str {
        match self {
            Arch::X86 => "x86_64",
            Arch::Arm => "aarch64",
        }
    }

    /// That of this program.
    const fn own() -> Arch {
        if cfg!(target_arch = "aarch64") { Arch::Arm } else { Arch::X86 }
    }

    /// The number that the header of an ELF file has for it.
    const fn machine(self) -> u8 {
        match self {
            Arch::X86 => 62,
            Arch::Arm => 183,
        }
    }
}

/// Makes a wheel for each architecture, in `target/wheels`.
pub fn run(workspace: &Workspace, arguments: &WheelArgs) -> Result<()> {
    let archs = if arguments.arch.is_empty() { vec![Arch::own()] } else { arguments.arch.clone() };
    check(arguments, &archs)?;
    let environment = workspace.target().join("python-wheel");
    if !python::is_made(&environment, REQUIREMENTS) {
        python::make(&environment, REQUIREMENTS)?;
    }
    if arguments.library.is_none() {
        build::run(workspace, &BuildArgs::default())?;
    }
    for arch in archs {
        let library = match &arguments.library {
            Some(file) => fs::canonicalize(file).map_err(Error::file("find", file))?,
            None if arguments.plain => plain(workspace)?,
            None => portable(workspace, &environment, arch)?,
        };
        pack(workspace, &environment, arch, &library)?;
    }
    Ok(())
}

/// Options that exclude each other.
fn check(arguments: &WheelArgs, archs: &[Arch]) -> Result<()> {
    if arguments.plain && archs != [Arch::own()] {
        let own = Arch::own().name();
        return Err(Error::Option(format!("--plain makes a wheel for {own} alone: leave it out")));
    }
    if arguments.library.is_some() && archs.len() != 1 {
        return Err(Error::Option("--library is for one architecture: give one --arch".to_owned()));
    }
    Ok(())
}

/// The library as this machine links it.
fn plain(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = cargo(workspace.root());
    command.args(["build", "--release", "--package", "fulgurite-c"]);
    artifacts::build(&format!("building {LIBRARY}"), LIBRARY, &mut command)
}

/// The library, linked for the oldest glibc that a wheel of its name promises.
fn portable(workspace: &Workspace, environment: &Path, arch: Arch) -> Result<PathBuf> {
    let [major, minor] = GLIBC;
    let target = format!("{}-unknown-linux-gnu.{major}.{minor}", arch.name());
    let mut command = cargo(workspace.root());
    command.args(["zigbuild", "--release", "--package", "fulgurite-c", "--target", &target]);
    command.env("PATH", python::path_with(environment));
    artifacts::build(&format!("building {LIBRARY} for {target}"), LIBRARY, &mut command)
}

/// Packs the library with the package.
fn pack(workspace: &Workspace, environment: &Path, arch: Arch, library: &Path) -> Result<()> {
    let content = fs::read(library).map_err(Error::file("read", library))?;
    let platform = platform(arch, &content).map_err(Error::Option)?;
    let wheels = workspace.target().join("wheels");
    let mut hatchling = python::program(workspace, environment, "python");
    hatchling.args(["-m", "hatchling", "build", "--target", "wheel", "--directory"]);
    hatchling.arg(&wheels).env("FULGURITE_WHEEL_LIBRARY", library);
    hatchling.env("FULGURITE_WHEEL_PLATFORM", &platform);
    run_slow("hatchling", &mut hatchling)?;
    println!("{}", newest(&wheels, &platform)?.display());
    Ok(())
}

/// What a wheel with this library may be called: by a glibc if it asks for none later, else by the
/// kernel alone.
fn platform(arch: Arch, library: &[u8]) -> std::result::Result<String, String> {
    let name = arch.name();
    // Bytes 18 and 19 of an ELF file's header, low byte first.
    if !library.starts_with(b"\x7fELF") || library.get(18) != Some(&arch.machine()) {
        return Err(format!("the library is none for Linux on {name}: give its --arch"));
    }
    let [major, minor] = GLIBC;
    Ok(match glibc::needed(library) {
        Some(needed) if needed <= GLIBC => format!("manylinux_{major}_{minor}_{name}"),
        _ => format!("linux_{name}"),
    })
}

/// The wheel for a platform that was written last.
fn newest(wheels: &Path, platform: &str) -> Result<PathBuf> {
    let ending = format!("-py3-none-{platform}.whl");
    let is_wheel = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with(&ending))
    };
    let items = fs::read_dir(wheels).map_err(Error::file("list", wheels))?;
    let paths = items.filter_map(|item| item.ok()).map(|item| item.path()).filter(is_wheel);
    let written = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
    paths.max_by_key(written).ok_or_else(|| Error::Unreadable {
        what: "what hatchling wrote".to_owned(),
        got: format!("no wheel for {platform}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(machine: u8, glibc: &str) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(18, 0);
        bytes.extend([machine, 0]);
        bytes.extend(format!("\0GLIBC_2.17\0GLIBC_{glibc}\0").bytes());
        bytes
    }

    #[test]
    fn a_wheel_is_named_by_what_its_library_asks_for() {
        let named = |arch, machine, glibc| platform(arch, &library(machine, glibc));
        assert_eq!(named(Arch::X86, 62, "2.28").as_deref(), Ok("manylinux_2_28_x86_64"));
        assert_eq!(named(Arch::Arm, 183, "2.17").as_deref(), Ok("manylinux_2_28_aarch64"));
        assert_eq!(named(Arch::X86, 62, "2.34").as_deref(), Ok("linux_x86_64"));
        assert!(named(Arch::Arm, 62, "2.17").is_err_and(|text| text.contains("aarch64")));
        assert!(platform(Arch::X86, b"text").is_err());
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        let both = [Arch::X86, Arch::Arm];
        let none = WheelArgs { arch: Vec::new(), plain: false, library: None };
        assert!(check(&none, &both).is_ok());
        assert!(check(&WheelArgs { plain: true, ..none.clone() }, &[Arch::own()]).is_ok());
        assert!(check(&WheelArgs { plain: true, ..none.clone() }, &both).is_err());
        assert!(check(&WheelArgs { library: Some("a.so".into()), ..none }, &both).is_err());
    }
}
