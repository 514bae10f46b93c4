//! Measures ourselves and the peers in one Python process, so that heat and power hit all alike.
//!
//! The harness is `tests/bench/peers/`, embedded here: the program needs no checkout, only Python
//! with PyTorch, the peers' files and the shared library of the C interface. Cells, or problems
//! whose errors are compared, go to the harness as one line of JSON; what it measures comes back
//! line by line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fulgurite::Arch;
use output::Pulse;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::Options;
use super::accuracy::{Line, Problem};
use super::facts::{Sensors, Skipped};
use super::grid::Cell;
use super::measurement::{Measurement, OURS};
use super::run::Measured;

/// The harness, the program first, the C interface's structs for it, and stored tensors.
const HARNESS: [(&str, &[u8]); 10] = [
    ("harness.py", include_bytes!("../peers/harness.py")),
    ("accuracy.py", include_bytes!("../peers/accuracy.py")),
    ("eight_bits.py", include_bytes!("../peers/eight_bits.py")),
    ("gradients.py", include_bytes!("../peers/gradients.py")),
    ("implementations.py", include_bytes!("../peers/implementations.py")),
    ("measure.py", include_bytes!("../peers/measure.py")),
    ("reference.py", include_bytes!("../peers/reference.py")),
    ("sensors.py", include_bytes!("../peers/sensors.py")),
    ("interface.py", include_bytes!("../../../host/c/interface.py")),
    ("minilm.safetensors", include_bytes!("../../check/data/minilm.safetensors")),
];

/// The shared library of the C interface, beside this program.
const LIBRARY: &str = "libfulgurite.so";

/// Without a budget: longer than any run.
const NO_BUDGET_SECONDS: f64 = 1e6;

/// What the harness is to do.
#[derive(Serialize)]
struct Job<'a> {
    library: PathBuf,
    peers_dir: PathBuf,
    device: usize,
    /// The name of the architecture, if it is not the plan's choice.
    arch: Option<&'static str>,
    budget_seconds: f64,
    rounds: usize,
    cell_ms: f64,
    cells: &'a [Cell],
    problems: &'a [Problem],
}

/// What the harness says. A cell is one by its index, or a problem.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    /// The device that is measured.
    Gpu {
        name: String,
        torch: String,
        /// Other versions, by name.
        #[serde(default)]
        versions: BTreeMap<String, String>,
    },
    /// Which file or version of a peer is measured.
    Origin { peer: String, origin: String },
    /// Something to know.
    Note { text: String },
    /// A peer that is not there.
    Absent { peer: String, reason: String },
    /// A peer that does not take a cell.
    Skip { cell: usize, peer: String, reason: String },
    /// A wrong result.
    Wrong { cell: usize, peer: String, reason: String },
    /// The time of a cell.
    Time {
        cell: usize,
        peer: String,
        #[serde(default)]
        options: String,
        ms: f64,
        calls: usize,
        late: usize,
        error: f64,
        clock_mhz: Option<f64>,
        power_watts: Option<f64>,
    },
    /// The error on a problem.
    Error { cell: usize, peer: String, scheme: String, rmse: f64, relative: f64 },
    /// The time of a matrix product of cuBLAS.
    Cublas { size: usize, ms: f64 },
    /// Clock and power while cells were timed.
    Sensors(Sensors),
    /// Why the harness gives up.
    Failed { reason: String },
    /// All is done.
    End,
}

/// Measures cells.
///
/// # Errors
/// A message if a file is missing or Python cannot be started. What goes wrong later is among the
/// problems of what was measured.
pub fn measure(options: &Options, peers_dir: &Path, cells: &[Cell]) -> Result<Measured, String> {
    harness(options, peers_dir, cells, &[])
}

/// Compares errors.
///
/// # Errors
/// As [`measure`].
pub fn measure_errors(
    options: &Options,
    peers_dir: &Path,
    problems: &[Problem],
) -> Result<Measured, String> {
    harness(options, peers_dir, &[], problems)
}

fn harness(
    options: &Options,
    peers_dir: &Path,
    cells: &[Cell],
    problems: &[Problem],
) -> Result<Measured, String> {
    let job = Job {
        library: library(options)?,
        peers_dir: absolute(peers_dir)?,
        device: options.device,
        arch: options.arch.map(Arch::name),
        budget_seconds: options.budget_seconds.unwrap_or(NO_BUDGET_SECONDS),
        rounds: options.reps,
        cell_ms: options.cell_ms,
        cells,
        problems,
    };
    let directory = scratch("harness")?;
    for (name, text) in HARNESS {
        let path = directory.path().join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut command = Command::new(&options.python);
    command.arg(directory.path().join(HARNESS[0].0)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let start = |error| format!("cannot start `{}` (see --python): {error}", options.python);
    let mut child = command.spawn().map_err(start)?;
    let told = send(&mut child, &job);
    let mut run = Run::new(cells, problems);
    let pulse = Pulse::text("the harness measures");
    let heard = listen(&mut child, &mut run);
    drop(pulse);
    let status = child.wait().map_err(|error| format!("waiting for the harness: {error}"))?;
    // What the harness said of its own failure is better than a broken pipe.
    heard?;
    told?;
    if !run.ended {
        run.problem(format!("the harness ended early ({status})"));
    }
    Ok(run.measured)
}

fn send(child: &mut Child, job: &Job<'_>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("telling the harness its job: {error}");
    let line = serde_json::to_string(job).map_err(|error| failed(error.into()))?;
    let mut input = child.stdin.take().ok_or("the harness has no input")?;
    writeln!(input, "{line}").map_err(failed)
}

fn listen(child: &mut Child, run: &mut Run<'_>) -> Result<(), String> {
    let output = child.stdout.take().ok_or("the harness has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| format!("listening to the harness: {error}"))?;
        match serde_json::from_str(&line) {
            Ok(event) => run.take(event),
            Err(error) => run.problem(format!("the harness says `{line}`: {error}")),
        }
    }
    Ok(())
}

/// A run as it goes on.
struct Run<'a> {
    cells: &'a [Cell],
    problems: &'a [Problem],
    measured: Measured,
    ended: bool,
}

impl<'a> Run<'a> {
    fn new(cells: &'a [Cell], problems: &'a [Problem]) -> Run<'a> {
        let measured = Measured { gpu: "unknown".to_owned(), ..Measured::default() };
        Run { cells, problems, measured, ended: false }
    }

    fn problem(&mut self, text: String) {
        println!("PROBLEM: {text}");
        self.measured.problems.push(text);
    }

    fn name(&self, cell: usize) -> String {
        let of_problem = || self.problems.get(cell).map(Problem::to_string);
        let name = self.cells.get(cell).map(Cell::to_string).or_else(of_problem);
        name.unwrap_or_else(|| format!("cell {cell}"))
    }

    fn error(&mut self, problem: usize, who: [&str; 2], rmse: f64, relative: f64) {
        let Some(problem) = self.problems.get(problem) else {
            return self.problem(format!("an error on problem {problem}, which is none"));
        };
        let [scheme, peer] = who;
        println!("{problem}: {peer} in {scheme}: {rmse:.3e}, relative {relative:.3e}");
        self.measured.errors.push(Line::new(problem, who, rmse, relative));
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Gpu { name, torch, versions } => {
                println!("GPU: {name}, PyTorch {torch}");
                self.measured.gpu = name;
                self.measured.run.versions = versions;
                self.measured.run.versions.insert("torch".to_owned(), torch);
            }
            Event::Origin { peer, origin } => {
                println!("{peer}: {origin}");
                self.measured.run.peers.insert(peer, origin);
            }
            Event::Note { text } => println!("{text}"),
            Event::Absent { peer, reason } if peer == OURS => {
                self.problem(format!("{OURS} cannot be loaded: {reason}"));
            }
            Event::Absent { peer, reason } => {
                println!("{peer} is not there: {reason}");
                self.measured.run.absent.insert(peer, reason);
            }
            Event::Skip { cell, peer, reason } if peer == OURS => {
                self.problem(format!("{}: {OURS}: {reason}", self.name(cell)));
            }
            Event::Skip { cell, peer, reason } => {
                let cell = self.name(cell);
                println!("{cell}: without {peer}: {reason}");
                self.measured.run.skipped.push(Skipped { cell, peer, reason });
            }
            Event::Wrong { cell, peer, reason } => {
                self.problem(format!("{}: WRONG RESULT of {peer}: {reason}", self.name(cell)));
            }
            Event::Time { cell, peer, options, ms, calls, late, error, clock_mhz, power_watts } => {
                let Some(cell) = self.cells.get(cell) else {
                    return self.problem(format!("a time of cell {cell}, which is none"));
                };
                let time = Measurement {
                    options,
                    calls: Some(calls),
                    late: Some(late),
                    error: Some((error * 1e7).round() / 1e7),
                    clock_mhz,
                    power_watts,
                    ..Measurement::of(&peer, cell, ms)
                };
                let name = time.called().map_or_else(|| cell.to_string(), |it| it.to_string());
                println!("{name:40} {peer:12} {ms:9.4} ms {:7.1} TFLOP/s", time.tflops);
                if late * 4 > calls {
                    println!("  {late} of {calls} calls came late: the host's time is in them");
                }
                self.measured.times.push(time);
            }
            Event::Error { cell, peer, scheme, rmse, relative } => {
                self.error(cell, [&scheme, &peer], rmse, relative);
            }
            Event::Cublas { size, ms } => {
                let time = Measurement::cublas(size, ms);
                println!(
                    "{:40} {:12} {ms:9.4} ms {:7.1} TFLOP/s",
                    "product", "cublas", time.tflops
                );
                self.measured.times.push(time);
            }
            Event::Sensors(sensors) => self.measured.run.sensors = Some(sensors),
            Event::Failed { reason } => self.problem(format!("the harness gives up: {reason}")),
            Event::End => self.ended = true,
        }
    }
}

/// The library to load: the one that was named, or the one beside this program.
fn library(options: &Options) -> Result<PathBuf, String> {
    let path = match &options.library {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .map_err(|error| format!("this program's own place: {error}"))?
            .with_file_name(LIBRARY),
    };
    absolute(&path).map_err(|error| {
        format!(
            "{error}: `cargo xtask bench` and `cargo xtask dist` build it; or name one with \
                 --library"
        )
    })
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
}

/// A directory of this process, whose name nobody can know before, and that goes away with it.
pub(super) fn scratch(purpose: &str) -> Result<TempDir, String> {
    let prefix = format!("fulgurite-{purpose}-");
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir()
        .map_err(|error| format!("making a temporary directory: {error}"))
}
