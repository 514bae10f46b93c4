//! What `verify` prints and writes.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

use super::complaint;
use crate::check::Outcome;
use crate::compare::{Finding, Rule};
use crate::csv_file;

/// What became of one case of one variant.
#[derive(Clone, Debug)]
pub struct Record {
    /// The kernel.
    pub entry: String,
    /// The case.
    pub case: String,
    /// What was found.
    pub outcome: Outcome,
}

/// One line of the CSV and JSON reports.
#[derive(Serialize)]
struct Line<'a> {
    entry: &'a str,
    case: &'a str,
    result: &'a str,
    rule: &'a str,
    value: Option<f64>,
    limit: Option<f64>,
    detail: String,
}

/// Counts and records of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases and checks that passed.
    pub passed: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those that could not run.
    pub skipped: usize,
    records: Vec<Record>,
}

impl Tally {
    /// Counts and prints a check that is no case.
    pub fn add_check(&mut self, name: &str, result: &Result<(), String>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("  ok      {name}");
            }
            Err(reason) => {
                self.failed += 1;
                println!("  FAILED  {name}: {reason}");
            }
        }
    }

    /// Counts cases; prints those that failed, and why others were skipped.
    pub fn add_records(&mut self, records: Vec<Record>) {
        let mut skipped: BTreeMap<&str, (usize, &Record)> = BTreeMap::new();
        for record in &records {
            match &record.outcome {
                outcome if outcome.passed() => self.passed += 1,
                Outcome::Skipped(reason) => {
                    self.skipped += 1;
                    skipped.entry(reason).or_insert((0, record)).0 += 1;
                }
                outcome => {
                    self.failed += 1;
                    println!("  FAILED  {} {}: {}", record.entry, record.case, complaint(outcome));
                }
            }
        }
        for (reason, (count, first)) in skipped {
            let others =
                if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
            println!("  skipped {} {}{others}: {reason}", first.entry, first.case);
        }
        self.records.extend(records);
    }

    /// The last line of a run.
    pub fn summary(&self) -> String {
        let mut text = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            text += &format!(", {} skipped", self.skipped);
        }
        text
    }

    /// Prints one row per variant: how many cases, and the worst error of each kind.
    pub fn print_table(&self) {
        if self.records.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_header([
            "variant",
            "cases",
            "failed",
            "rms error / limit",
            "element / limit",
            "lse / limit",
            "nearest to a limit",
        ]);
        for records in self.records.chunk_by(|a, b| a.entry == b.entry) {
            let failed = records.iter().filter(|record| record.outcome.failed()).count();
            let worst = |rule| Cell::new(worst_text(records, Some(rule)));
            table.add_row([
                Cell::new(&records[0].entry),
                Cell::new(records.len()).set_alignment(CellAlignment::Right),
                Cell::new(failed).set_alignment(CellAlignment::Right),
                worst(Rule::Rms),
                worst(Rule::Element),
                worst(Rule::Lse),
                Cell::new(worst_case(records)),
            ]);
        }
        println!("{table}");
    }

    /// Writes the reports that are asked for.
    ///
    /// # Errors
    /// A message that names the file.
    pub fn write(&self, csv: Option<&Path>, json: Option<&Path>) -> Result<(), String> {
        if let Some(path) = csv {
            csv_file::write(path, self.lines())?;
        }
        if let Some(path) = json {
            let at = |error: String| format!("cannot write {}: {error}", path.display());
            let lines: Vec<Line> = self.lines().collect();
            let text = serde_json::to_string_pretty(&lines).map_err(|e| at(e.to_string()))?;
            std::fs::write(path, text).map_err(|e| at(e.to_string()))?;
        }
        Ok(())
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.records.iter().flat_map(record_lines)
    }
}

fn record_lines(record: &Record) -> Vec<Line<'_>> {
    let line = |result, detail| Line {
        entry: &record.entry,
        case: &record.case,
        result,
        rule: "",
        value: None,
        limit: None,
        detail,
    };
    match &record.outcome {
        Outcome::Skipped(reason) => vec![line("skipped", reason.clone())],
        Outcome::Failed(reason) => vec![line("failed", reason.clone())],
        Outcome::Ran(findings) => {
            let finding_line = |finding: &Finding| Line {
                rule: finding.rule.name(),
                value: Some(finding.value),
                limit: Some(finding.limit),
                ..line(if finding.passed() { "passed" } else { "failed" }, String::new())
            };
            findings.iter().map(finding_line).collect()
        }
    }
}

/// The finding nearest to (or farthest beyond) its limit, and its case.
fn worst(records: &[Record], rule: Option<Rule>) -> Option<(&Record, &Finding)> {
    let findings = records.iter().flat_map(|record| match &record.outcome {
        Outcome::Ran(findings) => findings.iter().map(|finding| (record, finding)).collect(),
        _ => Vec::new(),
    });
    findings
        .filter(|(_, finding)| rule.is_none_or(|rule| finding.rule == rule))
        .max_by(|(_, a), (_, b)| a.severity().total_cmp(&b.severity()))
}

fn worst_text(records: &[Record], rule: Option<Rule>) -> String {
    worst(records, rule).map_or(String::new(), |(_, finding)| {
        format!("{:.2e} / {:.2e}", finding.value, finding.limit)
    })
}

fn worst_case(records: &[Record]) -> String {
    worst(records, None).map_or(String::new(), |(record, finding)| {
        format!("{}: {}", finding.rule.name(), record.case)
    })
}
