//! Asks ptxas what every entry needs: registers, stack, spills, and its performance notes; and
//! nvdisasm what is in its code.
//!
//! Users never need ptxas, since the driver compiles the PTX; where one is found, the numbers are
//! checked here, long before a GPU sees the kernel.

mod find;
mod golden;
mod report;
mod sass;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use comfy_table::{CellAlignment, Table};
use fulgurite_spec::{Arch, KERNELS, Kernel};

use crate::error::{Error, Result};
use crate::manifest::{self, content_hash};
use crate::process::{capture, parallel};
use crate::progress::Progress;
use crate::workspace::{Workspace, read, write_if_changed};
use find::Tools;
use golden::Makers;
pub use report::Report;

/// Options of the resource check.
#[derive(Args, Clone, Debug, Default)]
pub struct PtxasArgs {
    /// The ptxas that checks registers and spills [default: FULGURITE_PTXAS, then the PATH]
    #[arg(long, value_name = "PATH")]
    pub ptxas: Option<PathBuf>,
    /// Install ptxas and nvdisasm from PyPI into the target directory, and use them
    #[arg(long)]
    pub fetch_ptxas: bool,
    /// Try to install it, and go on without it if that fails
    #[arg(skip)]
    pub fetch_if_possible: bool,
    /// Accept the numbers as the new golden ones
    #[arg(long)]
    pub bless: bool,
    /// Refuse PTX that is not that of the golden numbers, if the same compiler made it
    #[arg(skip)]
    pub exact: bool,
}

/// Checks the entries with ptxas, if there is one; the table is printed when something was
/// compiled or something is wrong.
pub fn check(workspace: &Workspace, entries: &[&str], arguments: &PtxasArgs) -> Result<()> {
    let Some(tools) = find::find_or_fetch(workspace, arguments)? else {
        if arguments.bless {
            return Err(Error::Option(format!("--bless needs a ptxas; {}", find::ADVICE)));
        }
        println!("resources not checked: no ptxas found ({})", find::ADVICE);
        return Ok(());
    };
    let kernels: Vec<Kernel> =
        KERNELS.iter().copied().filter(|kernel| entries.contains(&kernel.entry)).collect();
    let (reports, fresh) = reports(workspace, &tools, &kernels)?;
    let makers = Makers { ptxas: find::version(&tools.ptxas)?, compiler: compiler(workspace) };
    let mut problems: Vec<String> = reports.iter().flat_map(Report::problems).collect();
    if arguments.bless && problems.is_empty() {
        golden::bless(workspace, &makers, &reports)?;
    } else {
        let found = golden::read(workspace)?.compare(&makers, &reports);
        problems.extend(found.worse);
        found.notes.iter().for_each(|note| println!("note: {note}"));
        if !found.other_ptx.is_empty() {
            let text = format!(
                "the golden numbers are of other PTX ({}); --bless takes these",
                found.other_ptx.join(", ")
            );
            if arguments.exact { problems.push(text) } else { println!("note: {text}") }
        }
    }
    if !fresh || arguments.bless || !problems.is_empty() {
        println!("{}", table(&reports));
        println!("resources from ptxas {}", makers.ptxas);
    }
    if problems.is_empty() {
        println!("resources of {} entries are fine", kernels.len());
        Ok(())
    } else {
        Err(Error::Resources(problems))
    }
}

/// The compiler that made the PTX that is there; several, if they are from several.
fn compiler(workspace: &Workspace) -> String {
    let manifest = read(&workspace.ptx().join("manifest.json")).unwrap_or_default();
    let mut compilers: Vec<String> =
        manifest::read(&manifest).into_iter().map(|built| built.compiler).collect();
    compilers.sort();
    compilers.dedup();
    compilers.join(" and ")
}

/// The reports on kernels whose PTX is there, of a table of any kind. Unlike [`check`] it judges
/// nothing, and must find a ptxas.
pub fn ask(
    workspace: &Workspace,
    kernels: &[Kernel],
    arguments: &PtxasArgs,
) -> Result<Vec<Report>> {
    let Some(tools) = find::find_or_fetch(workspace, arguments)? else {
        return Err(Error::Option(format!("no ptxas found; {}", find::ADVICE)));
    };
    Ok(reports(workspace, &tools, kernels)?.0)
}

/// The reports on kernels, and whether all of them were known from an earlier run.
fn reports(
    workspace: &Workspace,
    tools: &Tools,
    kernels: &[Kernel],
) -> Result<(Vec<Report>, bool)> {
    let versions = [
        find::version(&tools.ptxas)?,
        tools.nvdisasm.as_deref().map_or(Ok(String::new()), find::version)?,
    ];
    let mut jobs = Vec::new();
    let mut fresh = true;
    for (kernel, target) in kernels.iter().flat_map(with_targets) {
        let ptx = workspace.ptx().join(format!("{}.ptx", kernel.entry));
        let content = fs::read(&ptx).map_err(Error::file("read", &ptx))?;
        let directory = workspace.kernels(kernel.arch).join("ptxas");
        let hash = content_hash(&content);
        let key = content_hash(
            [&hash, &versions[0], &versions[1]].map(|part| &**part).concat().as_bytes(),
        );
        let label = label(kernel, target);
        let kept = directory.join(format!("{label}.{key}.txt"));
        fresh &= kept.exists();
        jobs.push((kernel, target, label, ptx, hash, kept));
    }
    let progress = (!fresh).then(|| Progress::bar("checking resources", jobs.len()));
    let reports = parallel(&jobs, |(kernel, target, label, ptx, hash, kept)| {
        let text = if kept.exists() {
            read(kept)?
        } else {
            remove_older(kept, label);
            let text = examine(tools, target, ptx, &kept.with_extension("cubin"))?;
            write_if_changed(kept, &text)?;
            text
        };
        if let Some(progress) = &progress {
            progress.advance();
        }
        Ok(Report { label: label.clone(), ..Report::read(kernel.entry, &text, hash)? })
    })?;
    Ok((reports, fresh))
}

/// A kernel with each GPU that ptxas compiles it for: its own, or where PTX runs on many one of
/// each kind that plans choose it for. The same text spills on one and not on another. Kernels of
/// f16 are those of bf16 but for the type of their products, head dim 64 apart: the first is
/// enough.
fn with_targets(kernel: &Kernel) -> impl Iterator<Item = (&Kernel, &'static str)> {
    let fits_100_kb = kernel.launch.blocks_per_sm * (kernel.launch.smem_bytes + 1024) <= 100 << 10;
    let targets: &[&'static str] = match kernel.arch {
        Arch::Sm90 => &["sm_90a"],
        Arch::Sm80 if fits_100_kb => &["sm_86", "sm_89", "sm_120"],
        Arch::Sm80 => &["sm_80", "sm_90", "sm_100"],
    };
    let is_twin = kernel.entry.contains("_f16_") && !kernel.entry.contains("_d64_");
    let count = if is_twin { 1 } else { targets.len() };
    targets[..count].iter().map(move |target| (kernel, *target))
}

/// What a kernel compiled for a GPU is called: by its entry alone, if that is the first.
fn label(kernel: &Kernel, target: &str) -> String {
    let is_first = with_targets(kernel).next().is_some_and(|(_, first)| first == target);
    if is_first { kernel.entry.to_string() } else { format!("{}@{target}", kernel.entry) }
}

/// What ptxas says about a PTX file, and a line with the counts of its code. The code is in `cubin`
/// meanwhile.
fn examine(tools: &Tools, target: &str, ptx: &Path, cubin: &Path) -> Result<String> {
    let Some(nvdisasm) = &tools.nvdisasm else {
        return assemble(&tools.ptxas, target, ptx, null_device());
    };
    if let Some(directory) = cubin.parent() {
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    }
    let text = assemble(&tools.ptxas, target, ptx, cubin)?;
    let counts = sass::count(nvdisasm, cubin)?;
    fs::remove_file(cubin).map_err(Error::file("remove", cubin))?;
    Ok(format!("{}\n{}\n", text.trim_end(), counts.line()))
}

/// Assembles PTX files if there is a ptxas; an error if it refuses one.
pub fn assemble_all(
    workspace: &Workspace,
    arch: Arch,
    files: &[PathBuf],
    arguments: &PtxasArgs,
) -> Result<()> {
    if let Some(tools) = find::find_or_fetch(workspace, arguments)? {
        parallel(files, |file| assemble(&tools.ptxas, arch.target(), file, null_device()))?;
    }
    Ok(())
}

/// What `ptxas -v` says about a PTX file; the code goes to `to`.
fn assemble(ptxas: &Path, target: &str, ptx: &Path, to: &Path) -> Result<String> {
    let mut command = Command::new(ptxas);
    command.arg(format!("-arch={target}")).args(["-v", "-o"]).arg(to).arg(ptx);
    let output = capture(&format!("ptxas on {}", ptx.display()), &mut command)?;
    // Notes come on either stream.
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn null_device() -> &'static Path {
    Path::new(if cfg!(windows) { "NUL" } else { "/dev/null" })
}

/// Removes the kept reports of older PTX under a label; what cannot be removed does no harm.
fn remove_older(kept: &Path, label: &str) {
    let Some(items) = kept.parent().and_then(|directory| fs::read_dir(directory).ok()) else {
        return;
    };
    for item in items.flatten() {
        if item.file_name().to_string_lossy().starts_with(&format!("{label}.")) {
            let _ = fs::remove_file(item.path());
        }
    }
}

fn table(reports: &[Report]) -> Table {
    let mut table = output::table([
        "entry", "regs", "smem", "spills", "instr.", "R2UR", "MUFU", "HGMMA", "notes",
    ]);
    for report in reports.iter().filter(|report| report.label == report.entry) {
        let smem_bytes = Kernel::find(&report.entry).map_or(0, |kernel| kernel.launch.smem_bytes);
        let count = |of: fn(&sass::Counts) -> u32| {
            report.sass.as_ref().map_or_else(|| "-".to_string(), |counts| of(counts).to_string())
        };
        table.add_row([
            report.entry.clone(),
            report.registers.to_string(),
            smem_bytes.to_string(),
            report.spill_bytes().to_string(),
            count(|counts| counts.instructions),
            count(|counts| counts.r2ur),
            count(|counts| counts.mufu),
            count(|counts| counts.hgmma),
            report.note_codes().join(" "),
        ]);
    }
    table.column_iter_mut().skip(1).take(7).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_100_columns() {
        let counts = sass::Counts {
            instructions: 12_345,
            r2ur: 1_234,
            mufu: 1_234,
            hgmma: 1_234,
            code_bytes: 199_000,
        };
        let report = |notes: &[&str]| Report {
            entry: String::new(),
            label: String::new(),
            registers: 168,
            stack_bytes: 0,
            spill_store_bytes: 0,
            spill_load_bytes: 0,
            notes: notes.iter().map(|note| note.to_string()).collect(),
            sass: Some(counts),
            ptx: String::new(),
        };
        let reports = KERNELS.iter().flat_map(|kernel| {
            let entry = || kernel.entry.to_string();
            let one = |report| Report { entry: entry(), label: entry(), ..report };
            [one(report(&[])), one(report(&["(C7519) a fence", "another note, without a code"]))]
        });
        let text = table(&reports.collect::<Vec<_>>()).to_string();
        assert!(text.contains("12345") && text.contains("C7519"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for kernel in KERNELS {
            assert!(text.contains(kernel.entry), "{} is broken:\n{text}", kernel.entry);
        }
    }
}
