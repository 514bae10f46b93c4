//! `verify` on the emulator: the kernels run, on small cases, whether there is a GPU or not.

use std::time::Instant;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use fulgurite::VARIANTS;

use super::{Job, Options, Tally, run_jobs};
use crate::cases::Case;
use crate::emulator::{BUDGET, Counted, Emulated, products};

/// Schedules for every case, if nothing else is asked for: one of each kind.
pub const SCHEDULES: u64 = 3;

/// Runs the small cases, and those of the full list that are not too long, on the emulator.
pub fn verify(small: Vec<Job>, full: Vec<Job>, options: &Options, tally: &mut Tally) {
    let seeds = options.seeds();
    println!("On the emulator, under schedules {seeds:?}, every synchronisation checked:");
    let (fits, long): (Vec<Job>, Vec<Job>) = full.into_iter().partition(|job| {
        let Case { batch, heads, q_len, kv_len, head_dim, .. } = job.case;
        products([batch, heads.0, q_len, head_dim], kv_len) <= BUDGET
    });
    let mut jobs = [small, fits].concat();
    jobs.sort_by_key(|job| VARIANTS.iter().position(|variant| variant == job.variant));
    if !long.is_empty() {
        println!("  {} of the cases for a GPU are too long for it and left out", long.len());
    }
    let start = Instant::now();
    let emulated = Emulated::new(seeds);
    let records = run_jobs(&jobs, &emulated);
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
