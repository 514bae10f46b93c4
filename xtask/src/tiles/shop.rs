//! Where candidates are built: a copy of the sources under `target/tiles`.

use std::fs;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table};
use fulgurite_spec::{ForwardRow, Kernel};

use super::candidates::{Candidate, table_file};
use crate::artifacts;
use crate::compile::{self, Family};
use crate::copy;
use crate::error::{Error, Result};
use crate::harness::PROGRAM;
use crate::inputs;
use crate::process::{cargo, query};
use crate::ptx::{self, Stamp};
use crate::ptxas::{self, PtxasArgs, Report};
use crate::toolchain::Toolchain;
use crate::workspace::{Workspace, read, write_if_changed};

/// The file with the table of forward kernels.
const TABLE: &str = "kernels/spec/src/forward/table.rs";

/// The copy, and what it was made from.
pub struct Shop {
    workspace: Workspace,
    toolchain: Toolchain,
    /// Hash of the sources that were copied.
    inputs: String,
    commit: String,
}

/// What became of a candidate.
pub struct Tried {
    /// The candidate.
    pub candidate: Candidate,
    /// What ptxas says; nothing if the compiler's PTX breaks rules.
    pub report: Option<Report>,
    /// Why it is left out, if it is.
    pub problems: Vec<String>,
}

impl Shop {
    /// Copies the sources, with the candidates as the table. All copies share one target
    /// directory, so that dependencies are compiled once.
    pub fn open(workspace: &Workspace, name: &str, all: &[Candidate]) -> Result<Shop> {
        let toolchain = Toolchain::find_or_install()?;
        println!("{}", toolchain.describe());
        let arch = fulgurite_spec::Arch::Sm90;
        let inputs = inputs::hash(workspace, &toolchain, arch, inputs::Of::Kernels)?;
        let directory = workspace.target().join("tiles");
        let copy = Workspace::with_target(&directory.join(name), &directory.join("target"));
        let table = table_file(all.iter().map(|candidate| candidate.row));
        copy::sources(workspace, copy.root(), |name, text| {
            Some(if name == Path::new(TABLE) { table.clone() } else { text })
        })?;
        Ok(Shop { workspace: copy, toolchain, inputs, commit: commit(workspace) })
    }

    /// Compiles every candidate that has changed, one compiler for each, and asks ptxas about it.
    pub fn try_all(&self, all: &[Candidate], arguments: &PtxasArgs) -> Result<Vec<Tried>> {
        let stale: Vec<Kernel> = all
            .iter()
            .map(|candidate| candidate.row)
            .filter(|row| self.known(row).is_none())
            .map(ForwardRow::kernel)
            .collect();
        let families: Vec<Family> = stale
            .iter()
            .map(|&kernel| Family {
                arch: kernel.arch,
                name: kernel.entry.to_string(),
                kernels: vec![kernel],
            })
            .collect();
        if !families.is_empty() {
            let texts = compile::families(&self.workspace, &self.toolchain, &families)?;
            for (kernel, text) in stale.iter().zip(&texts) {
                self.keep(kernel.entry, ptx::modules(text, &[Stamp::of(kernel)]))?;
            }
        }
        let problems = |candidate: &Candidate| self.known(candidate.row).unwrap_or_default();
        let compiled: Vec<Kernel> = all
            .iter()
            .filter(|candidate| problems(candidate).is_empty())
            .map(|candidate| candidate.row.kernel())
            .collect();
        let reports = ptxas::ask(&self.workspace, &compiled, arguments)?;
        Ok(all
            .iter()
            .map(|&candidate| {
                let entry = candidate.row.entry;
                let report = reports.iter().find(|report| report.entry == entry).cloned();
                let mut problems = problems(&candidate);
                problems.extend(report.iter().flat_map(Report::problems));
                Tried { candidate, report, problems }
            })
            .collect())
    }

    /// Where a candidate's last build is told of: the hash of its inputs, then what was wrong.
    fn memo(&self, entry: &str) -> PathBuf {
        self.workspace.root().join("tried").join(format!("{entry}.txt"))
    }

    /// What was wrong with a candidate's PTX (nothing, mostly), if it has been compiled from these
    /// sources.
    fn known(&self, row: &ForwardRow) -> Option<Vec<String>> {
        let memo = read(&self.memo(row.entry)).ok()?;
        let mut lines = memo.lines();
        let problems = |lines: std::str::Lines| lines.map(str::to_string).collect();
        (lines.next() == Some(&self.inputs)).then(|| problems(lines))
    }

    fn keep(
        &self,
        entry: &str,
        modules: std::result::Result<Vec<String>, Vec<String>>,
    ) -> Result<()> {
        let problems = match modules {
            Ok(modules) => {
                let path = self.workspace.ptx().join(format!("{entry}.ptx"));
                write_if_changed(&path, &modules.concat())?;
                Vec::new()
            }
            Err(problems) => problems,
        };
        let lines: Vec<&str> =
            [self.inputs.as_str()].into_iter().chain(problems.iter().map(String::as_str)).collect();
        write_if_changed(&self.memo(entry), &(lines.join("\n") + "\n"))
    }

    /// Builds the program with those candidates in it that nothing is wrong with.
    pub fn program(&self, tried: &[Tried]) -> Result<PathBuf> {
        let root = self.workspace.root();
        let rows: Vec<&ForwardRow> = tried
            .iter()
            .filter(|tried| tried.problems.is_empty())
            .map(|tried| tried.candidate.row)
            .collect();
        write_if_changed(&root.join(TABLE), &table_file(rows.iter().copied()))?;
        println!("building {PROGRAM} with {} candidates", rows.len());
        let mut command = cargo(root);
        command
            .env("CARGO_TARGET_DIR", self.workspace.target())
            .env("FULGURITE_COMMIT", &self.commit)
            .args(["build", "--release", "--package", "tests", "--bin", PROGRAM]);
        let built = artifacts::build(&format!("building {PROGRAM}"), PROGRAM, &mut command)?;
        let copy = root.join("dist").join(PROGRAM);
        let directory = root.join("dist");
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        fs::copy(&built, &copy).map_err(Error::file("write", &copy))?;
        Ok(copy)
    }

    /// Writes what became of the candidates, for the program to put into its record.
    pub fn write_candidates(&self, tried: &[Tried]) -> Result<PathBuf> {
        let mut text = String::from(
            "entry,dtype,head_dim,mask,softmax,q_rows,kv_rows,q_parts,kv_stages,smem_bytes,current,\
             registers,spill_bytes,left_out\n",
        );
        for tried in tried {
            let Tried { candidate, report, problems } = tried;
            let Candidate { row, current } = candidate;
            let number = |of: fn(&Report) -> u32| {
                report.as_ref().map_or(String::new(), |report| of(report).to_string())
            };
            let columns = [
                row.entry.to_string(),
                row.dtype.name().to_string(),
                row.head_dim.to_string(),
                row.mask.name().to_string(),
                row.softmax.name().to_string(),
                row.q_rows.to_string(),
                row.kv_rows.to_string(),
                row.q_parts.to_string(),
                row.kv_stages.to_string(),
                row.launch().smem_bytes.to_string(),
                u8::from(*current).to_string(),
                number(|report| report.registers),
                number(Report::spill_bytes),
                // The meaning survives without what CSV would have to quote.
                why(candidate, problems).replace(',', ";").replace('"', ""),
            ];
            text.push_str(&(columns.join(",") + "\n"));
        }
        let path = self.workspace.root().join("dist/candidates.csv");
        write_if_changed(&path, &text)?;
        Ok(path)
    }
}

/// Why a candidate is left out, in short: without its name, and without what explains a note.
fn why(candidate: &Candidate, problems: &[String]) -> String {
    let short = |problem: &String| {
        let text = problem.strip_prefix(candidate.row.entry).unwrap_or(problem);
        let text = text.trim_start_matches(": ");
        text.split_once(": ").map_or(text, |(short, _)| short).to_string()
    };
    problems.iter().map(short).collect::<Vec<_>>().join("; ")
}

/// The commit that is checked out, marked if the sources are not those of it.
fn commit(workspace: &Workspace) -> String {
    let root = workspace.root().display().to_string();
    let git = |arguments: &[&str]| query("git", &[&["-C", &root], arguments].concat());
    let commit = git(&["rev-parse", "--short=7", "HEAD"]).unwrap_or("unknown".to_string());
    match git(&["status", "--porcelain", "--", "kernels", "host"]) {
        Some(changes) if !changes.is_empty() => format!("{commit}-changed"),
        _ => commit,
    }
}

/// One line for each candidate.
pub fn table(tried: &[Tried]) -> Table {
    let mut table = output::table([
        "candidate",
        "estimate",
        "registers",
        "smem bytes",
        "spill bytes",
        "left out",
    ]);
    for Tried { candidate, report, problems } in tried {
        let Candidate { row, current } = candidate;
        let tile = fulgurite_spec::Tile::of(row);
        let number = |of: fn(&Report) -> u32| {
            report.as_ref().map_or("-".to_string(), |report| of(report).to_string())
        };
        table.add_row([
            format!("{}{}", row.entry, if *current { " (current)" } else { "" }),
            tile.consumer_registers().to_string(),
            number(|report| report.registers),
            row.launch().smem_bytes.to_string(),
            number(Report::spill_bytes),
            why(candidate, problems),
        ]);
    }
    table.column_iter_mut().skip(1).take(4).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    table
}
