//! The probes' PTX, for the program that checks the kernels: one file each in `tests/check/ptx`.

use std::fs;

use fulgurite_spec::{Arch, PROBE_KERNELS};

use crate::compile::{self, Family};
use crate::error::{Error, Result};
use crate::inputs;
use crate::ptx::{self, Stamp};
use crate::ptxas::{self, PtxasArgs};
use crate::toolchain::Toolchain;
use crate::workspace::{Workspace, read, write_if_changed};

/// Builds the probes if anything they are made from has changed; if there is a ptxas, it must take
/// each of them.
pub fn build(
    workspace: &Workspace,
    toolchain: &Toolchain,
    force: bool,
    ptxas: &PtxasArgs,
) -> Result<()> {
    let (arch, directory) = (Arch::Sm90, workspace.probes());
    let files: Vec<_> =
        PROBE_KERNELS.iter().map(|probe| directory.join(format!("{}.ptx", probe.entry))).collect();
    let inputs = inputs::hash(workspace, toolchain, arch, inputs::Of::Probes)?;
    let made_from = directory.join("inputs.txt");
    let fresh = read(&made_from).is_ok_and(|old| old == inputs);
    if !force && fresh && files.iter().all(|file| file.is_file()) {
        return Ok(());
    }
    let texts = compile::families(workspace, toolchain, &Family::all(PROBE_KERNELS))?;
    let stamps: Vec<Stamp> = PROBE_KERNELS.iter().map(Stamp::of).collect();
    let modules = ptx::modules(texts.first().map_or("", String::as_str), &stamps);
    // Files of probes that the table no longer has go as well.
    if directory.is_dir() {
        fs::remove_dir_all(&directory).map_err(Error::file("remove", &directory))?;
    }
    for (file, module) in files.iter().zip(&modules.map_err(Error::Ptx)?) {
        write_if_changed(file, module)?;
    }
    ptxas::assemble_all(workspace, arch, &files, ptxas)?;
    write_if_changed(&made_from, &inputs)?;
    println!("built PTX of {} probes: tests/check/ptx", files.len());
    Ok(())
}
