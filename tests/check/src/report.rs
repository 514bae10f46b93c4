//! What `verify` prints and writes, by who computed.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

use crate::case::{Case, Summary};
use crate::csv_file;
use crate::rules::{Finding, Rule};

/// Who computed what was compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The kernels, on the GPU of this name.
    Gpu(String),
    /// The kernels, on the emulator.
    Emulator,
    /// A float32 model of a right kernel: this checks cases and rules, and no kernel.
    Model,
}

impl Who {
    /// The name in tables, files and sums.
    pub fn name(&self) -> &str {
        match self {
            Who::Gpu(name) => name,
            Who::Emulator => "the emulator",
            Who::Model => "a model (no kernel ran)",
        }
    }
}

/// What became of one case of one variant.
#[derive(Clone, Debug)]
pub struct Record {
    /// The kernel that the case is for.
    pub entry: String,
    /// The case.
    pub case: String,
    /// What was found.
    pub outcome: Summary,
}

impl Record {
    /// What became of this case.
    pub fn of(case: &dyn Case, outcome: Summary) -> Record {
        Record { entry: case.entry().to_owned(), case: case.name().to_owned(), outcome }
    }
}

/// One line of the CSV and JSON reports.
#[derive(Serialize)]
struct Line<'a> {
    by: &'a str,
    entry: &'a str,
    case: &'a str,
    result: &'a str,
    rule: &'a str,
    value: Option<f64>,
    limit: Option<f64>,
    detail: String,
}

/// How many passed, failed, and could not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What passed.
    pub passed: usize,
    /// What failed.
    pub failed: usize,
    /// What could not run.
    pub skipped: usize,
}

impl Counts {
    fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Counts {
        let mut counts = Counts::default();
        for record in records {
            match &record.outcome {
                outcome if outcome.passed() => counts.passed += 1,
                Summary::Skipped(_) => counts.skipped += 1,
                _ => counts.failed += 1,
            }
        }
        counts
    }

    fn text(&self) -> String {
        let mut text = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            text += &format!(", {} skipped", self.skipped);
        }
        text
    }
}

/// Counts and records of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    checks: Counts,
    records: BTreeMap<Who, Vec<Record>>,
}

impl Tally {
    /// Counts and prints a check that is no case.
    pub fn add_check(&mut self, name: &str, result: &Result<(), String>) {
        match result {
            Ok(()) => {
                self.checks.passed += 1;
                println!("  ok      {name}");
            }
            Err(reason) => {
                self.checks.failed += 1;
                println!("  FAILED  {name}: {reason}");
            }
        }
    }

    /// Takes cases that `who` computed; prints those that failed, and why others were skipped.
    pub fn add_records(&mut self, who: Who, records: Vec<Record>) {
        let mut skipped: BTreeMap<&str, (usize, &Record)> = BTreeMap::new();
        for record in &records {
            match &record.outcome {
                Summary::Skipped(reason) => skipped.entry(reason).or_insert((0, record)).0 += 1,
                outcome if outcome.failed() => {
                    println!("  FAILED  {} {}: {}", record.entry, record.case, outcome.complaint());
                }
                _ => {}
            }
        }
        for (reason, (count, first)) in skipped {
            let others =
                if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
            println!("  skipped {} {}{others}: {reason}", first.entry, first.case);
        }
        let all = self.records.entry(who).or_default();
        all.extend(records);
        all.sort_by(|a, b| a.entry.cmp(&b.entry));
    }

    /// Whether something ran and nothing failed.
    pub fn passed(&self) -> bool {
        let cases = Counts::of(self.records.values().flatten());
        self.checks.failed + cases.failed == 0 && self.checks.passed + cases.passed > 0
    }

    /// The last lines of a run: a sum for each who computed, and none over all, since a model that
    /// passes says nothing of a kernel.
    pub fn summary(&self) -> String {
        let of_cases = |(who, records): (&Who, &Vec<Record>)| {
            format!("cases on {}: {}", who.name(), Counts::of(records.iter()).text())
        };
        let mut lines: Vec<String> = self.records.iter().map(of_cases).collect();
        lines.push(format!("other checks: {}", self.checks.text()));
        lines.join("\n")
    }

    /// For each who computed, a table with a row per variant: how many cases, the worst error of
    /// each kind over its limit, and below it what came nearest to a limit.
    pub fn tables(&self) -> String {
        let table = |(who, records): (&Who, &Vec<Record>)| {
            let nearest = match worst(records, None) {
                Some((record, finding)) => {
                    let (rule, share) = (finding.rule.name(), share_text(finding.severity()));
                    format!(
                        "\nnearest to a limit, {share} of it ({rule}):\n  {} {}",
                        record.entry, record.case
                    )
                }
                None => String::new(),
            };
            format!("Computed by {}:\n{}{nearest}", who.name(), table_of(records))
        };
        self.records.iter().map(table).collect::<Vec<_>>().join("\n")
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
        let all = self.records.iter();
        let all = all.flat_map(|(who, records)| records.iter().map(|record| (who.name(), record)));
        all.flat_map(|(by, record)| record_lines(by, record))
    }
}

fn table_of(records: &[Record]) -> Table {
    let columns = ["variant", "cases", "failed", "rms (of limit)", "element", "bound", "lse"];
    let mut table = output::table(columns);
    for records in records.chunk_by(|a, b| a.entry == b.entry) {
        let share = |rule| worst(records, Some(rule)).map(|(_, finding)| finding.severity());
        let share = |rule| share(rule).map_or(String::new(), share_text);
        let rms = worst(records, Some(Rule::Rms)).map_or(String::new(), |(_, finding)| {
            format!("{:.2e} ({})", finding.value, share_text(finding.severity()))
        });
        let cells = [
            records.len().to_string(),
            Counts::of(records.iter()).failed.to_string(),
            rms,
            share(Rule::Element),
            share(Rule::Bound),
            share(Rule::Lse),
        ];
        let right = |cell: String| Cell::new(cell).set_alignment(CellAlignment::Right);
        let name = std::iter::once(Cell::new(&records[0].entry));
        table.add_row(name.chain(cells.into_iter().map(right)));
    }
    table
}

/// A value over its limit: short also where it is far beyond.
fn share_text(share: f64) -> String {
    if share < 100.0 { format!("{share:.2}") } else { format!("{share:.0e}") }
}

fn record_lines<'a>(by: &'a str, record: &'a Record) -> Vec<Line<'a>> {
    let line = |result, detail| Line {
        by,
        entry: &record.entry,
        case: &record.case,
        result,
        rule: "",
        value: None,
        limit: None,
        detail,
    };
    match &record.outcome {
        Summary::Skipped(reason) => vec![line("skipped", reason.clone())],
        Summary::Failed(reason) => vec![line("failed", reason.clone())],
        Summary::Ran(findings) => {
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
        Summary::Ran(findings) => findings.iter().map(|finding| (record, finding)).collect(),
        _ => Vec::new(),
    });
    findings
        .filter(|(_, finding)| rule.is_none_or(|rule| finding.rule.plain() == rule))
        .max_by(|(_, a), (_, b)| a.severity().total_cmp(&b.severity()))
}
