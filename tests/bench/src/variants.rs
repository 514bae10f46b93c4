//! `variants`: measures, in turn, all variants that compute the same, to choose between them.
//!
//! `cargo xtask tiles` builds this program with the tile shapes it tries in the place of the
//! table, and gives it a file that tells what became of every one of them.

mod measure;
pub mod record;

use std::path::PathBuf;

use clap::Args;
use comfy_table::CellAlignment;

use super::record::Origin;
use record::{Row, Times};

/// Options of `variants`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What `cargo xtask tiles` wrote about its candidates [default: all variants built in]
    #[arg(long, value_name = "FILE")]
    pub candidates: Option<PathBuf>,
    /// Only variants whose entry name contains this text; may be repeated (all must)
    #[arg(long, value_name = "TEXT")]
    pub filter: Vec<String>,
    /// Three lengths of six
    #[arg(long)]
    pub quick: bool,
    /// Rounds: in each, every variant is measured once
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Fewest timed calls of a variant in a round
    #[arg(long, default_value_t = 5)]
    pub reps: usize,
    /// Time spent on timed calls of a variant in a round, in milliseconds
    #[arg(long, default_value_t = 15.0)]
    pub rep_ms: f64,
    /// Begin no further length after this many seconds
    #[arg(long, value_name = "N")]
    pub budget_seconds: Option<f64>,
    /// Write the record DIR/<gpu>/tiles-<date>-<commit>-d<head dim>.csv
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// The commit that is measured, for the record
    #[arg(long, default_value = option_env!("FULGURITE_COMMIT").unwrap_or("unknown"))]
    pub commit: String,
    /// Ordinal of the GPU
    #[arg(long, default_value_t = 0)]
    pub device: usize,
}

/// Runs `variants`; `Ok(true)` if everything was measured and right.
///
/// # Errors
/// A message if there is no GPU, or a file cannot be read or written.
pub fn run(options: &Options) -> Result<bool, String> {
    let mut rows = match &options.candidates {
        Some(path) => record::read_candidates(path)?,
        None => Row::built_in(),
    };
    rows.retain(|row| options.filter.iter().all(|text| row.entry.contains(text)));
    if rows.is_empty() {
        return Err("no variant to measure: see --filter and --candidates".to_owned());
    }
    let measured = measure::measure(options, rows)?;
    measured.groups.iter().for_each(print);
    if let Some(directory) = &options.record {
        let origin = Origin::of_today(&options.commit, measured.gpu);
        let path = record::write(directory, &origin, &measured.groups)?;
        println!("record: {}", path.display());
    }
    Ok(measured.complete)
}

/// Prints the variants of one dtype, mask and head dim, fastest first.
fn print(times: &Times) {
    let lengths = times.lengths.iter().map(usize::to_string);
    let header = ["variant".to_owned(), "mean".to_owned()];
    let mut table = output::table(header.into_iter().chain(lengths).chain(["".to_owned()]));
    let mut order: Vec<usize> = (0..times.rows.len()).collect();
    order.sort_by(|&a, &b| times.mean(b).total_cmp(&times.mean(a)));
    let best = times.best();
    for index in order {
        let row = &times.rows[index];
        let mut cells = vec![row.entry.clone(), record::number(Some(times.mean(index)))];
        cells.extend(times.tflops[index].iter().map(|tflops| record::number(*tflops)));
        let mut remarks = Vec::new();
        remarks.extend((Some(index) == best).then_some("best"));
        remarks.extend((row.current == 1).then_some("current"));
        remarks.extend((!row.left_out.is_empty()).then_some(&*row.left_out));
        cells.push(remarks.join(", "));
        table.add_row(cells);
    }
    table.column_iter_mut().skip(1).take(1 + times.lengths.len()).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    println!("TFLOP/s and their geometric mean\n{table}");
}
