//! `verify` on the emulator: the kernels run, on small cases, whether there is a GPU or not.

use std::time::Instant;

use comfy_table::{Cell, CellAlignment};

use fulgurite::Dtype;
use fulgurite::internals::VARIANTS;
use reference::tensor::{Tensor, decode};

use super::{Options, run_jobs};
use crate::call::Launch;
use crate::case::{Job, Needs};
use crate::device::{Device, Ran};
use crate::emulator::{BUDGET, Counted, Emulated};
use crate::report::{Tally, Who};

/// Schedules for every case, if nothing else is asked for: one of each kind.
pub const SCHEDULES: u64 = 3;

/// Runs the small cases on the emulator under every schedule that is asked for, and those of the
/// full list that are not too long under the first.
pub fn verify(small: &[Job], full: Vec<Job>, options: &Options, tally: &mut Tally) {
    let seeds = options.seeds();
    let first = Emulated::new(seeds[..1].to_vec());
    println!("On the emulator, under schedules {seeds:?}, every synchronisation checked:");
    let emulated = Emulated::new(seeds);
    run(small, "small cases", &emulated, tally);
    let (fits, long): (Vec<Job>, Vec<Job>) =
        full.into_iter().partition(|job| job.needs() == Needs::Nothing && job.products() <= BUDGET);
    run(&fits, "cases of the list for GPUs (under the first schedule)", &first, tally);
    if !long.is_empty() {
        println!("  {} of that list need a GPU or more speed and were left out", long.len());
    }
    if options.stats {
        print_stats(emulated.counts());
    }
}

fn run(jobs: &[Job], what: &str, backend: &Emulated, tally: &mut Tally) {
    let start = Instant::now();
    tally.add_records(Who::Emulator, run_jobs(jobs, backend));
    println!("  {} {what} in {:.1} s", jobs.len(), start.elapsed().as_secs_f64());
}

/// Runs the small cases on the emulator and on a GPU and compares the outputs: apart from the
/// order of sums inside the tensor core and its approximate functions both compute the same. Such
/// a last bit of float32 can turn a rounding to 16 bits the other way, and there are two of them,
/// the probabilities' and the final store's: two units in the last place. Kernels of 8 bits are
/// left out: a probability of e4m3 that is rounded the other way shows by an eighth of its key's
/// part of the output. So are gradients, which may be differences of nearly equal sums. Both
/// devices are judged by the same rules, on the same numbers.
pub fn compare_with(gpu: &dyn Device, jobs: &[Job]) -> Result<(), String> {
    let emulated = Emulated::new(vec![1]);
    // In units in the last place of the type, so that the types can be compared.
    let mut largest = (0.0_f64, String::new());
    let is_compared = |job: &&Job| VARIANTS.iter().any(|row| row.entry == job.entry());
    for case in jobs.iter().filter(is_compared) {
        for fresh in case.launches() {
            let (mut here, mut there) = (fresh.clone(), fresh);
            emulated.run(&mut here)?;
            if let Ran::Skipped(reason) = gpu.run(&mut there)? {
                return Err(reason);
            }
            let units = difference(&here, &there)?;
            if units >= largest.0 {
                largest = (units, format!("{} {}", case.entry(), case.name()));
            }
        }
    }
    let (units, place) = largest;
    let said = format!("differ by {units:.3} units in the last place at most ({place})");
    println!("  emulator and GPU {said}");
    if units <= 2.0 { Ok(()) } else { Err(format!("{said}, more than 2")) }
}

/// Largest difference of what two launches wrote, in units in the last place of its type.
fn difference(here: &Launch, there: &Launch) -> Result<f64, String> {
    here.memory.check_written()?;
    there.memory.check_written()?;
    let mut largest = 0.0_f64;
    for written in here.memory.written() {
        let unit = match written.place.layout.dtype {
            Dtype::Bf16 => 2.0_f64.powi(-7),
            Dtype::F16 => 2.0_f64.powi(-10),
            other => panic!("no kernel has elements of {}", other.name()),
        };
        let [here, there] = [here, there].map(|launch| launch.memory.tensor(written.name));
        largest = largest.max(relative_difference(&here, &there) / unit);
    }
    Ok(largest)
}

/// Largest difference of two outputs, relative to the larger of the element and its row's root
/// mean square: sums that nearly cancel have errors of that size.
fn relative_difference(a: &Tensor, b: &Tensor) -> f64 {
    let head_dim = a.layout.shape[3];
    let decode = |bits: &u16| f64::from(decode(a.layout.dtype, *bits));
    let mut largest = 0.0_f64;
    for (a, b) in a.bits.chunks(head_dim).zip(b.bits.chunks(head_dim)) {
        let mean = a.iter().map(|x| decode(x) * decode(x)).sum::<f64>() / head_dim as f64;
        for (x, y) in a.iter().map(decode).zip(b.iter().map(decode)) {
            let scale = x.abs().max(mean.sqrt());
            if scale > 0.0 || y != 0.0 {
                largest = largest.max((x - y).abs() / scale);
            }
        }
    }
    largest
}

/// What the kernels do for one query tile against one KV tile, from the longest case.
pub fn print_stats(mut counts: Vec<Counted>) {
    counts.sort_by_key(|counted| (counted.entry, std::cmp::Reverse(counted.tiles)));
    let mut table = output::table([
        "per tile, of variant",
        "tiles",
        "wgmma",
        "TMA bytes",
        "barrier ops",
        "steps in all",
    ]);
    for of_variant in counts.chunk_by(|a, b| a.entry == b.entry) {
        let Counted { entry, tiles, outcome } = &of_variant[0];
        let stats = &outcome.stats;
        let per_tile = |count: u64| format!("{:.1}", count as f64 / *tiles as f64);
        let cells = [
            tiles.to_string(),
            per_tile(stats.products),
            per_tile(stats.copy_bytes),
            per_tile(stats.barrier_operations),
            stats.steps.to_string(),
        ];
        let right = |cell: String| Cell::new(cell).set_alignment(CellAlignment::Right);
        let row = std::iter::once(Cell::new(entry)).chain(cells.into_iter().map(right));
        table.add_row(row);
    }
    println!("{table}");
}
