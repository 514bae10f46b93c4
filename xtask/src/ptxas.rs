//! Asks ptxas what every entry needs: registers, stack, spills, and its performance notes.
//!
//! Users never need ptxas, since the driver compiles the PTX; where one is found, the numbers are
//! checked here, long before a GPU sees the kernel.

mod find;
mod golden;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use fulgurite_spec::{Arch, LaunchSpec, VARIANTS, Variant};

use crate::error::{Error, Result};
use crate::manifest::content_hash;
use crate::process::{capture, parallel};
use crate::progress::Progress;
use crate::workspace::{Workspace, read, write_if_changed};
pub use report::Report;

/// Options of the resource check.
#[derive(Args, Clone, Debug, Default)]
pub struct PtxasArgs {
    /// The ptxas that checks registers and spills [default: FULGURITE_PTXAS, then the PATH]
    #[arg(long, value_name = "PATH")]
    pub ptxas: Option<PathBuf>,
    /// Install ptxas from PyPI into the target directory if none is found
    #[arg(long)]
    pub fetch_ptxas: bool,
    /// Try to install it, and go on without it if that fails
    #[arg(skip)]
    pub fetch_if_possible: bool,
    /// Accept the numbers as the new golden ones
    #[arg(long)]
    pub bless: bool,
}

/// Checks the entries with ptxas, if there is one; the table is printed when something was
/// compiled or something is wrong.
pub fn check(workspace: &Workspace, entries: &[&str], arguments: &PtxasArgs) -> Result<()> {
    let Some(ptxas) = find::find_or_fetch(workspace, arguments)? else {
        if arguments.bless {
            return Err(Error::Option(format!("--bless needs a ptxas; {}", find::ADVICE)));
        }
        println!("resources not checked: no ptxas found ({})", find::ADVICE);
        return Ok(());
    };
    let version = find::version(&ptxas)?;
    let variants: Vec<&Variant> =
        VARIANTS.iter().filter(|variant| entries.contains(&variant.entry)).collect();
    let (reports, fresh) = reports(workspace, &ptxas, &version, &variants)?;
    let mut problems: Vec<String> = reports.iter().flat_map(Report::problems).collect();
    if arguments.bless && problems.is_empty() {
        golden::bless(workspace, &version, &reports)?;
    } else {
        let golden = golden::read(workspace)?;
        let (worse, notes) = golden.compare(&version, &reports);
        problems.extend(worse);
        notes.iter().for_each(|note| println!("note: {note}"));
    }
    if !fresh || arguments.bless || !problems.is_empty() {
        println!("{}", table(&reports));
        println!("resources from ptxas {version}");
    }
    if problems.is_empty() {
        println!("resources of {} entries are fine", reports.len());
        Ok(())
    } else {
        Err(Error::Resources(problems))
    }
}

/// The reports on variants whose PTX is there, of a table of any kind. Unlike [`check`] it judges
/// nothing, and must find a ptxas.
pub fn ask(
    workspace: &Workspace,
    variants: &[&Variant],
    arguments: &PtxasArgs,
) -> Result<Vec<Report>> {
    let Some(ptxas) = find::find_or_fetch(workspace, arguments)? else {
        return Err(Error::Option(format!("no ptxas found; {}", find::ADVICE)));
    };
    let version = find::version(&ptxas)?;
    Ok(reports(workspace, &ptxas, &version, variants)?.0)
}

/// The reports on variants, and whether all of them were known from an earlier run.
fn reports(
    workspace: &Workspace,
    ptxas: &Path,
    version: &str,
    variants: &[&Variant],
) -> Result<(Vec<Report>, bool)> {
    let mut jobs = Vec::new();
    let mut fresh = true;
    for variant in variants {
        let ptx = workspace.ptx().join(format!("{}.ptx", variant.entry));
        let content = fs::read(&ptx).map_err(Error::file("read", &ptx))?;
        let directory = workspace.kernels(variant.arch).join("ptxas");
        let key = content_hash(&[&content, version.as_bytes()].concat());
        let kept = directory.join(format!("{}.{key}.txt", variant.entry));
        fresh &= kept.exists();
        jobs.push((variant, ptx, kept));
    }
    let progress = (!fresh).then(|| Progress::bar("checking resources", jobs.len()));
    let reports = parallel(&jobs, |(variant, ptx, kept)| {
        let text = if kept.exists() {
            read(kept)?
        } else {
            let text = assemble(ptxas, variant.arch.target(), ptx)?;
            remove_older(kept, variant.entry);
            write_if_changed(kept, &text)?;
            text
        };
        if let Some(progress) = &progress {
            progress.advance();
        }
        Report::read(variant.entry, &text)
    })?;
    Ok((reports, fresh))
}

/// Assembles PTX files if there is a ptxas; an error if it refuses one.
pub fn assemble_all(
    workspace: &Workspace,
    arch: Arch,
    files: &[PathBuf],
    arguments: &PtxasArgs,
) -> Result<()> {
    if let Some(ptxas) = find::find_or_fetch(workspace, arguments)? {
        parallel(files, |file| assemble(&ptxas, arch.target(), file))?;
    }
    Ok(())
}

/// What `ptxas -v` says about a PTX file.
fn assemble(ptxas: &Path, target: &str, ptx: &Path) -> Result<String> {
    let mut command = Command::new(ptxas);
    command.arg(format!("-arch={target}")).args(["-v", "-o"]).arg(null_device()).arg(ptx);
    let output = capture(&format!("ptxas on {}", ptx.display()), &mut command)?;
    // Notes come on either stream.
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn null_device() -> &'static str {
    if cfg!(windows) { "NUL" } else { "/dev/null" }
}

/// Removes the kept reports of older PTX of an entry; what cannot be removed does no harm.
fn remove_older(kept: &Path, entry: &str) {
    let Some(items) = kept.parent().and_then(|directory| fs::read_dir(directory).ok()) else {
        return;
    };
    for item in items.flatten() {
        if item.file_name().to_string_lossy().starts_with(&format!("{entry}.")) {
            let _ = fs::remove_file(item.path());
        }
    }
}

fn table(reports: &[Report]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "entry",
        "registers",
        "smem bytes",
        "stack",
        "spill stores",
        "spill loads",
        "notes",
    ]);
    for report in reports {
        let smem_bytes = VARIANTS
            .iter()
            .find(|variant| variant.entry == report.entry)
            .map_or(0, |variant| LaunchSpec::of(variant).smem_bytes);
        table.add_row([
            report.entry.clone(),
            report.registers.to_string(),
            smem_bytes.to_string(),
            report.stack_bytes.to_string(),
            report.spill_store_bytes.to_string(),
            report.spill_load_bytes.to_string(),
            report.note_codes().join(" "),
        ]);
    }
    table.column_iter_mut().skip(1).take(5).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    table
}
