//! Reads what `ptxas -v` says about one entry.

use crate::error::{Error, Result};

use super::sass::Counts;

/// Notes that mean a kernel is far from what it should be: `setmaxnreg` ignored, and wgmma
/// serialised for one reason or another.
const FATAL_CODES: [&str; 3] = ["C7508", "C7510", "C7520"];

/// Notes without harm: a `wgmma.fence` was added where control flow separates two groups.
const HARMLESS_CODES: [&str; 1] = ["C7519"];

/// Resources of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Name of the entry.
    pub entry: String,
    /// The same, with the GPU that it was compiled for if there are several and that is not the
    /// first.
    pub label: String,
    /// Registers of a thread at entry.
    pub registers: u32,
    /// Bytes of the stack frame.
    pub stack_bytes: u32,
    /// Bytes of registers stored to local memory.
    pub spill_store_bytes: u32,
    /// Bytes of registers loaded from local memory.
    pub spill_load_bytes: u32,
    /// Warnings and performance notes, each once.
    pub notes: Vec<String>,
    /// What is in its code, if that was counted.
    pub sass: Option<Counts>,
    /// Hash of its PTX.
    pub ptx: String,
}

impl Report {
    /// Reads the output of ptxas for a module with this one entry, whose PTX has this hash, and the
    /// line of its counts.
    pub fn read(entry: &str, text: &str, ptx: &str) -> Result<Report> {
        let unreadable = || Error::Unreadable {
            what: format!("ptxas's report on {entry}"),
            got: text.trim().to_string(),
        };
        if !text.contains(&format!("Compiling entry function '{entry}'")) {
            return Err(unreadable());
        }
        let number = |before: &str| {
            text.lines().find_map(|line| number_before(line, before)).ok_or_else(unreadable)
        };
        let mut notes: Vec<String> = Vec::new();
        for line in text.lines().filter(|line| is_note(line)) {
            let note = line.split_once(" : ").map_or(line, |(_, note)| note).trim().to_string();
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        Ok(Report {
            entry: entry.to_string(),
            label: entry.to_string(),
            registers: number(" registers")?,
            stack_bytes: number(" bytes stack frame")?,
            spill_store_bytes: number(" bytes spill stores")?,
            spill_load_bytes: number(" bytes spill loads")?,
            notes,
            sass: Counts::of_report(text),
            ptx: ptx.to_string(),
        })
    }

    /// Bytes spilled, stored and loaded.
    pub fn spill_bytes(&self) -> u32 {
        self.spill_store_bytes + self.spill_load_bytes
    }

    /// What must not be: one line each.
    pub fn problems(&self) -> Vec<String> {
        let entry = &self.label;
        let mut problems = Vec::new();
        if self.spill_bytes() > 0 {
            problems.push(format!(
                "{entry}: {} bytes of spill stores, {} of spill loads",
                self.spill_store_bytes, self.spill_load_bytes
            ));
        }
        if self.stack_bytes > 0 {
            problems.push(format!("{entry}: a stack frame of {} bytes", self.stack_bytes));
        }
        problems.extend(
            self.notes.iter().filter(|note| is_fatal(note)).map(|note| format!("{entry}: {note}")),
        );
        problems
    }

    /// The codes of the notes, for the table; a note without a code appears in full.
    pub fn note_codes(&self) -> Vec<String> {
        let mut codes: Vec<String> = Vec::new();
        for note in &self.notes {
            let code = code_of(note).unwrap_or(note).to_string();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        codes
    }
}

/// The number that stands before a text in a line, as in `Used 168 registers`.
fn number_before(line: &str, text: &str) -> Option<u32> {
    let (before, _) = line.split_once(text)?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn is_note(line: &str) -> bool {
    line.contains("warning") || line.contains("Potential Performance Loss") || line.contains("(C7")
}

/// `C7508` of `(C7508) Potential Performance Loss: …`.
fn code_of(note: &str) -> Option<&str> {
    let (code, _) = note.split_once("(C")?.1.split_once(')')?;
    let start = note.find("(C")? + 1;
    code.chars().all(|c| c.is_ascii_digit()).then(|| &note[start..start + 1 + code.len()])
}

fn is_fatal(note: &str) -> bool {
    match code_of(note) {
        Some(code) if HARMLESS_CODES.contains(&code) => false,
        Some(code) if FATAL_CODES.contains(&code) => true,
        _ => (note.contains("wgmma") && note.contains("serializ")) || note.contains("setmaxnreg"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'fwd_a' for 'sm_90a'
ptxas info    : Function properties for fwd_a
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 9 barriers
ptxas info    : Compile time = 45.296 ms
";

    fn with(line: &str) -> Report {
        Report::read("fwd_a", &format!("{TEXT}{line}\n{line}\n"), "0").expect("a report of ptxas")
    }

    #[test]
    fn a_clean_report_has_no_problems() {
        let report = Report::read("fwd_a", TEXT, "0").expect("a report of ptxas");
        assert_eq!((report.registers, report.stack_bytes, report.spill_bytes()), (168, 0, 0));
        assert_eq!(report.problems(), Vec::<String>::new());
        assert_eq!(report.notes, Vec::<String>::new());
    }

    #[test]
    fn spills_and_stack_frames_are_problems() {
        let text = TEXT.replace(
            "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
            "272 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads",
        );
        let report = Report::read("fwd_a", &text, "0").expect("a report of ptxas");
        assert_eq!(
            report.problems(),
            [
                "fwd_a: 16 bytes of spill stores, 24 of spill loads",
                "fwd_a: a stack frame of 272 bytes"
            ]
        );
    }

    #[test]
    fn fatal_notes_are_problems() {
        for line in [
            "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to \
             determine register count at entry.",
            "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are \
             serialized due to insufficient register resources",
            "ptxas info    : (C7520) Potential Performance Loss: wgmma.mma_async instructions are \
             serialized due to divergent control flow",
            "ptxas info    : (C7599) Potential Performance Loss: wgmma.mma_async instructions are \
             serialized for a new reason",
        ] {
            let report = with(line);
            assert_eq!(report.problems().len(), 1, "{line}");
            assert_eq!(report.note_codes().len(), 1, "{line}");
        }
    }

    #[test]
    fn harmless_notes_are_reported_only() {
        let report = with(
            "ptxas info    : (C7519) Potential Performance Loss: warpgroup.arrive is injected in \
             around line 9 by compiler to allow use of registers in GMMA",
        );
        assert_eq!(report.note_codes(), ["C7519"]);
        assert_eq!(report.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_report_on_another_entry_is_refused() {
        assert!(Report::read("fwd_b", TEXT, "0").is_err());
        assert!(Report::read("fwd_a", "ptxas fatal", "0").is_err());
    }
}
