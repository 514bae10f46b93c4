//! What is known of the variants that were tried, as CSV files.

use std::path::{Path, PathBuf};

use fulgurite::internals::{MaskClass, VARIANTS, Variant};
use serde::{Deserialize, Serialize};

use super::super::grid::DtypeName;
use super::super::peers::geometric_mean;
use super::super::record::{Origin, folder};

/// One variant: the columns of the file of candidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its entry.
    pub entry: String,
    /// Element type.
    pub dtype: DtypeName,
    /// Columns of a head.
    pub head_dim: usize,
    /// `full` or `causal`.
    pub mask: String,
    /// Softmax.
    pub softmax: String,
    /// Query rows of a job.
    pub q_rows: u32,
    /// Rows of K and V in a step.
    pub kv_rows: u32,
    /// Buffers for Q.
    pub q_parts: u32,
    /// Buffers for K and for V.
    pub kv_stages: u32,
    /// Shared memory of a block.
    pub smem_bytes: u32,
    /// 1 if the table has this shape.
    pub current: u8,
    /// Registers of a thread at entry, by ptxas.
    pub registers: Option<u32>,
    /// Bytes spilled, by ptxas.
    pub spill_bytes: Option<u32>,
    /// Why it is not measured, or not to the end; empty if it is.
    pub left_out: String,
}

impl Row {
    /// Every variant whose kernel is in this program and whose mask cells have: no windows yet.
    pub fn built_in() -> Vec<Row> {
        let row = |variant: &Variant| Row {
            entry: variant.entry.to_owned(),
            dtype: variant.dtype.into(),
            head_dim: variant.head_dim as usize,
            mask: variant.mask.name().to_owned(),
            softmax: variant.softmax.name().to_owned(),
            q_rows: variant.q_rows,
            kv_rows: variant.kv_rows,
            q_parts: variant.q_parts,
            kv_stages: variant.kv_stages,
            smem_bytes: variant.launch().smem_bytes,
            current: 1,
            registers: None,
            spill_bytes: None,
            left_out: String::new(),
        };
        let is_measured = |variant: &&Variant| {
            let has_cells = matches!(variant.mask, MaskClass::Full | MaskClass::Causal);
            has_cells && fulgurite::is_built(variant.entry)
        };
        VARIANTS.iter().filter(is_measured).map(row).collect()
    }
}

/// Reads a file of candidates.
///
/// # Errors
/// A message that names the file.
pub fn read_candidates(path: &Path) -> Result<Vec<Row>, String> {
    let at = |error: csv::Error| format!("{}: {error}", path.display());
    csv::Reader::from_path(path).map_err(at)?.deserialize().map(|row| row.map_err(at)).collect()
}

/// Times of variants that compute the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// The lengths measured.
    pub lengths: Vec<usize>,
    /// The variants.
    pub rows: Vec<Row>,
    /// TFLOP/s, a list for each row with one number for each length.
    pub tflops: Vec<Vec<Option<f64>>>,
}

impl Times {
    /// The geometric mean of a row's TFLOP/s; 0 unless all lengths were measured.
    pub fn mean(&self, row: usize) -> f64 {
        let all: Option<Vec<f64>> = self.tflops[row].iter().copied().collect();
        match all {
            Some(all) if !all.is_empty() => geometric_mean(&all),
            _ => 0.0,
        }
    }

    /// The row with the best mean.
    pub fn best(&self) -> Option<usize> {
        (0..self.rows.len())
            .filter(|&row| self.mean(row) > 0.0)
            .max_by(|&a, &b| self.mean(a).total_cmp(&self.mean(b)))
    }

    /// The row that is fastest at a length, by its index.
    fn fastest(&self, length: usize) -> Option<usize> {
        (0..self.rows.len()).filter(|&row| self.tflops[row][length].is_some()).max_by(|&a, &b| {
            let of = |row: usize| self.tflops[row][length].unwrap_or_default();
            of(a).total_cmp(&of(b))
        })
    }

    /// Lengths at which a row is the fastest, as `512 1024`.
    fn fastest_at(&self, row: usize) -> String {
        let won = |&length: &usize| self.fastest(length) == Some(row);
        let lengths = (0..self.lengths.len()).filter(won);
        lengths.map(|length| self.lengths[length].to_string()).collect::<Vec<_>>().join(" ")
    }
}

/// One decimal, or nothing.
pub fn number(tflops: Option<f64>) -> String {
    tflops.filter(|tflops| *tflops > 0.0).map_or(String::new(), |tflops| format!("{tflops:.1}"))
}

/// Writes `<directory>/<gpu>/tiles-<date>-<commit>-d<head dim>.csv`, with the element type in the
/// name if not bf16: all groups, one line for each variant.
///
/// # Errors
/// A message that names the file.
pub fn write(directory: &Path, origin: &Origin, groups: &[Times]) -> Result<PathBuf, String> {
    let directory = &directory.join(folder(&origin.gpu));
    let path = directory.join(file_name(origin, groups));
    let at = |error: String| format!("cannot write {}: {error}", path.display());
    std::fs::create_dir_all(directory).map_err(|error| at(error.to_string()))?;
    std::fs::write(&path, text(origin, groups).map_err(at)?)
        .map_err(|error| at(error.to_string()))?;
    Ok(path)
}

fn file_name(origin: &Origin, groups: &[Times]) -> String {
    let mut head_dims: Vec<usize> = Vec::new();
    let mut is_f16 = false;
    for row in groups.iter().flat_map(|group| &group.rows) {
        head_dims.push(row.head_dim);
        is_f16 |= row.dtype == DtypeName::F16;
    }
    head_dims.sort_unstable();
    head_dims.dedup();
    let mut name = format!("tiles-{}-{}", origin.date, origin.commit);
    for head_dim in head_dims {
        name.push_str(&format!("-d{head_dim}"));
    }
    if is_f16 {
        name.push_str("-f16");
    }
    name + ".csv"
}

/// The text of a record.
///
/// # Errors
/// What the CSV writer says.
pub fn text(origin: &Origin, groups: &[Times]) -> Result<String, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let lengths = groups.first().map_or(&[][..], |group| &group.lengths);
    let fixed = [
        "date",
        "commit",
        "gpu",
        "driver",
        "kind",
        "dtype",
        "head_dim",
        "mask",
        "options",
        "softmax",
        "q_rows",
        "kv_rows",
        "q_parts",
        "kv_stages",
        "smem_bytes",
        "registers",
        "spill_bytes",
        "current",
    ];
    let mut header: Vec<String> = fixed.map(str::to_owned).into();
    header.extend(lengths.iter().map(|length| format!("tflops_{length}")));
    header.extend(["tflops_mean", "best", "fastest_at", "left_out"].map(str::to_owned));
    writer.write_record(&header).map_err(|error| error.to_string())?;
    for group in groups {
        for index in 0..group.rows.len() {
            let line = line(origin, group, index);
            writer.write_record(&line).map_err(|error| error.to_string())?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn line(origin: &Origin, group: &Times, index: usize) -> Vec<String> {
    let row = &group.rows[index];
    let optional = |number: Option<u32>| number.map_or(String::new(), |number| number.to_string());
    let mut line = vec![
        origin.date.clone(),
        origin.commit.clone(),
        origin.gpu.clone(),
        origin.driver.clone(),
        "fwd".to_owned(),
        row.dtype.to_string(),
        row.head_dim.to_string(),
        row.mask.clone(),
        String::new(),
        row.softmax.clone(),
        row.q_rows.to_string(),
        row.kv_rows.to_string(),
        row.q_parts.to_string(),
        row.kv_stages.to_string(),
        row.smem_bytes.to_string(),
        optional(row.registers),
        optional(row.spill_bytes),
        row.current.to_string(),
    ];
    line.extend(group.tflops[index].iter().map(|tflops| number(*tflops)));
    line.push(number(Some(group.mean(index))));
    line.push(u8::from(group.best() == Some(index)).to_string());
    line.push(group.fastest_at(index));
    line.push(row.left_out.clone());
    line
}
