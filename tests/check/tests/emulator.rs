//! Every variant on the emulator, over cases that touch every branch, under several schedules.

use check::case::Job;
use check::emulator::Emulated;
use check::verify::{every_emulated_case, run_jobs};
use fulgurite::Arch;
use fulgurite::internals::VARIANTS_8BIT;

/// Whether a case is one of 8 bits.
fn is_8bit(job: &Job) -> bool {
    VARIANTS_8BIT.iter().any(|row| row.entry == job.entry())
}

fn assert_all_pass(jobs: &[Job]) {
    let records = run_jobs(jobs, &Emulated::new(vec![0, 1, 2]));
    let failed: Vec<String> = records
        .iter()
        .filter(|record| !record.outcome.passed())
        .map(|record| format!("{} {}: {}", record.entry, record.case, record.outcome.complaint()))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_variant_on_the_emulator() {
    let jobs: Vec<Job> =
        every_emulated_case(Arch::Sm90).into_iter().filter(|job| !is_8bit(job)).collect();
    assert_all_pass(&jobs);
}

#[test]
fn every_variant_of_8_bits_on_the_emulator() {
    let jobs: Vec<Job> = every_emulated_case(Arch::Sm90).into_iter().filter(is_8bit).collect();
    assert_all_pass(&jobs);
}
