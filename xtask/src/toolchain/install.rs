//! Installs a compiler for the kernels where that needs no question.

use std::path::Path;
use std::process::Command;

use super::{Source, TARGET};
use crate::error::{Error, Result};
use crate::process::{query, run};

/// Debian's compiler for the web and GPU targets, the source of `core`, and a cargo for it.
const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];

/// Installs one of the sources, or says what the user can do.
pub fn any_of(sources: &[Source]) -> Result<()> {
    if sources.contains(&Source::Debian) && root_on_debian() {
        return debian();
    }
    let has_rustup = rustup_may_install() && query("rustup", &["--version"]).is_some();
    if has_rustup && sources.contains(&Source::PrebuiltCore) {
        eprintln!("no compiler for the kernels found: installing rustup's target {TARGET}");
        return run("rustup target add", Command::new("rustup").args(["target", "add", TARGET]))
            .map_err(explain);
    }
    if has_rustup && sources.contains(&Source::RustSrc) {
        eprintln!("no compiler for the kernels found: installing rustup's component rust-src");
        let mut command = Command::new("rustup");
        return run("rustup component add", command.args(["component", "add", "rust-src"]))
            .map_err(explain);
    }
    Err(Error::Toolchain(format!("no compiler for the kernels found.\n{}", advice())))
}

/// The command that a user can run.
pub fn advice() -> String {
    format!(
        "Run one of these, then try again:\n  rustup target add {TARGET}\n  \
         sudo apt-get install --no-install-recommends {}   (on Debian)",
        PACKAGES.join(" ")
    )
}

/// Whether rustup may be asked: a user who switched its automatic installs off wants its
/// toolchains left as they are.
fn rustup_may_install() -> bool {
    std::env::var("RUSTUP_AUTO_INSTALL").as_deref() != Ok("0")
}

fn root_on_debian() -> bool {
    Path::new("/etc/debian_version").exists()
        && query("apt-get", &["--version"]).is_some()
        && query("id", &["-u"]).as_deref() == Some("0")
}

fn debian() -> Result<()> {
    eprintln!(
        "no compiler for the kernels found: installing Debian's packages {}",
        PACKAGES.join(", ")
    );
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "--yes"]);
        command
    };
    run("apt-get update", apt_get().arg("update")).map_err(explain)?;
    let mut install = apt_get();
    install.args(["install", "--no-install-recommends"]).args(PACKAGES);
    run("apt-get install", &mut install).map_err(explain)
}

fn explain(error: Error) -> Error {
    Error::Toolchain(format!("{error}\n{}", advice()))
}
