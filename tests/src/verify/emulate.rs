//! `verify` on the emulator: the kernels run, on small cases, whether there is a GPU or not.

use std::time::Instant;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use super::{Job, Options, Tally, run_jobs};
use crate::emulator::{Counted, Emulated};

/// Schedules for every case, if nothing else is asked for: one of each kind.
pub const SCHEDULES: u64 = 3;

/// Runs every job on the emulator under the schedules that are asked for.
pub fn verify(jobs: &[Job], options: &Options, tally: &mut Tally) {
    let seeds = options.seeds();
    println!("On the emulator, under schedules {seeds:?}, every synchronisation checked:");
    let start = Instant::now();
    let emulated = Emulated::new(seeds);
    let records = run_jobs(jobs, &emulated);
    tally.add_records(records);
    println!("  {} cases in {:.1} s", jobs.len(), start.elapsed().as_secs_f64());
    if options.stats {
        print_stats(emulated.counts());
    }
}

/// What the kernels do for one query tile against one KV tile, from the longest case.
pub fn print_stats(mut counts: Vec<Counted>) {
    counts.sort_by_key(|counted| (counted.entry, std::cmp::Reverse(counted.tiles)));
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "variant",
        "tiles",
        "wgmma / tile",
        "TMA bytes / tile",
        "barrier operations / tile",
        "steps",
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
