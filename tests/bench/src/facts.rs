//! What a record rests on besides its times: who was measured in which version, by which compiler
//! the kernels were made, at which clocks, and what is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::grid::Cell;
use super::measurement::{Measurement, OURS};
use super::record::Origin;
use super::{measurement, peers};

include!(concat!(env!("OUT_DIR"), "/manifest.rs"));

/// The facts of a record, as its `.json` has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Day of the first run, commit, device and driver.
    #[serde(flatten)]
    pub origin: Origin,
    /// The compiler of the kernels; `unknown` if this program holds none.
    pub kernel_compiler: String,
    /// The hash of each entry's PTX, as in the manifest and among the golden numbers.
    pub ptx: BTreeMap<String, String>,
    /// One for each process that measured.
    pub runs: Vec<Run>,
    /// cuBLAS in TFLOP/s, if it was measured.
    pub cublas_tflops: Option<Range>,
}

/// What one process that measured knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Cells that it measured.
    pub cells: usize,
    /// Versions of Python, PyTorch, CUDA and cuDNN.
    pub versions: BTreeMap<String, String>,
    /// Peers, and which file or version of each.
    pub peers: BTreeMap<String, String>,
    /// Peers that could not be loaded, and why.
    pub absent: BTreeMap<String, String>,
    /// Peers that do not take a cell, and why.
    pub skipped: Vec<Skipped>,
    /// Clock and power while cells were timed.
    pub sensors: Option<Sensors>,
}

/// A peer that does not take a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// The cell's name.
    pub cell: String,
    /// The peer.
    pub peer: String,
    /// Why.
    pub reason: String,
}

/// Clock and power of a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sensors {
    /// Clock of the multiprocessors in MHz.
    pub clock_mhz: Range,
    /// Power in watts.
    pub power_watts: Range,
    /// How often they were read.
    pub samples: usize,
    /// The highest clock, if it is known.
    #[serde(default)]
    pub clock_limit_mhz: Option<f64>,
    /// The power that the clock is lowered for, if it is known.
    #[serde(default)]
    pub power_limit_watts: Option<f64>,
}

/// The smallest, middle and largest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The smallest.
    pub least: f64,
    /// The middle one.
    pub median: f64,
    /// The largest.
    pub most: f64,
}

impl Range {
    /// Of numbers in any order; none if there are none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Range> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let [least, .., most] = numbers[..] else {
            let only = *numbers.first()?;
            return Some(Range { least: only, median: only, most: only });
        };
        Some(Range { least, median: numbers[numbers.len() / 2], most })
    }
}

impl Facts {
    /// Those of this program's kernels, and of one run.
    pub fn of(origin: Origin, run: Run, all: &[Measurement]) -> Facts {
        let (kernel_compiler, ptx) = kernels(MANIFEST.unwrap_or_default());
        let cublas_tflops = peers::cublas(all);
        Facts { origin, kernel_compiler, ptx, runs: vec![run], cublas_tflops }
    }

    /// The facts as text.
    pub fn text(&self) -> Result<String, String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        Ok(text + "\n")
    }
}

/// The compiler and the hashes of a manifest that `cargo xtask build` wrote.
fn kernels(manifest: &str) -> (String, BTreeMap<String, String>) {
    let manifest: serde_json::Value = serde_json::from_str(manifest).unwrap_or_default();
    let entries = manifest["entries"].as_array().map_or(&[][..], Vec::as_slice);
    let field = |entry: &serde_json::Value, name: &str| entry[name].as_str().map(str::to_owned);
    let mut compilers: Vec<String> =
        entries.iter().filter_map(|entry| field(entry, "compiler")).collect();
    compilers.sort_unstable();
    compilers.dedup();
    let compiler =
        if compilers.is_empty() { "unknown".to_owned() } else { compilers.join(" and ") };
    let hash = |entry| Some((field(entry, "entry")?, field(entry, "hash")?));
    (compiler, entries.iter().filter_map(hash).collect())
}

/// A record that a run continues.
#[derive(Clone, Debug, PartialEq)]
pub struct Earlier {
    /// Its facts.
    pub facts: Facts,
    /// Its times.
    pub times: Vec<Measurement>,
    path: PathBuf,
}

impl Earlier {
    /// Reads a record by its `.json`; its times are those of the `…-all.csv` beside it.
    ///
    /// # Errors
    /// A message that names the file.
    pub fn read(path: &Path) -> Result<Earlier, String> {
        let at = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
        let facts = serde_json::from_str(&text).map_err(|error| at(error.to_string()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let times = measurement::read(&path.with_file_name(format!("{stem}-all.csv")))?;
        Ok(Earlier { facts, times, path: path.to_owned() })
    }

    /// The record's folder.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The cells that it does not have.
    pub fn missing(&self, cells: &[Cell]) -> Vec<Cell> {
        let has = |cell: &Cell| {
            self.times.iter().any(|time| time.peer == OURS && time.cell().as_ref() == Some(cell))
        };
        cells.iter().filter(|cell| !has(cell)).copied().collect()
    }

    /// Whether times with these facts may stand in the record.
    ///
    /// # Errors
    /// A message if they are not of one commit, device, driver and set of kernels.
    pub fn accepts(&self, more: &Facts) -> Result<(), String> {
        let (facts, origin) = (&self.facts, &more.origin);
        for (what, earlier, now) in [
            ("commit", &facts.origin.commit, &origin.commit),
            ("GPU", &facts.origin.gpu, &origin.gpu),
            ("driver", &facts.origin.driver, &origin.driver),
            ("kernel compiler", &facts.kernel_compiler, &more.kernel_compiler),
        ] {
            if earlier != now {
                return Err(format!(
                    "{} has {what} `{earlier}`, this run `{now}`: write a record of its own with \
                     --record",
                    self.path.display()
                ));
            }
        }
        if facts.ptx != more.ptx {
            let path = self.path.display();
            return Err(format!("{path} is of other PTX: write a record of its own with --record"));
        }
        Ok(())
    }

    /// The record with more times; its day is that of the first run.
    ///
    /// # Errors
    /// That of [`Earlier::accepts`].
    pub fn with(
        mut self,
        more: Facts,
        times: Vec<Measurement>,
    ) -> Result<(Facts, Vec<Measurement>), String> {
        self.accepts(&more)?;
        let facts = &mut self.facts;
        facts.runs.extend(more.runs);
        self.times.extend(times);
        facts.cublas_tflops = peers::cublas(&self.times);
        Ok((self.facts, self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_and_hashes_come_from_the_manifest() {
        let manifest = r#"{"entries": [
            {"entry": "fwd_a", "hash": "1", "compiler": "rustc 1"},
            {"entry": "fwd_b", "hash": "2", "compiler": "rustc 1"}]}"#;
        let hashes = [("fwd_a", "1"), ("fwd_b", "2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(kernels(manifest), ("rustc 1".to_owned(), hashes.into()));
        assert_eq!(kernels("").0, "unknown");
    }

    #[test]
    fn ranges_are_those_of_sorted_numbers() {
        let range = |least, median, most| Some(Range { least, median, most });
        assert_eq!(Range::of([3.0, 1.0, 2.0]), range(1.0, 2.0, 3.0));
        assert_eq!(Range::of([1.0, 2.0]), range(1.0, 2.0, 2.0));
        assert_eq!(Range::of([1.0]), range(1.0, 1.0, 1.0));
        assert_eq!(Range::of([]), None);
    }
}
