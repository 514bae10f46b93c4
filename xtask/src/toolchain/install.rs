//! Installs a compiler for the kernels: the user's own way before the system's, each said before it
//! is gone, and none against the user's will.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Source, TARGET};
use crate::error::{Error, Result};
use crate::process::{answer, capture, run_slow};

/// Environment variable that says whether this program may install; its values are those of
/// [`Policy::name`].
pub const POLICY_VARIABLE: &str = "FULGURITE_INSTALL";

/// Debian's compiler for the web and GPU targets, and the source of `core`.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// How long another program that installs packages is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(600);

/// Time between two tries where apt-get itself does not wait.
const LOCK_INTERVAL: Duration = Duration::from_secs(2);

/// Whether this program may install what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Yes, after it has said what.
    Auto,
    /// After a question on the terminal; without a terminal, no.
    Ask,
    /// No.
    Never,
}

impl Policy {
    const ALL: [Policy; 3] = [Policy::Auto, Policy::Ask, Policy::Never];

    fn name(self) -> &'static str {
        match self {
            Policy::Auto => "auto",
            Policy::Ask => "ask",
            Policy::Never => "never",
        }
    }

    fn of_environment() -> Result<Policy> {
        env::var(POLICY_VARIABLE).map_or(Ok(Policy::Auto), |name| Policy::from_name(&name))
    }

    fn from_name(name: &str) -> Result<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| {
            let names = Policy::ALL.map(Policy::name).join(", ");
            Error::Option(format!("{POLICY_VARIABLE} is `{name}`; allowed are {names}"))
        })
    }
}

/// Whether this program may install something that it can do without: not if it would have to ask.
pub fn may_install() -> Result<bool> {
    Ok(Policy::of_environment()? == Policy::Auto)
}

/// What there is to install with, and what the user allows.
#[derive(Clone, Debug)]
pub struct Means {
    path: OsString,
    policy: Policy,
    /// A user who switched rustup's automatic installs off wants its toolchains left as they are.
    rustup_may: bool,
    debian: bool,
}

impl Means {
    /// Those of this machine and environment.
    pub fn of_environment() -> Result<Means> {
        Ok(Means {
            path: env::var_os("PATH").unwrap_or_default(),
            policy: Policy::of_environment()?,
            rustup_may: env::var("RUSTUP_AUTO_INSTALL").as_deref() != Ok("0"),
            debian: Path::new("/etc/debian_version").exists(),
        })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("PATH", &self.path).stdin(Stdio::null());
        command
    }

    fn answers(&self, words: &[&str]) -> Option<String> {
        answer(&mut self.command(words))
    }

    /// The ways to one of the sources, those that change only the user's own files first.
    fn ways(&self, sources: &[Source]) -> Vec<Way> {
        let mut ways = Vec::new();
        if self.rustup_may && self.answers(&["rustup", "--version"]).is_some() {
            let wanted = [(Source::PrebuiltCore, Way::Target), (Source::RustSrc, Way::RustSrc)];
            let wanted = wanted.into_iter().filter(|(source, _)| sources.contains(source));
            ways.extend(wanted.map(|(_, way)| way));
        }
        let is_root = || self.answers(&["id", "-u"]).as_deref() == Some("0");
        let apt = || self.answers(&["apt-get", "--version"]).is_some();
        if sources.contains(&Source::Debian) && self.debian && is_root() && apt() {
            ways.push(Way::Debian);
        }
        ways
    }

    /// Whether the user lets a way be gone.
    fn allows(&self, way: Way, terminal: Option<&mut dyn BufRead>) -> bool {
        match (self.policy, terminal) {
            (Policy::Auto, _) => {
                eprintln!("running: {} ({POLICY_VARIABLE}=never forbids it)", way.text());
                true
            }
            (Policy::Ask, Some(terminal)) => {
                eprint!("run {}? [y/N] ", way.text());
                let _ = io::stderr().flush();
                let mut line = String::new();
                terminal.read_line(&mut line).is_ok()
                    && ["y", "yes"].contains(&line.trim().to_lowercase().as_str())
            }
            (Policy::Ask, None) | (Policy::Never, _) => false,
        }
    }

    fn go(&self, way: Way) -> Result<()> {
        match way {
            Way::Target | Way::RustSrc => {
                run_slow(way.text().as_str(), &mut self.command(way.words()))
            }
            Way::Debian => {
                let update = with_timeout(&["apt-get", "--quiet", "--yes"], &["update"]);
                self.update(&update)?;
                let mut install = self.apt(way.words());
                run_slow("apt-get install", &mut install)
            }
        }
    }

    fn apt(&self, words: &[&str]) -> Command {
        let words = with_timeout(&words[..3], &words[3..]);
        let mut command = self.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// `apt-get update`, again and again while another program has the lists locked: apt-get waits
    /// for dpkg's lock, but not for that one.
    fn update(&self, words: &[String]) -> Result<()> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let start = Instant::now();
        let mut told = false;
        loop {
            match capture("apt-get update", &mut self.command(&words)) {
                Err(Error::Failed { output, .. })
                    if output.contains("get lock") && start.elapsed() < LOCK_TIMEOUT =>
                {
                    if !told {
                        eprintln!("apt-get is locked by another program: waiting for it");
                    }
                    told = true;
                    thread::sleep(LOCK_INTERVAL);
                }
                result => return result.map(|_| ()),
            }
        }
    }
}

/// `apt-get` with the option to wait for dpkg's lock, then what it is to do.
fn with_timeout(head: &[&str], tail: &[&str]) -> Vec<String> {
    let timeout = format!("DPkg::Lock::Timeout={}", LOCK_TIMEOUT.as_secs());
    let words = head.iter().copied().chain(["-o", &timeout]).chain(tail.iter().copied());
    words.map(str::to_string).collect()
}

/// One way to a compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// rustup's `core` for the target.
    Target,
    /// rustup's source of `core`.
    RustSrc,
    /// Debian's packages.
    Debian,
}

impl Way {
    fn words(self) -> &'static [&'static str] {
        const APT: [&str; 7] = [
            "apt-get",
            "--quiet",
            "--yes",
            "install",
            "--no-install-recommends",
            PACKAGES[0],
            PACKAGES[1],
        ];
        match self {
            Way::Target => &["rustup", "target", "add", TARGET],
            Way::RustSrc => &["rustup", "component", "add", "rust-src"],
            Way::Debian => &APT,
        }
    }

    /// What is run, for people.
    fn text(self) -> String {
        let update = if self == Way::Debian { "apt-get update, then " } else { "" };
        format!("{update}{}", self.words().join(" "))
    }
}

/// Installs one of the sources, or says what the user can do.
pub fn any_of(sources: &[Source], means: &Means) -> Result<()> {
    let mut terminal = io::stdin().is_terminal().then(|| io::stdin().lock());
    let terminal = terminal.as_mut().map(|terminal| terminal as &mut dyn BufRead);
    install(sources, means, terminal)
}

fn install(
    sources: &[Source],
    means: &Means,
    mut terminal: Option<&mut dyn BufRead>,
) -> Result<()> {
    eprintln!("no compiler for the kernels found");
    let mut failures = String::new();
    for way in means.ways(sources) {
        if !means.allows(way, terminal.as_mut().map(|terminal| &mut **terminal as _)) {
            continue;
        }
        match means.go(way) {
            Ok(()) => return Ok(()),
            Err(error) => {
                eprintln!("{error}");
                failures += &format!("{error}\n");
            }
        }
    }
    Err(Error::Toolchain(format!("no compiler for the kernels found.\n{failures}{}", advice())))
}

/// The commands that a user can run.
pub fn advice() -> String {
    format!(
        "Run one of these, then try again:\n  {}\n  sudo apt-get install --no-install-recommends \
         {}   (on Debian)\n{POLICY_VARIABLE}=auto, the default, lets the builder do it, =ask after \
         a question, =never not at all.",
        Way::Target.text(),
        PACKAGES.join(" ")
    )
}

#[cfg(all(test, unix))]
mod tests;
