//! `bench`: the time of every cell of the peers' grid, each checked before it is timed.

mod data;
pub mod grid;
pub mod peers;
pub mod plot;
pub mod record;
mod run;
mod timing;
pub mod variants;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use fulgurite::Dtype;

use grid::{Cell, Measurement, OURS};
use record::Origin;

/// Element types that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DtypeName {
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

impl From<DtypeName> for Dtype {
    fn from(name: DtypeName) -> Dtype {
        match name {
            DtypeName::Bf16 => Dtype::Bf16,
            DtypeName::F16 => Dtype::F16,
        }
    }
}

/// Options of `bench`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Element type
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeName,
    /// Three lengths of six
    #[arg(long)]
    pub quick: bool,
    /// Only cells whose "d128 causal 4096" contains this text; may be repeated (all must)
    #[arg(long, value_name = "TEXT")]
    pub filter: Vec<String>,
    /// Stop measuring after this many seconds
    #[arg(long, value_name = "N")]
    pub budget_seconds: Option<f64>,
    /// Fewest timed calls
    #[arg(long, default_value_t = 20)]
    pub reps: usize,
    /// Time spent on timed calls in milliseconds, up to 100 calls
    #[arg(long, default_value_t = 100.0)]
    pub rep_ms: f64,
    /// Write the times, in the peers' columns
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Draw STEM.svg and STEM.png
    #[arg(long, value_name = "STEM")]
    pub plot: Option<PathBuf>,
    /// A peers' CSV of the same run of the GPU, to compare with
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// Write the record DIR/<date>-<commit>.csv
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// The commit that is measured, for the record
    #[arg(long, default_value = option_env!("FULGURITE_COMMIT").unwrap_or("unknown"))]
    pub commit: String,
    /// Ordinal of the GPU
    #[arg(long, default_value_t = 0)]
    pub device: usize,
}

/// Options of `plot`.
#[derive(Args, Clone, Debug)]
pub struct PlotOptions {
    /// CSV files to draw: times of `bench`, of peers, or a record; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub csv: Vec<PathBuf>,
    /// Draws STEM.svg and STEM.png
    #[arg(long, value_name = "STEM")]
    pub out: PathBuf,
    /// Only these names in the `peer` column, comma separated
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only this element type
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeName,
    /// Text above the picture
    #[arg(long, default_value = "Attention forward, TFLOP/s (higher is better)")]
    pub title: String,
}

/// Runs `bench`; `Ok(true)` if all that was asked for was measured.
///
/// # Errors
/// A message if there is no GPU, a cell's result is wrong, or a file cannot be read or written.
pub fn run(options: &Options) -> Result<bool, String> {
    let peers = match &options.peers {
        Some(path) => peers::read(path)?,
        None => Vec::new(),
    };
    let wants = |cell: &Cell| {
        let name = cell.to_string();
        options.filter.iter().all(|text| name.contains(text))
    };
    let cells: Vec<Cell> = Cell::grid(options.quick).into_iter().filter(wants).collect();
    let measured = run::measure(options, &cells)?;
    let best = peers::best(&peers, Dtype::from(options.dtype).name());
    print(&measured.times, &best);
    if let Some(path) = &options.csv {
        write_csv(path, &measured.times)?;
        println!("times: {}", path.display());
    }
    if let Some(directory) = &options.record {
        let origin = Origin {
            date: record::today(),
            commit: options.commit.clone(),
            gpu: measured.gpu,
            driver: record::driver_version(),
        };
        let lines = record::lines(&origin, &measured.times, &best);
        println!("record: {}", record::write(directory, &origin, &lines)?.display());
    }
    if let Some(stem) = &options.plot {
        let all = [measured.times.as_slice(), &peers].concat();
        plot_files(stem, "Attention forward, TFLOP/s (higher is better)", &all, options.dtype)?;
    }
    Ok(measured.times.len() == cells.len())
}

/// Runs `plot`.
///
/// # Errors
/// A message if a file cannot be read or written.
pub fn run_plot(options: &PlotOptions) -> Result<bool, String> {
    let mut all = Vec::new();
    for path in &options.csv {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let is_record = text.starts_with("date,");
        all.extend(if is_record { record::read(path)? } else { peers::read(path)? });
    }
    let wanted = |row: &Measurement| options.only.is_empty() || options.only.contains(&row.peer);
    all.retain(wanted);
    plot_files(&options.out, &options.title, &all, options.dtype)?;
    Ok(true)
}

fn plot_files(
    stem: &Path,
    title: &str,
    all: &[Measurement],
    dtype: DtypeName,
) -> Result<(), String> {
    let name = Dtype::from(dtype).name();
    let rows: Vec<_> = all.iter().filter(|row| row.dtype == name).cloned().collect();
    for path in plot::draw(stem, title, &rows)? {
        println!("picture: {}", path.display());
    }
    Ok(())
}

fn write_csv(path: &Path, times: &[Measurement]) -> Result<(), String> {
    let at = |error: String| format!("cannot write {}: {error}", path.display());
    let mut writer = csv::Writer::from_path(path).map_err(|error| at(error.to_string()))?;
    for time in times {
        writer.serialize(time).map_err(|error| at(error.to_string()))?;
    }
    writer.flush().map_err(|error| at(error.to_string()))
}

/// Prints the times, and how they compare with the best peers.
fn print(times: &[Measurement], best: &BTreeMap<Cell, Measurement>) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "cell",
        "batch",
        "heads",
        "ms",
        "TFLOP/s",
        "best peer",
        "its TFLOP/s",
        "ratio",
    ]);
    let mut ratios = Vec::new();
    for time in times {
        let Some(cell) = time.cell() else { continue };
        let mut row = vec![
            cell.to_string(),
            time.batch.to_string(),
            time.heads.to_string(),
            format!("{:.4}", time.ms),
            format!("{:.1}", time.tflops),
        ];
        if let Some(peer) = best.get(&cell) {
            let ratio = time.tflops / peer.tflops;
            ratios.push(ratio);
            let numbers = [format!("{:.1}", peer.tflops), format!("{ratio:.3}")];
            row.push(peer.peer.clone());
            row.extend(numbers);
        }
        table.add_row(row);
    }
    for column in [1, 2, 3, 4, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    if let Some(all) = peers::sum_up(&ratios) {
        let (cells, mean, least) = (all.cells, all.geometric_mean, all.least);
        println!(
            "{OURS} over the best peer, {cells} cells: geometric mean {mean:.3}, least {least:.3}"
        );
    }
}
