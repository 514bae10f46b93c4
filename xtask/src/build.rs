//! `cargo xtask build`: kernels to PTX, checked, with a manifest.

use std::fs;
use std::time::Instant;

use clap::Args;
use fulgurite_spec::KERNELS;

use crate::compile::{self, Family};
use crate::error::{Error, Result};
use crate::inputs;
use crate::manifest::{self, Built, content_hash};
use crate::probes;
use crate::ptx::{self, Stamp};
use crate::ptxas::{self, PtxasArgs};
use crate::toolchain::Toolchain;
use crate::workspace::{Workspace, write_if_changed};

/// Options of `build`, shared by the commands that build first.
#[derive(Args, Clone, Debug, Default)]
pub struct BuildArgs {
    /// Build again although nothing has changed
    #[arg(long)]
    pub force: bool,
    /// Only kernels whose entry name contains this text (may be given several times), no probes
    #[arg(long, value_name = "TEXT")]
    pub variant: Vec<String>,
    #[command(flatten)]
    pub ptxas: PtxasArgs,
}

/// Builds what has changed, then checks the resources of everything that was asked for.
pub fn run(workspace: &Workspace, arguments: &BuildArgs) -> Result<()> {
    let families = selected(&arguments.variant)?;
    let entries: Vec<&str> =
        families.iter().flat_map(|family| &family.kernels).map(|kernel| kernel.entry).collect();
    let toolchain = Toolchain::find_or_install()?;
    build(workspace, &toolchain, families, arguments.force)?;
    if arguments.variant.is_empty() {
        probes::build(workspace, &toolchain, arguments.force, &arguments.ptxas)?;
    }
    ptxas::check(workspace, &entries, &arguments.ptxas)
}

/// The families with only the kernels whose names contain one of the texts; all if there is none.
fn selected(texts: &[String]) -> Result<Vec<Family>> {
    let mut families = Family::all(KERNELS);
    for family in &mut families {
        family.kernels.retain(|kernel| {
            texts.is_empty() || texts.iter().any(|text| kernel.entry.contains(text.as_str()))
        });
    }
    families.retain(|family| !family.kernels.is_empty());
    if families.is_empty() {
        let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.entry).collect();
        return Err(Error::Option(format!(
            "no kernel contains `{}`; the kernels are\n  {}",
            texts.join("`, `"),
            names.join("\n  ")
        )));
    }
    Ok(families)
}

fn build(
    workspace: &Workspace,
    toolchain: &Toolchain,
    selected: Vec<Family>,
    force: bool,
) -> Result<()> {
    let started = Instant::now();
    let manifest_path = workspace.ptx().join("manifest.json");
    let mut built = manifest::read(&fs::read_to_string(&manifest_path).unwrap_or_default());
    built.retain(|built| is_whole(workspace, built));

    let entry_count: usize = selected.iter().map(|family| family.kernels.len()).sum();
    let mut stale = Vec::new();
    for family in selected {
        let inputs = inputs::hash(workspace, toolchain, family.arch, inputs::Of::Kernels)?;
        let fresh =
            |entry: &str| built.iter().any(|built| built.entry == entry && built.inputs == inputs);
        if force || !family.kernels.iter().all(|kernel| fresh(kernel.entry)) {
            stale.push((family, inputs));
        }
    }
    if stale.is_empty() {
        remove_unknown(workspace)?;
        println!("PTX of {entry_count} entries is up to date");
        return Ok(());
    }

    println!("{}", toolchain.describe());
    let families: Vec<Family> = stale.iter().map(|(family, _)| whole(family)).collect();
    let texts = compile::families(workspace, toolchain, &families)?;
    let mut problems = Vec::new();
    for ((family, (_, inputs)), text) in families.iter().zip(&stale).zip(&texts) {
        let stamps: Vec<_> = family.kernels.iter().map(Stamp::of).collect();
        match ptx::modules(text, &stamps) {
            Err(found) => problems.extend(found),
            Ok(modules) => {
                for (stamp, module) in stamps.iter().zip(&modules) {
                    let path = workspace.ptx().join(format!("{}.ptx", stamp.entry));
                    write_if_changed(&path, module)?;
                    built.retain(|built| built.entry != stamp.entry);
                    built.push(Built {
                        entry: stamp.entry.clone(),
                        hash: content_hash(module.as_bytes()),
                        inputs: inputs.clone(),
                        compiler: toolchain.version.clone(),
                    });
                }
            }
        }
    }
    write_if_changed(&manifest_path, &manifest::write(&built))?;
    remove_unknown(workspace)?;
    if !problems.is_empty() {
        return Err(Error::Ptx(problems));
    }
    let written: usize = families.iter().map(|family| family.kernels.len()).sum();
    let seconds = started.elapsed().as_secs_f64();
    println!("built PTX of {written} entries in {seconds:.1} s: host/ptx");
    Ok(())
}

/// The family with all of its kernels: they are compiled together.
fn whole(family: &Family) -> Family {
    let mut all = Family::all(KERNELS);
    let index = all
        .iter()
        .position(|other| other.arch == family.arch && other.name == family.name)
        .unwrap_or_default();
    all.swap_remove(index)
}

/// Whether the PTX file of a manifest's line is there, and as it was written.
fn is_whole(workspace: &Workspace, built: &Built) -> bool {
    fs::read(workspace.ptx().join(format!("{}.ptx", built.entry)))
        .is_ok_and(|ptx| content_hash(&ptx) == built.hash)
}

/// Removes PTX files of entries that the table no longer has.
fn remove_unknown(workspace: &Workspace) -> Result<()> {
    let directory = workspace.ptx();
    let Ok(items) = fs::read_dir(&directory) else {
        return Ok(());
    };
    for path in items.flatten().map(|item| item.path()) {
        let entry = path.file_stem().unwrap_or_default();
        let is_ptx = path.extension().is_some_and(|extension| extension == "ptx");
        if is_ptx && KERNELS.iter().all(|kernel| kernel.entry != entry) {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_select_kernels() {
        let d128 =
            selected(&["fwd_sm90_bf16_d128_full".to_string()]).expect("there are such kernels");
        assert_eq!(d128.len(), 1);
        assert!(d128[0].kernels.iter().all(|kernel| kernel.entry.contains("bf16_d128_full")));
        assert!(whole(&d128[0]).kernels.len() > d128[0].kernels.len());
        let error = selected(&["d77".to_string()]).expect_err("no such kernel").to_string();
        assert!(error.contains(KERNELS[0].entry), "{error}");
    }
}
