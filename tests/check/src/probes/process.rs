//! Probes on a GPU in a process of their own: one that crashes or hangs takes no other with it.
//!
//! The process reads names of cases, one a line, and answers each with a line of JSON.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Seen;
use super::cases::all;
use super::gpu::Probes;
use crate::gpu::Gpu;
use clap::Args;

/// Options of the process.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Ordinal of the GPU
    #[arg(long, default_value_t = 0)]
    pub device: usize,
}

/// What a probe left behind, or what the driver says; after that the context may be lost.
type Answer = Result<Seen, String>;

/// Runs the probes whose names come from the input, until one of them fails.
///
/// # Errors
/// A message if there is no GPU, or no case of a name.
pub fn serve(options: &Options) -> Result<bool, String> {
    let gpu = Gpu::open(options.device).map_err(|error| error.to_string())?;
    let mut probes = Probes::of(&gpu);
    let cases = all();
    for title in stdin().lines() {
        let title = title.map_err(|error| error.to_string())?;
        let case = cases.iter().find(|case| case.title() == title);
        let answer: Answer =
            probes.run(case.ok_or_else(|| format!("no probe is named {title:?}"))?);
        let line = serde_json::to_string(&answer).map_err(|error| error.to_string())?;
        writeln!(stdout(), "{line}").map_err(|error| error.to_string())?;
        if answer.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs probes through such a process, and through a new one when a probe has failed.
pub struct Remote {
    program: PathBuf,
    arguments: Vec<OsString>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    titles: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Remote {
    /// Through the program that runs, which must be `fulgurite-check`; none is started yet.
    ///
    /// # Errors
    /// A message if the system does not say which program runs.
    pub fn of_this_program(device: usize) -> Result<Remote, String> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| format!("no path of this program: {error}"))?;
        Ok(Remote::of(program, &["probes", "--device", &device.to_string()]))
    }

    /// Through `program` with these arguments, which must do as [`serve`]; none is started yet.
    pub fn of(program: PathBuf, arguments: &[&str]) -> Remote {
        let arguments = arguments.iter().map(OsString::from).collect();
        Remote { program, arguments, process: None }
    }

    /// Runs the case of this title.
    ///
    /// # Errors
    /// What the driver says, that the probe hangs, or how the process ended.
    pub fn run(&mut self, title: &str) -> Result<Seen, String> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => Process::start(&self.program, &self.arguments)?,
        };
        match process.ask(title) {
            Ok(Ok(seen)) => {
                self.process = Some(process);
                Ok(seen)
            }
            Ok(Err(error)) => {
                process.end();
                Err(error)
            }
            Err(error) => Err(format!("{error}; {}", process.end())),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end();
        }
    }
}

impl Process {
    fn start(program: &PathBuf, arguments: &[OsString]) -> Result<Process, String> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{program:?}: {error}"))?;
        let (Some(titles), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{program:?} has no input and output"));
        };
        Ok(Process { child, titles, answers: BufReader::new(answers) })
    }

    fn ask(&mut self, title: &str) -> Result<Answer, String> {
        let asked = writeln!(self.titles, "{title}");
        asked.map_err(|error| format!("the probes' process does not read: {error}"))?;
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        read.map_err(|error| format!("the probes' process does not answer: {error}"))?;
        serde_json::from_str(&line)
            .map_err(|error| format!("the probes' process answered {line:?}: {error}"))
    }

    /// Ends the process, whatever it does, and says how it ended.
    fn end(mut self) -> String {
        // One that has ended by itself cannot be killed; its status says how.
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => format!("it ended with {status}"),
            Err(error) => format!("it cannot be waited for: {error}"),
        }
    }
}
