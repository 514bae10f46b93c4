//! The page of all devices' records: `BENCHMARKS.md`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::facts::{Earlier, Facts};
use super::grid::{Cell, DtypeName};
use super::measurement::{Measurement, OURS};
use super::section::{self, RECORDS};

/// The page in a checkout.
const PAGE: &str = "BENCHMARKS.md";

/// What the page says before its figures.
const HEAD: &str = r#"# What was measured

Written by `cargo xtask bench --page` from the newest record of each GPU in `xtask/record/`; a test
says when it is out of date. What was tried on the way, also what failed, is in
[kernels/PERFORMANCE.md](kernels/PERFORMANCE.md); there too what peaked scores cost.

**Peers**: FlashAttention-3 (`fa3`), FlashAttention-4 on its Hopper path (`fa4`), cuDNN and
FlashAttention-2 as PyTorch has them (`sdpa-cudnn`, `sdpa-fa2`). A *cell* is one call: element
type, head dim, mask, lengths, heads.

**The rule, the same for all**: 16384 tokens, hidden size 2048, CUDA events around each call, 256
MB written before it to empty the L2, 24 calls, the median. Implementations take turns in rounds of
one call each, in an order drawn anew for every round: a GPU at its power cap gives a higher clock
to whoever follows a call of low power, and fixed neighbours shift ratios by 2 %. (Where 24 rounds
would take more than 8 s, as at 128k keys, there are fewer.) The host runs ahead of the GPU; calls
before which the GPU may have waited are counted: `calls` and `late` in the file of every time.
FLOPs are 4 · tokens · kv_len · hidden, half of that for causal masks.

Before a cell is timed, every implementation's output is compared with attention in float64 in 256
rows spread over heads and lengths (`tests/bench/peers/reference.py` has the limits). cuBLAS
multiplies random bf16 matrices of 8192 rows and columns, several times over the run, in the same
process and by the same rule; it is power-capped as all else, so that it is no bound.

**8 bits** (`s8e4m3`): tensors in bf16, which each of our calls quantises; that is in its time. The
peers, FlashAttention-3 and cuDNN in e4m3 (`fa3-fp8`, `cudnn-fp8`), get tensors that PyTorch
quantised before, with a scale for each KV head and for each tensor; cuDNN's output is e4m3 too.
`cargo xtask bench --errors` compares the errors of all on outliers, long rows with biased values
and a language model's tensors; its records are `…-errors.csv`.

**The error** against float64, on random normal data, is at most 1.05 times that of the best peer
of the cell. It would be 1.00 if every step followed the largest score; that most do not is where
some of the speed comes from ([ARCHITECTURE.md](ARCHITECTURE.md)).
"#;

/// Writes the page of a checkout from its records; returns where.
///
/// # Errors
/// A message if a file cannot be read or written.
pub fn write_page(checkout: &Path) -> Result<PathBuf, String> {
    let path = checkout.join(PAGE);
    std::fs::write(&path, page(&newest(checkout)?))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

/// The newest record of each device for every dtype that was measured on its grid: those with bf16
/// first, and of them those of more cells.
///
/// # Errors
/// A message if one cannot be read, or there is none.
pub fn newest(checkout: &Path) -> Result<Vec<(Facts, Vec<Measurement>)>, String> {
    let records = checkout.join(RECORDS);
    let list = |directory: &Path| -> Result<Vec<PathBuf>, String> {
        let at = |error: std::io::Error| format!("{}: {error}", directory.display());
        let entries = std::fs::read_dir(directory).map_err(at)?;
        entries.map(|entry| Ok(entry.map_err(at)?.path())).collect()
    };
    let mut all = Vec::new();
    for device in list(&records)?.iter().filter(|path| path.is_dir()) {
        let is_record = |path: &PathBuf| path.extension().is_some_and(|it| it == "json");
        let mut paths: Vec<PathBuf> = list(device)?.into_iter().filter(is_record).collect();
        // Names begin with the day.
        paths.sort_unstable_by(|a, b| b.cmp(a));
        let mut found = BTreeSet::new();
        for path in paths {
            let record = Earlier::read(&path)?;
            let dtypes = dtypes(&record.times);
            if !dtypes.is_subset(&found) {
                found.extend(dtypes);
                all.push((record.facts, record.times));
            }
        }
    }
    if all.is_empty() {
        return Err(format!("{} holds no record with a .json", records.display()));
    }
    all.sort_by_key(|(facts, times)| {
        (!has_bf16(times), std::cmp::Reverse(times.len()), facts.origin.gpu.clone())
    });
    Ok(all)
}

/// The page of some records. Its links are those of a file in the checkout's top directory.
pub fn page(records: &[(Facts, Vec<Measurement>)]) -> String {
    let sections = records.iter().map(|(facts, all)| {
        let mut heading = facts.origin.gpu.clone();
        if !has_bf16(all) {
            heading.extend(dtypes(all).iter().map(|dtype| format!(", {dtype}")));
        }
        format!("\n## {heading}\n\n{}", section::markdown(facts, all))
    });
    HEAD.to_owned() + &sections.collect::<String>()
}

fn has_bf16(all: &[Measurement]) -> bool {
    dtypes(all).contains(&DtypeName::Bf16)
}

/// What ours were measured in on the grid.
fn dtypes(all: &[Measurement]) -> BTreeSet<DtypeName> {
    let ours = all.iter().filter(|time| time.peer == OURS);
    ours.filter_map(Measurement::cell).filter(Cell::is_main).map(|cell| cell.dtype).collect()
}
