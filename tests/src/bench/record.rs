//! The record of a run: one line per cell, beside the best peer, kept in version control.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::grid::{Cell, Measurement};

/// What all lines of a record share.
#[derive(Clone, Debug)]
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
    /// What was measured: `fwd`.
    pub kind: String,
    /// Element type.
    pub dtype: String,
    /// Columns of a head.
    pub head_dim: usize,
    /// `full` or `causal`.
    pub mask: String,
    /// Batch entries.
    pub batch: usize,
    /// Rows.
    pub seqlen: usize,
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
}

/// The lines of a run.
pub fn lines(
    origin: &Origin,
    ours: &[Measurement],
    best: &BTreeMap<Cell, Measurement>,
) -> Vec<Line> {
    let line = |ours: &Measurement| {
        let peer = ours.cell().and_then(|cell| best.get(&cell));
        Line {
            date: origin.date.clone(),
            commit: origin.commit.clone(),
            gpu: origin.gpu.clone(),
            driver: origin.driver.clone(),
            kind: ours.kind.clone(),
            dtype: ours.dtype.clone(),
            head_dim: ours.hd,
            mask: if ours.causal == 0 { "full" } else { "causal" }.to_owned(),
            batch: ours.batch,
            seqlen: ours.seqlen,
            heads_q: ours.heads,
            heads_kv: ours.heads,
            ms: ours.ms,
            tflops: ours.tflops,
            peer: peer.map(|peer| peer.peer.clone()),
            peer_tflops: peer.map(|peer| peer.tflops),
            ratio: peer.map(|peer| (ours.tflops / peer.tflops * 1e3).round() / 1e3),
        }
    };
    ours.iter().map(line).collect()
}

/// Writes `<directory>/<date>-<commit>.csv`, with the element type in the name if not bf16.
///
/// # Errors
/// A message that names the file.
pub fn write(directory: &Path, origin: &Origin, lines: &[Line]) -> Result<PathBuf, String> {
    let dtype = lines.first().map_or("bf16", |line| line.dtype.as_str());
    let suffix = if dtype == "bf16" { String::new() } else { format!("-{dtype}") };
    let path = directory.join(format!("{}-{}{suffix}.csv", origin.date, origin.commit));
    let at = |error: String| format!("cannot write {}: {error}", path.display());
    std::fs::create_dir_all(directory).map_err(|error| at(error.to_string()))?;
    let mut writer = csv::Writer::from_path(&path).map_err(|error| at(error.to_string()))?;
    for line in lines {
        writer.serialize(line).map_err(|error| at(error.to_string()))?;
    }
    writer.flush().map_err(|error| at(error.to_string()))?;
    Ok(path)
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
        let row = |peer: &str, ms: f64, tflops: f64| Measurement {
            peer: peer.to_owned(),
            kind: line.kind.clone(),
            dtype: line.dtype.clone(),
            hd: line.head_dim,
            causal: u8::from(line.mask == "causal"),
            batch: line.batch,
            seqlen: line.seqlen,
            heads: line.heads_q,
            ms,
            tflops,
            gbps: None,
        };
        all.push(row(super::grid::OURS, line.ms, line.tflops));
        if let Some(tflops) = line.peer_tflops {
            all.push(row("best peer", line.ms * line.tflops / tflops, tflops));
        }
    }
    Ok(all)
}

/// Today's date in UTC, `YYYY-MM-DD`.
pub fn today() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

/// The version of the kernel driver, as far as the system tells.
pub fn driver_version() -> String {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let number = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    text.split_whitespace().find(number).unwrap_or("unknown").to_owned()
}
