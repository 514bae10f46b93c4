//! Every variant on the emulator, over cases that touch every branch, under several schedules.

use check::emulator::Emulated;
use check::forward::cases::emulated_cases as cases;
use check::verify::{Job, complaint, run_jobs};
use fulgurite::VARIANTS;

#[test]
fn every_variant_on_the_emulator() {
    let jobs: Vec<Job> = VARIANTS
        .iter()
        .flat_map(|variant| cases(variant).into_iter().map(move |case| Job { variant, case }))
        .collect();
    let records = run_jobs(&jobs, &Emulated::new(vec![0, 1, 2]));
    let failed: Vec<String> = records
        .iter()
        .filter(|record| !record.outcome.passed())
        .map(|record| format!("{} {}: {}", record.entry, record.case, complaint(&record.outcome)))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
