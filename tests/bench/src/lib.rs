//! `bench`: the time of every cell, ours and the peers', each checked before it is timed; and the
//! commands beside it: `first-use`, `variants`, `plot`, `readme`.
//!
//! * [`grid`]: the cells; [`peers`]: ours beside the others'; [`accuracy`]: their errors.
//! * [`measurement`], [`record`], [`facts`]: what is written down.
//! * [`plot`], [`section`]: the picture, and the text for the README.

pub mod accuracy;
mod data;
pub mod facts;
pub mod first_use;
pub mod grid;
pub mod measurement;
pub mod page;
pub mod peers;
pub mod plot;
pub mod record;
mod run;
pub mod section;
mod side_by_side;
pub mod table;
mod timing;
pub mod variants;

use std::path::PathBuf;

use clap::Args;
use fulgurite::Arch;

use facts::{Earlier, Facts};
use grid::{Cell, DtypeName, Kind};
use measurement::{Measurement, OURS};
use record::Origin;
use run::Measured;

use check::csv_file;

/// Options of `bench`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What calls compute with, comma separated; s8e4m3: tensors in bf16, quantised by each call
    #[arg(long, value_enum, value_delimiter = ',', default_value = "bf16,f16")]
    pub dtype: Vec<DtypeName>,
    /// The operation: fwd, bwd (of a forward computed before), fwd+bwd (as training pays them)
    #[arg(long, value_enum, default_value = "fwd")]
    pub kind: Kind,
    /// Three lengths of six
    #[arg(long)]
    pub quick: bool,
    /// Only cells whose "bf16 d128 causal 4096" (with --errors: whose "outlier d128 2048") contains
    /// this text; may be repeated (all must)
    #[arg(long, value_name = "TEXT")]
    pub filter: Vec<String>,
    /// Measure the peers too: a folder with their files, may be empty; needs Python with PyTorch
    #[arg(long, value_name = "DIR")]
    pub peers_dir: Option<PathBuf>,
    /// Instead of times, the errors against float64: outliers, long rows, a language model
    #[arg(
        long,
        requires = "peers_dir",
        conflicts_with_all = [
            "dtype", "kind", "quick", "extra", "csv", "onto", "page", "reps", "rep_ms", "cell_ms"
        ]
    )]
    pub errors: bool,
    /// Besides the grid: other head dims, unequal lengths, grouped heads, long and short sequences
    #[arg(long, requires = "peers_dir")]
    pub extra: bool,
    /// Stop measuring after this many seconds
    #[arg(long, value_name = "N")]
    pub budget_seconds: Option<f64>,
    /// Fewest timed calls; with peers: timed calls of each
    #[arg(long, default_value_t = 24)]
    pub reps: usize,
    /// Without peers: time spent on timed calls in milliseconds, up to 100 calls
    #[arg(long, default_value_t = 100.0)]
    pub rep_ms: f64,
    /// With peers: longest time for all calls of a cell in milliseconds, if 5 calls each fit
    #[arg(long, default_value_t = 8000.0)]
    pub cell_ms: f64,
    /// Leave out the cost of a first use
    #[arg(long)]
    pub no_first_use: bool,
    /// Write every time
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the record DIR/<gpu>/<date>-<commit>.csv, and beside it every time, versions and
    /// pictures; with --errors <date>-<commit>-errors.csv alone
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Go on with the record that has this .json: measure the cells that it lacks, write it anew
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    pub onto: Option<PathBuf>,
    /// Measure nothing: write DIR/BENCHMARKS.md from the newest record of each GPU in
    /// DIR/xtask/record; DIR: a checkout, else this directory
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = ".")]
    pub page: Option<PathBuf>,
    /// The commit that is measured, for the record
    #[arg(long, default_value = option_env!("FULGURITE_COMMIT").unwrap_or("unknown"))]
    pub commit: String,
    /// Measure our kernels of this architecture (sm90, sm80) instead of those that a plan chooses
    #[arg(long, value_name = "ARCH", value_parser = check::gpu::arch)]
    pub arch: Option<Arch>,
    /// Ordinal of the GPU
    #[arg(long, default_value_t = 0)]
    pub device: usize,
    /// Measure calls over so many GPUs of this machine beside one, and nothing else: of heads, KV
    /// heads and rows of a GPU as in "64/8 32768"; needs NCCL
    #[arg(long, value_name = "N", conflicts_with_all = ["peers_dir", "onto", "page", "csv"])]
    pub gpus: Option<usize>,
    /// With several GPUs: blocks of NCCL's kernels at most
    #[arg(long, value_name = "N", requires = "gpus")]
    pub nccl_blocks: Option<u32>,
    /// With several GPUs: groups of KV heads that are transferred and computed one after another
    #[arg(long, value_name = "N", requires = "gpus")]
    pub groups: Option<usize>,
    /// With several GPUs: multiprocessors that launches leave to transfers
    #[arg(long, value_name = "N", requires = "gpus")]
    pub transfer_blocks: Option<u32>,
    /// With several GPUs: all launches of a GPU on one stream
    #[arg(long, requires = "gpus")]
    pub one_stream: bool,
    /// The Python that has PyTorch
    #[arg(long, default_value = "python3")]
    pub python: String,
    /// The C interface's library; otherwise libfulgurite.so beside this program
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
}

impl Options {
    /// Whether all texts of the filter are in a name.
    fn wants(&self, name: &str) -> bool {
        self.filter.iter().all(|text| name.contains(text))
    }
}

/// Options of `plot`.
#[derive(Args, Clone, Debug)]
pub struct PlotOptions {
    /// CSV files to draw: times of `bench`, or a record; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub csv: Vec<PathBuf>,
    /// Draws STEM.svg
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

/// Runs `bench`; `Ok(true)` if all that was asked for was measured and right.
///
/// # Errors
/// A message if there is no GPU, a cell's result is wrong, or a file cannot be read or written.
pub fn run(options: &Options) -> Result<bool, String> {
    if let Some(checkout) = &options.page {
        println!("{}", page::write_page(checkout)?.display());
        return Ok(true);
    }
    if let (true, Some(peers_dir)) = (options.errors, &options.peers_dir) {
        return accuracy::run(options, peers_dir);
    }
    if options.kind != Kind::Forward && options.peers_dir.is_none() {
        return Err(format!(
            "--kind {} is measured by the harness: give --peers-dir, an empty folder will do",
            options.kind.name()
        ));
    }
    let earlier = options.onto.as_deref().map(Earlier::read).transpose()?;
    if let Some(earlier) = &earlier {
        // What cannot be continued shall be told before minutes of measuring, not after.
        let origin = Origin::of_today(&options.commit, earlier.facts.origin.gpu.clone());
        earlier.accepts(&Facts::of(origin, facts::Run::default(), &[]))?;
    }
    let wanted = wanted_cells(options);
    let cells = earlier.as_ref().map_or_else(|| wanted.clone(), |record| record.missing(&wanted));
    if let (true, Some(path)) = (cells.is_empty(), &options.onto) {
        println!("{} has all of {} cells", path.display(), wanted.len());
        return Ok(true);
    }
    let mut measured = match &options.peers_dir {
        Some(directory) => side_by_side::measure(options, directory, &cells)?,
        None => run::measure(options, &cells)?,
    };
    let done = measured.times.iter().filter(|time| time.peer == OURS).count();
    let has_first_use = earlier.as_ref().is_some_and(|record| first_use::is_among(&record.times));
    if !options.no_first_use && !has_first_use && done > 0 {
        match first_use::measure(options.device) {
            Ok(times) => measured.times.extend(times),
            Err(reason) => measured.problems.push(format!("first use: {reason}")),
        }
    }
    measured.run.cells = done;
    write(options, earlier, &measured)?;
    for problem in &measured.problems {
        println!("PROBLEM: {problem}");
    }
    if done < cells.len() {
        println!("{OURS} was measured in {done} of {} cells", cells.len());
    }
    Ok(done == cells.len() && measured.problems.is_empty())
}

/// Prints what was measured, with that of an earlier run, and writes what the options ask for.
fn write(options: &Options, earlier: Option<Earlier>, measured: &Measured) -> Result<(), String> {
    let Measured { gpu, times, run, .. } = measured;
    let origin = Origin::of_today(&options.commit, gpu.clone());
    let mut directory =
        options.record.as_ref().map(|directory| directory.join(record::folder(&origin.gpu)));
    let mut facts = Facts::of(origin, run.clone(), times);
    let mut times = times.clone();
    if let Some(earlier) = earlier {
        directory = Some(earlier.directory().to_owned());
        (facts, times) = earlier.with(facts, times)?;
    }
    print!("{}", table::text(&times));
    if let Some(path) = &options.csv {
        csv_file::write(path, &times)?;
        println!("times: {}", path.display());
    }
    if let Some(directory) = directory {
        for path in record::write(&directory, &facts, &times)? {
            println!("record: {}", path.display());
        }
    }
    Ok(())
}

/// The cells that the options ask for, so that a budget cuts off the least: all that the headline
/// counts come first, and of those bf16.
pub fn wanted_cells(options: &Options) -> Vec<Cell> {
    let wants = |cell: &Cell| options.wants(&cell.to_string());
    let dtypes = DtypeName::ALL.into_iter().filter(|dtype| options.dtype.contains(dtype));
    let grid = dtypes.clone().flat_map(|dtype| Cell::grid(dtype, options.quick));
    let extra = dtypes.filter(|_| options.extra);
    let extra = extra.flat_map(|dtype| Cell::extra(dtype, options.quick));
    let all = grid.chain(extra).map(|cell| Cell { kind: options.kind, ..cell });
    all.filter(wants).collect()
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
        all.extend(if is_record { record::read(path)? } else { measurement::read(path)? });
    }
    let wanted = |row: &Measurement| {
        (options.only.is_empty() || options.only.contains(&row.peer)) && row.is_main(options.dtype)
    };
    all.retain(wanted);
    let path = plot::draw(&options.out, &options.title, &all)?;
    println!("picture: {}", path.display());
    Ok(true)
}
