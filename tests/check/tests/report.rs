//! What `verify` says at its end: sums by who computed, in 100 columns.

use check::case::Summary;
use check::forward::cases::cases;
use check::report::{Record, Tally, Who};
use check::rules::{Finding, Rule};
use fulgurite::internals::VARIANTS;

/// One record for every variant and case, each with the same findings.
fn records(value: f64) -> Vec<Record> {
    let finding = |rule| Finding { rule, value, limit: 1.0, row: None };
    let findings: Vec<Finding> =
        [Rule::Rms, Rule::Element, Rule::Bound, Rule::Lse].map(finding).to_vec();
    let record = |entry: &str, case: String| Record {
        entry: entry.to_owned(),
        case,
        outcome: Summary::Ran(findings.clone()),
    };
    let of = |variant| cases(variant).into_iter().map(|case| record(variant.entry, case.name));
    VARIANTS.iter().flat_map(of).collect()
}

#[test]
fn a_model_is_not_counted_as_a_kernel() {
    let mut tally = Tally::default();
    let all = records(0.5);
    let count = all.len();
    tally.add_records(Who::Model, all.clone());
    tally.add_records(Who::Emulator, all[..7].to_vec());
    let summary = tally.summary();
    assert!(summary.contains("cases on the emulator: 7 passed, 0 failed"), "{summary}");
    let model = format!("cases on a model (no kernel ran): {count} passed, 0 failed");
    assert!(summary.contains(&model), "{summary}");
    assert!(!summary.contains(&(count + 7).to_string()), "{summary}");
    assert!(tally.passed());
    tally.add_records(Who::Emulator, records(2.0)[..1].to_vec());
    assert!(!tally.passed());
    assert!(tally.summary().contains("cases on the emulator: 7 passed, 1 failed"));
}

#[test]
fn nothing_is_no_success() {
    assert!(!Tally::default().passed());
}

#[test]
fn tables_fit_100_columns() {
    for value in [0.5, 1234.5, f64::NAN, f64::INFINITY] {
        let mut tally = Tally::default();
        tally.add_records(Who::Gpu("NVIDIA H100 80GB HBM3".to_owned()), records(value));
        for line in tally.tables().lines().chain(tally.summary().lines()) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
