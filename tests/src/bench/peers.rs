//! A peers' CSV beside ours: who is best in a cell, and how we compare.

use std::collections::BTreeMap;
use std::path::Path;

use super::grid::{Cell, Measurement, OURS};

/// Reads a benchmark's CSV. Lines that begin with `#` or `skip,` are no data, nor are repeated
/// headers; peers that computed another mask are left out.
///
/// # Errors
/// A message that names the file, and the line if one cannot be read.
pub fn read(path: &Path) -> Result<Vec<Measurement>, String> {
    let at = |reason: String| format!("{}: {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
    parse(&text).map_err(at)
}

/// [`read`] for the text of a file.
///
/// # Errors
/// A message that names the line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Measurement>, String> {
    let header = "peer,kind,dtype,hd,causal,batch,seqlen,heads,ms,tflops,gbps";
    let no_data = |line: &&str| {
        line.is_empty() || line.starts_with('#') || line.starts_with("skip,") || *line == header
    };
    let lines = text.lines().map(str::trim).filter(|line| !no_data(line));
    let read_line = |line: &str| {
        let with_header = format!("{header}\n{line}\n");
        let mut reader = csv::Reader::from_reader(with_header.as_bytes());
        let row = reader.deserialize().next();
        row.ok_or("no data".to_owned())
            .and_then(|row| row.map_err(|error| error.to_string()))
            .map_err(|error| format!("`{line}` is no line of a benchmark: {error}"))
    };
    let all: Vec<Measurement> = lines.map(read_line).collect::<Result<_, String>>()?;
    Ok(all.into_iter().filter(|line| !has_other_mask(&line.peer)).collect())
}

/// Whether a peer's name says that it computed another mask than its `causal` column: windowed and
/// document masks skip work that our cells do, and scores with a bias are another problem.
fn has_other_mask(peer: &str) -> bool {
    ["-win", "-doc", "-alibi"].iter().any(|suffix| peer.contains(suffix))
}

/// The fastest peer of each cell that was measured with this element type.
pub fn best(peers: &[Measurement], dtype: &str) -> BTreeMap<Cell, Measurement> {
    let mut best: BTreeMap<Cell, Measurement> = BTreeMap::new();
    let others = peers.iter().filter(|peer| peer.peer != OURS && peer.dtype == dtype);
    for (cell, peer) in others.filter_map(|peer| Some((peer.cell()?, peer))) {
        if best.get(&cell).is_none_or(|so_far| peer.tflops > so_far.tflops) {
            best.insert(cell, peer.clone());
        }
    }
    best
}

/// Our speed over the best peer's, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// Cells that both have.
    pub cells: usize,
    /// Geometric mean.
    pub geometric_mean: f64,
    /// The smallest.
    pub least: f64,
}

/// Sums up ratios; none if there are none.
pub fn sum_up(ratios: &[f64]) -> Option<Ratios> {
    let least = ratios.iter().copied().reduce(f64::min)?;
    let logs: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    let geometric_mean = (logs / ratios.len() as f64).exp();
    Some(Ratios { cells: ratios.len(), geometric_mean, least })
}
