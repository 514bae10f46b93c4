//! `bench --errors`: how far results are from attention in float64 of numbers that nobody rounded,
//! ours and the peers', in 16 and in 8 bits.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use check::csv_file;
use comfy_table::CellAlignment;
use serde::{Deserialize, Serialize};

use super::measurement::OURS;
use super::record::{self, Origin};
use super::{Options, side_by_side};

/// The scheme that the printed table compares the others of 8 bits with: one scale of e4m3 for each
/// KV head, as it has been computed for longest.
const USUAL: (&str, &str) = ("e4m3", "fa3-fp8");

/// What is computed: full attention on drawn or stored q, k and v of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// What q, k and v are.
    ///
    /// * `normal`: N(0, 1).
    /// * `outlier`: N(0, 1), and one of a thousand with N(0, 100) added.
    /// * `biased`: q and k as in `normal`; v too, with a mean of N(0, 1) for each column of a head.
    /// * `minilm-layer0`, `minilm-layer5`: of a language model on a page of English.
    pub data: &'static str,
    /// Batch entries.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Rows of q, k and v. Of longer heads 2048 rows are compared, spread over them.
    pub rows: usize,
    /// Columns of a head.
    pub head_dim: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { data, batch, heads, rows, head_dim } = self;
        write!(f, "{data} d{head_dim} {rows} batch {batch} heads {heads}")
    }
}

/// All problems.
pub fn problems() -> Vec<Problem> {
    let short = |data, head_dim| Problem { data, batch: 2, heads: 16, rows: 2048, head_dim };
    let long = |data, rows| Problem { data, batch: 1, heads: 4, rows, head_dim: 128 };
    let minilm = |data| Problem { data, batch: 1, heads: 12, rows: 203, head_dim: 32 };
    vec![
        short("outlier", 128),
        short("outlier", 64),
        short("outlier", 256),
        short("normal", 128),
        long("normal", 16_384),
        long("biased", 16_384),
        long("biased", 65_536),
        minilm("minilm-layer0"),
        minilm("minilm-layer5"),
    ]
}

/// The error of one implementation on one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What q, k and v are: see [`Problem::data`].
    pub data: String,
    /// Batch entries.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Rows of q, k and v.
    pub rows: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// The numbers it computes with. `bf16` and `f16` get the inputs rounded to these, the others
    /// rounded to f16.
    pub scheme: String,
    /// Whose error it is.
    pub peer: String,
    /// Root mean square of the error.
    pub rmse: f64,
    /// That over the root mean square of the right answer.
    pub relative: f64,
}

impl Line {
    /// An error on a problem, in four digits.
    pub fn new(problem: &Problem, [scheme, peer]: [&str; 2], rmse: f64, relative: f64) -> Line {
        let Problem { data, batch, heads, rows, head_dim } = *problem;
        let (scheme, peer) = (scheme.to_owned(), peer.to_owned());
        let [rmse, relative] = [rmse, relative].map(four_digits);
        Line { data: data.to_owned(), batch, heads, rows, head_dim, scheme, peer, rmse, relative }
    }

    /// What tells problems from each other.
    fn problem(&self) -> (&str, [usize; 4]) {
        (&self.data, [self.batch, self.heads, self.rows, self.head_dim])
    }
}

fn four_digits(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

/// Runs `bench --errors`; `Ok(true)` if our errors are there for all problems.
///
/// # Errors
/// A message if a file cannot be read or written, or Python cannot be started.
pub fn run(options: &Options, peers_dir: &Path) -> Result<bool, String> {
    let mut wanted = problems();
    wanted.retain(|problem| options.wants(&problem.to_string()));
    if wanted.is_empty() {
        return Err("no problem has a name with the texts of --filter".to_owned());
    }
    let measured = side_by_side::measure_errors(options, peers_dir, &wanted)?;
    print!("{}", text(&measured.errors));
    if let Some(directory) = &options.record {
        let origin = Origin::of_today(&options.commit, measured.gpu);
        println!("record: {}", write(directory, &origin, &measured.errors)?.display());
    }
    for problem in &measured.problems {
        println!("PROBLEM: {problem}");
    }
    let is_ours = |line: &&Line| line.peer == OURS;
    let done: BTreeSet<_> = measured.errors.iter().filter(is_ours).map(Line::problem).collect();
    let without = wanted.len() - done.len();
    if without > 0 {
        println!("{OURS} is missing in {without} of {} problems", wanted.len());
    }
    Ok(without == 0 && measured.problems.is_empty())
}

/// The table, and each error over that of FlashAttention-3 in e4m3 on the same problem.
pub fn text(all: &[Line]) -> String {
    let mut table =
        output::table(["data", "head dim", "rows", "scheme", "peer", "RMSE", "relative", "ratio"]);
    for line in all {
        let is_usual = |other: &&Line| {
            (&*other.scheme, &*other.peer) == USUAL && other.problem() == line.problem()
        };
        let usual = all.iter().find(is_usual);
        table.add_row([
            line.data.clone(),
            line.head_dim.to_string(),
            line.rows.to_string(),
            line.scheme.clone(),
            line.peer.clone(),
            format!("{:.3e}", line.rmse),
            format!("{:.3e}", line.relative),
            usual.map_or_else(String::new, |usual| format!("{:.3}", line.rmse / usual.rmse)),
        ]);
    }
    for column in [1, 2, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\nratio: to the RMSE of {} in {}\n", USUAL.1, USUAL.0)
}

/// Writes `<directory>/<gpu>/<date>-<commit>-errors.csv`.
///
/// # Errors
/// A message that names the file.
pub fn write(directory: &Path, origin: &Origin, all: &[Line]) -> Result<PathBuf, String> {
    let directory = directory.join(record::folder(&origin.gpu));
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("cannot write {}: {error}", directory.display()))?;
    let path = directory.join(format!("{}-{}-errors.csv", origin.date, origin.commit));
    csv_file::write(&path, all)?;
    Ok(path)
}
