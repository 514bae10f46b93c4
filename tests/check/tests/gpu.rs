//! Every variant on every case, on a GPU. Without one the test says so and checks nothing, or fails
//! if `FULGURITE_REQUIRE_GPU` is set.

use std::io::Write;

use check::gpu;
use check::verify::{every_case, run_jobs};
use fulgurite::Arch;

#[test]
fn every_variant_on_every_case() {
    let gpu = match gpu::find(0, gpu::is_required()) {
        Ok(Ok(gpu)) => gpu,
        Ok(Err(reason)) => {
            // Past the test harness, which shows nothing of tests that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no kernel was run: {reason}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let records = run_jobs(&every_case(Arch::Sm90), &gpu);
    let failed: Vec<String> = records
        .iter()
        .filter(|record| record.outcome.failed())
        .map(|record| format!("{} {}: {}", record.entry, record.case, record.outcome.complaint()))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
