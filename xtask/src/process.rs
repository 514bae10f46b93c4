//! Running other programs, one or several at a time.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;

use output::Pulse;

use crate::error::{Error, Result};

/// The cargo that runs this program, for another command in the same directory.
pub fn cargo(directory: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(directory);
    cargo
}

/// Runs a command that talks to the user itself; fails when it reports failure.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { what: what.to_string(), status, output: String::new() })
}

/// Runs a command that may be silent for long, such as cargo or an installer.
pub fn run_slow(what: &str, command: &mut Command) -> Result<()> {
    let name = what.to_string();
    let _pulse = Pulse::of(move || name.clone());
    run(what, command)
}

/// Runs a command that talks to the user on standard error and may be silent for long, and returns
/// its standard output.
pub fn run_for_output(what: &str, command: &mut Command) -> Result<String> {
    let name = what.to_string();
    let _pulse = Pulse::of(move || name.clone());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.spawn().map_err(|source| start_error(command, source))?;
    let output = child.wait_with_output().map_err(|source| start_error(command, source))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Failed { what: what.to_string(), status: output.status, output: String::new() })
}

/// Runs a command and returns what it wrote; fails, with that text, when it reports failure.
pub fn capture(what: &str, command: &mut Command) -> Result<Output> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|source| start_error(command, source))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::Failed {
        what: what.to_string(),
        status: output.status,
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The standard output of a short query such as `rustc --version`, without its line end; `None`
/// when the program is missing or reports failure.
pub fn query<S: AsRef<OsStr>>(program: S, arguments: &[&str]) -> Option<String> {
    answer(Command::new(program).args(arguments))
}

/// The same of a command that has more to it than a program and its arguments.
pub fn answer(command: &mut Command) -> Option<String> {
    let output =
        command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim_end().to_string())
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

/// The `PATH` with the programs of a folder in front.
pub fn path_with(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

/// Applies `work` to every job with as many threads as there are cores, in the order given; the
/// results keep that order. After a failure no further job is started, and the first failure (in
/// the order of the jobs) is returned.
pub fn parallel<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let thread_count = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let results: Mutex<Vec<Option<Result<R>>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    let next = Mutex::new(0);
    let take = || {
        let mut next = next.lock().ok()?;
        let index = *next;
        *next += 1;
        (index < jobs.len()).then_some(index)
    };
    thread::scope(|scope| {
        for _ in 0..thread_count {
            scope.spawn(|| {
                while let Some(index) = take() {
                    let result = work(&jobs[index]);
                    let failed = result.is_err();
                    if let Ok(mut results) = results.lock() {
                        results[index] = Some(result);
                    }
                    if failed && let Ok(mut next) = next.lock() {
                        *next = jobs.len();
                    }
                }
            });
        }
    });
    // A job without a result was not started because another one failed.
    results
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_a_folder_are_found_first() {
        let path = path_with(Path::new("there/bin"));
        let first = env::split_paths(&path).next();
        assert_eq!(first.as_deref(), Some(Path::new("there/bin")));
    }

    #[test]
    fn parallel_keeps_the_order() {
        let jobs: Vec<u32> = (0..50).collect();
        let doubled = parallel(&jobs, |job| Ok(job * 2)).expect("no job fails");
        assert_eq!(doubled, jobs.iter().map(|job| job * 2).collect::<Vec<_>>());
    }

    #[test]
    fn parallel_reports_a_failure() {
        let result = parallel(&[1, 2, 3], |&job| {
            if job == 2 { Err(Error::Option("two".to_string())) } else { Ok(job) }
        });
        assert_eq!(result.expect_err("job two fails").to_string(), "two");
    }

    #[test]
    fn query_of_a_missing_program_is_none() {
        assert_eq!(query("fulgurite-no-such-program", &[]), None);
    }
}
