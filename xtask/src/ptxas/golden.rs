//! The golden resource numbers: a change may make them better, worse ones need `--bless`.

use crate::error::{Error, Result};
use crate::workspace::{Workspace, write_if_changed};

use super::report::Report;

/// Numbers of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    entry: String,
    registers: u32,
    stack_bytes: u32,
    spill_bytes: u32,
}

/// The golden file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Golden {
    ptxas: String,
    lines: Vec<Line>,
}

/// Start of the line that names the ptxas of the numbers.
const PTXAS_MARK: &str = "# ptxas ";

impl Golden {
    fn parse(text: &str) -> std::result::Result<Golden, String> {
        let mut golden = Golden::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(version) = line.strip_prefix(PTXAS_MARK) {
                golden.ptxas = version.to_string();
            } else if !line.starts_with('#') {
                golden.lines.push(parse_line(line).ok_or_else(|| line.to_string())?);
            }
        }
        Ok(golden)
    }

    fn write(&self) -> String {
        let mut text = format!(
            "# Resources of every entry; worse numbers fail until `cargo xtask build --bless`.\n\
             {PTXAS_MARK}{}\n# entry registers stack_bytes spill_bytes\n",
            self.ptxas
        );
        for line in &self.lines {
            let Line { entry, registers, stack_bytes, spill_bytes } = line;
            text.push_str(&format!("{entry} {registers} {stack_bytes} {spill_bytes}\n"));
        }
        text
    }

    /// Takes over the numbers of the reports and keeps the others.
    fn absorb(&mut self, ptxas: &str, reports: &[Report]) {
        self.ptxas = ptxas.to_string();
        for report in reports {
            self.lines.retain(|line| line.entry != report.entry);
            self.lines.push(Line {
                entry: report.entry.clone(),
                registers: report.registers,
                stack_bytes: report.stack_bytes,
                spill_bytes: report.spill_bytes(),
            });
        }
        self.lines.sort_by(|a, b| a.entry.cmp(&b.entry));
    }

    /// What is worse than the golden numbers, and what there is to say besides.
    pub fn compare(&self, ptxas: &str, reports: &[Report]) -> (Vec<String>, Vec<String>) {
        if self.lines.is_empty() {
            return (Vec::new(), vec!["no golden numbers yet; --bless makes them".to_string()]);
        }
        let mut worse = Vec::new();
        let mut notes = Vec::new();
        if self.ptxas != ptxas {
            // Another ptxas gives out registers otherwise; spills are refused in any case.
            notes.push(format!(
                "the golden numbers are of ptxas {}, this is {ptxas}: not compared",
                self.ptxas
            ));
            return (worse, notes);
        }
        for report in reports {
            let Some(line) = self.lines.iter().find(|line| line.entry == report.entry) else {
                worse.push(format!("{}: no golden numbers; --bless makes them", report.entry));
                continue;
            };
            for (name, golden, now) in [
                ("registers", line.registers, report.registers),
                ("bytes of stack", line.stack_bytes, report.stack_bytes),
                ("bytes of spills", line.spill_bytes, report.spill_bytes()),
            ] {
                if now > golden {
                    let entry = &report.entry;
                    worse.push(format!("{entry}: {now} {name}, golden {golden}; see --bless"));
                }
            }
        }
        (worse, notes)
    }
}

fn parse_line(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    let parsed = Line {
        entry: words.next()?.to_string(),
        registers: words.next()?.parse().ok()?,
        stack_bytes: words.next()?.parse().ok()?,
        spill_bytes: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(parsed)
}

/// Reads the golden file; none has no lines.
pub fn read(workspace: &Workspace) -> Result<Golden> {
    let path = workspace.golden_resources();
    if !path.exists() {
        return Ok(Golden::default());
    }
    Golden::parse(&crate::workspace::read(&path)?)
        .map_err(|line| Error::Unreadable { what: format!("{}", path.display()), got: line })
}

/// Makes the reports golden.
pub fn bless(workspace: &Workspace, ptxas: &str, reports: &[Report]) -> Result<()> {
    let mut golden = read(workspace)?;
    golden.absorb(ptxas, reports);
    write_if_changed(&workspace.golden_resources(), &golden.write())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(entry: &str, registers: u32) -> Report {
        Report {
            entry: entry.to_string(),
            registers,
            stack_bytes: 0,
            spill_store_bytes: 0,
            spill_load_bytes: 0,
            notes: Vec::new(),
        }
    }

    fn golden() -> Golden {
        let mut golden = Golden::default();
        golden.absorb("13.0", &[report("fwd_b", 168), report("fwd_a", 168)]);
        golden
    }

    #[test]
    fn the_file_is_read_back() {
        assert_eq!(Golden::parse(&golden().write()), Ok(golden()));
        assert_eq!(Golden::parse("fwd_a 168 0"), Err("fwd_a 168 0".to_string()));
        assert_eq!(Golden::parse("fwd_a 168 0 0 0"), Err("fwd_a 168 0 0 0".to_string()));
    }

    #[test]
    fn worse_numbers_and_new_entries_fail() {
        let golden = golden();
        let worse = |reports: &[Report]| golden.compare("13.0", reports).0;
        assert_eq!(worse(&[report("fwd_a", 128)]), Vec::<String>::new());
        assert!(worse(&[report("fwd_a", 169)])[0].contains("169 registers, golden 168"));
        assert!(worse(&[report("fwd_c", 1)])[0].contains("fwd_c: no golden numbers"));
    }

    #[test]
    fn another_ptxas_is_not_compared() {
        let (worse, notes) = golden().compare("12.8", &[report("fwd_a", 255)]);
        assert_eq!((worse.len(), notes.len()), (0, 1));
    }
}
