//! Every variant on the emulator, over cases that touch every branch, under several schedules.

use check::emulator::Emulated;
use check::verify::{every_emulated_case, run_jobs};

#[test]
fn every_variant_on_the_emulator() {
    let records = run_jobs(&every_emulated_case(), &Emulated::new(vec![0, 1, 2]));
    let failed: Vec<String> = records
        .iter()
        .filter(|record| !record.outcome.passed())
        .map(|record| format!("{} {}: {}", record.entry, record.case, record.outcome.complaint()))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
