//! The record of a run: one line per cell, beside the best peer, kept in version control.

use std::path::{Path, PathBuf};

use check::csv_file;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::grid::{Cell, DtypeName, Kind};
use super::measurement::{Called, Measurement, OURS};
use super::{peers, plot};

/// What all lines of a record share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Day of the run, `YYYY-MM-DD`.
    pub date: String,
    /// Commit that was measured.
    pub commit: String,
    /// Name of the device.
    pub gpu: String,
    /// Version of the driver.
    pub driver: String,
}

impl Origin {
    /// A run of today on this machine.
    pub fn of_today(commit: &str, gpu: String) -> Origin {
        Origin { date: today(), commit: commit.to_owned(), gpu, driver: driver_version() }
    }
}

/// One line of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Day of the run.
    pub date: String,
    /// Commit that was measured.
    pub commit: String,
    /// Name of the device.
    pub gpu: String,
    /// Version of the driver.
    pub driver: String,
    /// What was measured: a [`Kind`].
    pub kind: String,
    /// Element type.
    pub dtype: String,
    /// Columns of a head.
    pub head_dim: usize,
    /// `full` or `causal`.
    pub mask: String,
    /// What else was asked for, or `quantise`; empty for a plain call, and in older records
    /// missing.
    #[serde(default)]
    pub options: String,
    /// Batch entries.
    pub batch: usize,
    /// Rows of Q.
    pub seqlen: usize,
    /// Rows of K and V; as many as of Q where it is missing.
    #[serde(default)]
    pub kv_len: Option<usize>,
    /// Query heads.
    pub heads_q: usize,
    /// KV heads.
    pub heads_kv: usize,
    /// Median time of a call in milliseconds.
    pub ms: f64,
    /// TFLOP/s.
    pub tflops: f64,
    /// The fastest peer of the cell, if any was measured.
    pub peer: Option<String>,
    /// Its TFLOP/s.
    pub peer_tflops: Option<f64>,
    /// Our TFLOP/s over the peer's.
    pub ratio: Option<f64>,
    /// Our TFLOP/s over the median of cuBLAS's in this run, if that was measured.
    #[serde(default)]
    pub cublas_share: Option<f64>,
    /// Peers of the run that do not have this cell.
    #[serde(default)]
    pub without: Option<String>,
}

/// The lines of a run: ours, each beside the best peer.
pub fn lines(origin: &Origin, all: &[Measurement]) -> Vec<Line> {
    let (best, cublas, missing) = (peers::best(all), peers::cublas(all), peers::missing(all));
    let thousandths = |number: f64| (number * 1e3).round() / 1e3;
    let line = |ours: &Measurement| {
        let called = ours.called()?;
        let timed = called.without_quantising();
        let (cell, peer) = (&called.cell, best.get(&timed));
        Some(Line {
            date: origin.date.clone(),
            commit: origin.commit.clone(),
            gpu: origin.gpu.clone(),
            driver: origin.driver.clone(),
            kind: called.kind.clone(),
            dtype: ours.dtype.clone(),
            head_dim: cell.head_dim,
            mask: cell.mask_name().to_owned(),
            options: called.options.clone(),
            batch: cell.batch,
            seqlen: cell.q_len,
            kv_len: Some(cell.kv_len),
            heads_q: cell.heads,
            heads_kv: cell.heads_kv,
            ms: ours.ms,
            tflops: ours.tflops,
            peer: peer.map(|peer| peer.peer.clone()),
            peer_tflops: peer.map(|peer| peer.tflops),
            ratio: peer.map(|peer| thousandths(ours.tflops / peer.tflops)),
            cublas_share: cublas.map(|cublas| thousandths(ours.tflops / cublas.median)),
            without: missing.get(&timed).map(|peers| peers.join(" ")),
        })
    };
    all.iter().filter(|time| time.peer == OURS).filter_map(line).collect()
}

/// The folder of a device's records: the word of its name with letters and digits, as in `h100` for
/// `NVIDIA H100 80GB HBM3`.
pub fn folder(gpu: &str) -> String {
    let is_model = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.contains(char::is_numeric)
    };
    let name = gpu.to_lowercase();
    let words = || name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let word = words().find(is_model).or_else(|| words().next_back());
    word.unwrap_or("unknown").to_owned()
}

/// Writes `<directory>/<date>-<commit>.csv`, for another kind than the forward
/// `<directory>/<date>-<commit>-<kind>.csv`, and beside it `….json` with the facts, `…-all.csv`
/// with every time, and the picture of each element type.
///
/// # Errors
/// A message that names the file.
pub fn write(directory: &Path, facts: &Facts, all: &[Measurement]) -> Result<Vec<PathBuf>, String> {
    let origin = &facts.origin;
    let kind = all.iter().find(|time| time.peer == OURS).and_then(|time| Kind::of(&time.kind));
    let kind = kind.filter(|kind| *kind != Kind::Forward);
    let kind = kind.map_or_else(String::new, |kind| format!("-{}", kind.name()));
    let name = format!("{}-{}{kind}", origin.date, origin.commit);
    let file = |ending: &str| directory.join(format!("{name}{ending}"));
    let path = file(".csv");
    let at = |path: &Path, error: String| format!("cannot write {}: {error}", path.display());
    std::fs::create_dir_all(directory).map_err(|error| at(directory, error.to_string()))?;
    csv_file::write(&path, lines(origin, all))?;
    let mut written = vec![path, file("-all.csv"), file(".json")];
    csv_file::write(&written[1], all)?;
    let text = facts.text()?;
    std::fs::write(&written[2], text).map_err(|error| at(&written[2], error.to_string()))?;
    for dtype in DtypeName::ALL {
        let rows: Vec<_> = all.iter().filter(|row| row.is_main(dtype)).cloned().collect();
        if !rows.is_empty() {
            let title = format!("Attention forward, {dtype}, TFLOP/s (higher is better)");
            written.push(plot::draw(&file(&picture(dtype)), &title, &rows)?);
        }
    }
    Ok(written)
}

/// What the name of a dtype's picture ends with, behind date and commit.
pub(super) fn picture(dtype: DtypeName) -> String {
    match dtype {
        DtypeName::Bf16 => ".svg".to_owned(),
        other => format!("-{other}.svg"),
    }
}

/// Reads a record as measurements: ours, and the best peer of each cell as `best peer`.
///
/// # Errors
/// A message that names the file.
pub fn read(path: &Path) -> Result<Vec<Measurement>, String> {
    let at = |error: csv::Error| format!("{}: {error}", path.display());
    let mut reader = csv::Reader::from_path(path).map_err(at)?;
    let mut all = Vec::new();
    for line in reader.deserialize() {
        let line: Line = line.map_err(at)?;
        let cell = Cell {
            dtype: DtypeName::from_str(&line.dtype, true)
                .map_err(|error| format!("{}: {error}", path.display()))?,
            head_dim: line.head_dim,
            causal: line.mask == "causal",
            heads: line.heads_q,
            heads_kv: line.heads_kv,
            q_len: line.seqlen,
            kv_len: line.kv_len.unwrap_or(line.seqlen),
            batch: line.batch,
            kind: Kind::of(&line.kind).unwrap_or(Kind::Forward),
        };
        let (kind, options) = (line.kind.clone(), line.options.clone());
        let called = Called { cell, kind, options };
        let time = |peer: &str, Called { kind, options, .. }, ms, tflops| Measurement {
            kind,
            options,
            tflops,
            ..Measurement::of(peer, &cell, ms)
        };
        let timed = called.without_quantising();
        all.push(time(OURS, called, line.ms, line.tflops));
        if let Some(tflops) = line.peer_tflops {
            all.push(time("best peer", timed, line.ms * line.tflops / tflops, tflops));
        }
    }
    Ok(all)
}

/// Today's date in UTC, `YYYY-MM-DD`.
fn today() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

/// The version of the kernel driver, as far as the system tells.
fn driver_version() -> String {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let number = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    text.split_whitespace().find(number).unwrap_or("unknown").to_owned()
}
