//! What can go wrong in a command, and how it is told.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Result of a command of this program.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a command failed.
#[derive(Debug)]
pub enum Error {
    /// A file or directory could not be read or written.
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// A program could not be started.
    Start { program: String, source: io::Error },
    /// A program ran and reported failure; `output` is what it said, if that was captured.
    Failed { what: String, status: ExitStatus, output: String },
    /// A program or file said something that this program does not understand.
    Unreadable { what: String, got: String },
    /// No compiler for the kernels; the text says what to do.
    Toolchain(String),
    /// The compiled PTX breaks rules; one line each.
    Ptx(Vec<String>),
    /// ptxas reported spills, stack frames or fatal notes, or numbers worse than the golden ones.
    Resources(Vec<String>),
    /// Rules of the repository that files break; one line each.
    Tidy(Vec<String>),
    /// Why the packages may not be published; one line each.
    Package(Vec<String>),
    /// An option has a value that makes no sense; the text says what is allowed.
    Option(String),
}

impl Error {
    /// Makes an [`Error::File`] out of an input or output error.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::File { action, path, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Error::Start { program, source } => write!(f, "cannot start {program}: {source}"),
            Error::Failed { what, status, output } if output.is_empty() => {
                write!(f, "{what} failed ({status})")
            }
            Error::Failed { what, status, output } => {
                write!(f, "{}\n{what} failed ({status})", output.trim_end())
            }
            Error::Unreadable { what, got } => write!(f, "cannot understand {what}: {got}"),
            Error::Toolchain(text) | Error::Option(text) => f.write_str(text),
            Error::Ptx(lines) => list(f, "the PTX breaks rules", lines),
            Error::Resources(lines) => list(f, "ptxas reports problems", lines),
            Error::Package(lines) => list(f, "the packages are not fit to be published", lines),
            Error::Tidy(lines) => list(f, "tidy found problems", lines),
        }
    }
}

/// A headline with a count, then one line per problem.
fn list(f: &mut fmt::Formatter<'_>, headline: &str, lines: &[String]) -> fmt::Result {
    write!(f, "{headline} ({}):", lines.len())?;
    lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::File { source, .. } | Error::Start { source, .. } => Some(source),
            _ => None,
        }
    }
}
