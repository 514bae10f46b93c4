//! Every variant on every case, on a GPU. Without one the test says so and checks nothing.

use std::io::Write;

use fulgurite::{Error, VARIANTS};
use tests::cases::cases;
use tests::gpu::Gpu;
use tests::verify::{Job, complaint, run_jobs};

#[test]
fn every_variant_on_every_case() {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(error @ (Error::NoDriver { .. } | Error::NoDevice { .. } | Error::NotBuilt { .. })) => {
            // Past the test harness, which shows nothing of tests that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no kernel was run: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let jobs: Vec<Job> = VARIANTS
        .iter()
        .flat_map(|variant| cases(variant).into_iter().map(move |case| Job { variant, case }))
        .collect();
    let records = run_jobs(&jobs, &gpu);
    let failed: Vec<String> = records
        .iter()
        .filter(|record| record.outcome.failed())
        .map(|record| format!("{} {}: {}", record.entry, record.case, complaint(&record.outcome)))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
