//! `cargo xtask ptx-unchanged`: what serves the emulator alone leaves no trace in the PTX.
//!
//! The kernels are built from a copy of the checkout in which all of that is taken out: the second
//! bodies of the primitives, the carrying of call sites, the names of barriers, the counts of
//! events, and what lets errors be planted. Every file must come out byte for byte as in the real
//! build.

use std::path::{Path, PathBuf};

use fulgurite_spec::{KERNELS, PROBE_KERNELS};

use crate::build::{self, BuildArgs};
use crate::copy;
use crate::error::{Error, Result};
use crate::workspace::{Workspace, read};

/// Directory of the second bodies.
const EMULATOR: &str = "kernels/gpu/src/emu";

/// Where the PTX of some entries is.
type Directory = fn(&Workspace) -> PathBuf;

/// Builds both and compares.
pub fn run(workspace: &Workspace) -> Result<()> {
    let arguments = BuildArgs::default();
    build::run(workspace, &arguments)?;
    let bare = Workspace::at(&workspace.target().join("without-emulator"));
    let removed = copy_without_emulator(workspace, bare.root())?;
    build::run(&bare, &arguments)?;
    let mut problems = Vec::new();
    let kernels = KERNELS.iter().map(|kernel| (kernel.entry, Workspace::ptx as Directory));
    let probes = PROBE_KERNELS.iter().map(|probe| (probe.entry, Workspace::probes as Directory));
    let all: Vec<(&str, Directory)> = kernels.chain(probes).collect();
    for (entry, directory) in &all {
        let file = format!("{entry}.ptx");
        if read(&directory(workspace).join(&file))? != read(&directory(&bare).join(&file))? {
            problems.push(format!("{file} is another one without what serves the emulator"));
        }
    }
    if !problems.is_empty() {
        return Err(Error::Ptx(problems));
    }
    let count = all.len();
    println!("{count} PTX files are the same without the {removed} lines for the emulator");
    Ok(())
}

/// Copies the sources; returns how many lines were changed or left out, in files that are copied.
fn copy_without_emulator(workspace: &Workspace, to: &Path) -> Result<usize> {
    let mut removed = 0;
    copy::sources(workspace, to, |name, text| {
        if name.starts_with(EMULATOR) {
            return None;
        }
        if !name.starts_with("kernels") {
            return Some(text);
        }
        let bare = without_emulator(&text);
        let pairs = text.lines().zip(bare.lines());
        removed += pairs.filter(|(before, after)| before != after).count();
        Some(bare)
    })?;
    Ok(removed)
}

/// A kernel source without call sites and names; lines stay where they are.
fn without_emulator(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    for line in text.lines() {
        bare.push_str(&without_names(line));
        bare.push('\n');
    }
    bare
}

fn without_names(line: &str) -> String {
    let line = &without_constants(line);
    let statement = line.trim();
    let names_a_barrier =
        statement.starts_with("mbarrier::name(") || statement.starts_with("barrier::name(");
    if statement == "#[track_caller]"
        || statement == "pub name: &'static str,"
        || statement == "/// What the emulator's reports call it."
        || statement.starts_with("fulgurite_gpu::planted::count(")
        || (statement.starts_with("let ") && statement.contains(" = imp::alter("))
        || (names_a_barrier && statement.ends_with(");"))
    {
        return String::new();
    }
    let Some((before, rest)) = line.split_once("name: \"") else {
        return line.to_string();
    };
    let after = rest.split_once("\",").map_or(rest, |(_, after)| after);
    format!("{before}{}", after.trim_start())
}

/// A line whose constants are themselves: `planted::constant(name, value)` without the call.
fn without_constants(line: &str) -> String {
    let found = line.split_once("fulgurite_gpu::planted::constant(");
    let parts = found.and_then(|(before, rest)| {
        let (arguments, after) = rest.split_once(')')?;
        let (_, value) = arguments.split_once(", ")?;
        Some(format!("{before}{value}{after}"))
    });
    parts.unwrap_or_else(|| line.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_the_emulator_is_taken_out() {
        let text = "    #[track_caller]\n    fn f() {}\n    pub name: &'static str,\n    \
                    mbarrier::name(bar, spec.name, i);\n\
                    [Spec { name: \"q\", offset: 1 }]\n    name: \"k\",\nmbarrier::wait(bar);\n";
        let bare = "\n    fn f() {}\n\n\n[Spec { offset: 1 }]\n    \nmbarrier::wait(bar);\n";
        assert_eq!(without_emulator(text), bare);
    }

    #[test]
    fn planted_values_are_themselves() {
        let text = "let most = two(fulgurite_gpu::planted::constant(\"G\", G) - H);\n\
                    let end = imp::alter(imp::Rows::End, end, [MAX; 2]);\n\
                    fulgurite_gpu::planted::count(\"kept\");\n";
        assert_eq!(without_emulator(text), "let most = two(G - H);\n\n\n");
    }
}
