//! Every variant on the emulator, over cases that touch every branch, under several schedules.

use check::case::Job;
use check::emulator::Emulated;
use check::verify::{every_emulated_case, run_jobs};
use fulgurite::Arch;
use fulgurite::internals::VARIANTS_8BIT;

/// The schedules.
const SEEDS: [u64; 3] = [0, 1, 2];

/// Whether a case is one of 8 bits.
fn is_8bit(job: &Job) -> bool {
    VARIANTS_8BIT.iter().any(|row| row.entry == job.entry())
}

fn assert_all_pass(jobs: &[Job], seeds: &[u64]) {
    let records = run_jobs(jobs, &Emulated::new(seeds.to_vec()));
    let failed: Vec<String> = records
        .iter()
        .filter(|record| !record.outcome.passed())
        .map(|record| format!("{} {}: {}", record.entry, record.case, record.outcome.complaint()))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_variant_on_the_emulator() {
    let jobs = every_emulated_case(Arch::Sm90).into_iter().filter(|job| !is_8bit(job));
    // Kernels of f16 synchronise as those of bf16 do: of schedules one is enough for them.
    let (f16, bf16): (Vec<Job>, Vec<Job>) = jobs.partition(|job| job.entry().contains("_f16"));
    assert_all_pass(&bf16, &SEEDS);
    assert_all_pass(&f16, &SEEDS[..1]);
}

#[test]
fn every_variant_of_8_bits_on_the_emulator() {
    let jobs: Vec<Job> = every_emulated_case(Arch::Sm90).into_iter().filter(is_8bit).collect();
    assert_all_pass(&jobs, &SEEDS);
}
