//! The golden resource numbers: a change may make them better, worse ones need `--bless`.

use fulgurite_spec::KERNELS;

use crate::error::{Error, Result};
use crate::workspace::{Workspace, write_if_changed};

use super::report::Report;
use super::sass;

/// Names of the numbers of an entry: what ptxas reports, then what is counted in the code.
const NAMES: [&str; 8] = [
    "registers",
    "stack_bytes",
    "spill_bytes",
    sass::NAMES[0],
    sass::NAMES[1],
    sass::NAMES[2],
    sass::NAMES[3],
    sass::NAMES[4],
];

/// Those that are the same whichever compiler made the PTX: another one orders and allots
/// otherwise, so that lengths of code and moves between registers differ by some percent.
const OF_ANY_COMPILER: [&str; 5] = ["registers", "stack_bytes", "spill_bytes", "MUFU", "HGMMA"];

/// What the numbers depend on besides the PTX.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Makers {
    /// Release of the ptxas.
    pub ptxas: String,
    /// What the kernel compiler says its version is.
    pub compiler: String,
}

/// Numbers of one entry, or of one compiled for another GPU than its first, in the order of
/// [`NAMES`], and the hash of its PTX.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    entry: String,
    numbers: [u32; 8],
    ptx: String,
}

/// The golden file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Golden {
    makers: Makers,
    lines: Vec<Line>,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Numbers that are worse.
    pub worse: Vec<String>,
    /// Entries whose PTX is not that of the golden numbers, by the same compiler.
    pub other_ptx: Vec<String>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// Starts of the lines that name the makers.
const PTXAS_MARK: &str = "# ptxas ";
const COMPILER_MARK: &str = "# compiler ";

impl Line {
    /// The numbers of a report; none if its code was not counted.
    fn of(report: &Report) -> Option<Line> {
        let Report { label: entry, registers, stack_bytes, .. } = report;
        let [a, b, c, d, e] = report.sass?.numbers();
        let numbers = [*registers, *stack_bytes, report.spill_bytes(), a, b, c, d, e];
        Some(Line { entry: entry.clone(), numbers, ptx: report.ptx.clone() })
    }

    fn parse(line: &str) -> Option<Line> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [entry, numbers @ .., ptx] = &words[..] else { return None };
        let numbers: Vec<u32> =
            numbers.iter().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let numbers = numbers.try_into().ok()?;
        Some(Line { entry: entry.to_string(), numbers, ptx: ptx.to_string() })
    }
}

impl Golden {
    fn parse(text: &str) -> std::result::Result<Golden, String> {
        let mut golden = Golden::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(version) = line.strip_prefix(PTXAS_MARK) {
                golden.makers.ptxas = version.to_string();
            } else if let Some(version) = line.strip_prefix(COMPILER_MARK) {
                golden.makers.compiler = version.to_string();
            } else if !line.starts_with('#') {
                golden.lines.push(Line::parse(line).ok_or_else(|| line.to_string())?);
            }
        }
        Ok(golden)
    }

    fn write(&self) -> String {
        let Makers { ptxas, compiler } = &self.makers;
        let mut text = format!(
            "# Resources of every entry; worse numbers fail until `cargo xtask build --bless`.\n\
             {PTXAS_MARK}{ptxas}\n{COMPILER_MARK}{compiler}\n# entry {} ptx\n",
            NAMES.join(" ")
        );
        for Line { entry, numbers, ptx } in &self.lines {
            let numbers = numbers.map(|number| number.to_string()).join(" ");
            text.push_str(&format!("{entry} {numbers} {ptx}\n"));
        }
        text
    }

    /// Takes over the numbers of the reports, and keeps those of other entries that `exists` holds
    /// for; the makers of those must be the same.
    fn absorb(
        &mut self,
        makers: &Makers,
        reports: &[Report],
        exists: impl Fn(&str) -> bool,
    ) -> std::result::Result<(), String> {
        let now = |entry: &str| reports.iter().any(|report| report.label == entry);
        self.lines.retain(|line| exists(&line.entry) && !now(&line.entry));
        if !self.lines.is_empty() && self.makers != *makers {
            let Makers { ptxas, compiler } = &self.makers;
            return Err(format!(
                "the golden numbers of the other entries are of ptxas {ptxas} and {compiler}: \
                 --bless all, without --variant"
            ));
        }
        self.makers = makers.clone();
        for report in reports {
            self.lines.push(Line::of(report).ok_or_else(|| {
                format!("--bless counts in the code, and needs nvdisasm; {}", super::find::ADVICE)
            })?);
        }
        self.lines.sort_by(|a, b| a.entry.cmp(&b.entry));
        Ok(())
    }

    /// What differs from the golden numbers.
    pub fn compare(&self, makers: &Makers, reports: &[Report]) -> Findings {
        let mut found = Findings::default();
        if self.lines.is_empty() {
            found.notes.push("no golden numbers yet; --bless makes them".to_string());
            return found;
        }
        if self.makers.ptxas != makers.ptxas {
            // Another ptxas gives out registers otherwise; spills are refused in any case.
            found.notes.push(format!(
                "the golden numbers are of ptxas {}, this is {}: not compared",
                self.makers.ptxas, makers.ptxas
            ));
            return found;
        }
        let same_compiler = self.makers.compiler == makers.compiler;
        if !same_compiler {
            found.notes.push(format!(
                "the golden numbers are of {}, this is {}: of numbers that depend on it, worse \
                 ones are notes",
                self.makers.compiler, makers.compiler
            ));
        }
        for report in reports {
            match self.lines.iter().find(|line| line.entry == report.label) {
                Some(line) => line.compare(report, same_compiler, &mut found),
                None => found
                    .worse
                    .push(format!("{}: no golden numbers; --bless makes them", report.label)),
            }
        }
        if reports.iter().any(|report| report.sass.is_none()) {
            let text = format!("code not counted: no nvdisasm found ({})", super::find::ADVICE);
            found.notes.push(text);
        }
        found
    }
}

impl Line {
    fn compare(&self, report: &Report, same_compiler: bool, found: &mut Findings) {
        let Line { entry, numbers, ptx } = self;
        let mut now = vec![report.registers, report.stack_bytes, report.spill_bytes()];
        now.extend(report.sass.iter().flat_map(sass::Counts::numbers));
        for ((name, golden), now) in NAMES.iter().zip(numbers).zip(now) {
            if now > *golden {
                let text = format!("{entry}: {now} {name}, golden {golden}; see --bless");
                let counts = same_compiler || OF_ANY_COMPILER.contains(name);
                (if counts { &mut found.worse } else { &mut found.notes }).push(text);
            }
        }
        if same_compiler && report.ptx != *ptx {
            found.other_ptx.push(entry.clone());
        }
    }
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

/// Makes the reports golden, and drops entries that there are no more.
pub fn bless(workspace: &Workspace, makers: &Makers, reports: &[Report]) -> Result<()> {
    // Where all are there, a file that cannot be read, of an older form for example, is replaced.
    let mut golden = match read(workspace) {
        Err(_)
            if KERNELS.iter().all(|kernel| reports.iter().any(|it| it.entry == kernel.entry)) =>
        {
            Golden::default()
        }
        result => result?,
    };
    let exists = |label: &str| {
        let entry = label.split('@').next();
        KERNELS.iter().any(|kernel| Some(kernel.entry) == entry)
    };
    golden.absorb(makers, reports, exists).map_err(Error::Option)?;
    write_if_changed(&workspace.golden_resources(), &golden.write())
}

#[cfg(test)]
mod tests;
