//! What is published is what is committed, and the kernels are made from it.

use std::fs;
use std::path::Path;
use std::process::Command;

use fulgurite_spec::{Arch, KERNELS, Kernel};

use crate::error::{Error, Result};
use crate::inputs;
use crate::manifest::{self, Built, content_hash};
use crate::process::capture;
use crate::toolchain::Toolchain;
use crate::workspace::{Workspace, read};

/// Problems of one kind that are told.
const TOLD: usize = 5;

/// Refuses changes that are not committed, and files that git neither knows nor ignores.
pub fn check_tree(root: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["status", "--porcelain", "--untracked-files=all"]);
    let said = capture("git status", &mut git)?.stdout;
    let said = String::from_utf8_lossy(&said);
    if said.is_empty() {
        return Ok(());
    }
    let lines = said.lines().map(|line| format!("not committed: {line}"));
    Err(Error::Package(few(lines.collect(), "`git status` lists all")))
}

/// Refuses kernels that are missing, changed, or made from other sources than those here.
pub fn check_kernels(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::find_or_install()?;
    let text = read(&workspace.ptx().join("manifest.json")).unwrap_or_default();
    let built = manifest::read(&text);
    let mut inputs: Vec<(Arch, String)> = Vec::new();
    let mut problems = Vec::new();
    for kernel in KERNELS {
        if inputs.iter().all(|(arch, _)| *arch != kernel.arch) {
            let of = inputs::Of::Kernels;
            inputs.push((kernel.arch, inputs::hash(workspace, &toolchain, kernel.arch, of)?));
        }
        let hash = inputs.iter().find(|(arch, _)| *arch == kernel.arch).map_or("", |it| &it.1);
        problems.extend(problem(&workspace.ptx(), &built, kernel, hash));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Package(few(problems, "run `cargo xtask build`")))
}

/// What is wrong with the PTX of one kernel, which was made from `inputs` if it is not stale.
fn problem(ptx: &Path, built: &[Built], kernel: &Kernel, inputs: &str) -> Option<String> {
    let entry = kernel.entry;
    let Ok(content) = fs::read(ptx.join(format!("{entry}.ptx"))) else {
        return Some(format!("{entry}: its PTX is missing"));
    };
    let Some(built) = built.iter().find(|built| built.entry == entry) else {
        return Some(format!("{entry}: the manifest does not name it"));
    };
    if built.hash != content_hash(&content) {
        return Some(format!("{entry}: its PTX is another one than the manifest says"));
    }
    (built.inputs != inputs).then(|| format!("{entry}: its PTX is stale, made from other sources"))
}

/// The first problems, how many more there are, and what helps.
fn few(mut problems: Vec<String>, remedy: &str) -> Vec<String> {
    let more = problems.len().saturating_sub(TOLD);
    problems.truncate(TOLD);
    problems.push(if more == 0 {
        remedy.to_string()
    } else {
        format!("and {more} more; {remedy}")
    });
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository of one committed file, in which `ptx/` is ignored.
    fn repository() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let root = scratch.path();
        fs::write(root.join("lib.rs"), "one").expect("a file of our own");
        fs::write(root.join(".gitignore"), "/ptx/\n").expect("a file of our own");
        let author = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
        for arguments in [&["init", "--quiet"][..], &["add", "."], &["commit", "--quiet", "-m1"]] {
            let mut git = Command::new("git");
            git.current_dir(root).args(author).args(arguments);
            capture("git", &mut git).expect("git works");
        }
        scratch
    }

    #[test]
    fn only_a_clean_tree_is_taken() {
        let scratch = repository();
        let root = scratch.path();
        fs::create_dir(root.join("ptx")).expect("a directory of our own");
        fs::write(root.join("ptx/a.ptx"), "generated").expect("a file of our own");
        check_tree(root).expect("what git ignores is no change");

        fs::write(root.join("new.rs"), "").expect("a file of our own");
        let refused = check_tree(root).expect_err("git does not know it").to_string();
        assert!(refused.contains("?? new.rs"), "{refused}");
        fs::remove_file(root.join("new.rs")).expect("it is there");
        check_tree(root).expect("clean again");
        fs::write(root.join("lib.rs"), "two").expect("a file of our own");
        let refused = check_tree(root).expect_err("it was changed").to_string();
        assert!(refused.contains("M lib.rs"), "{refused}");
    }

    #[test]
    fn a_directory_outside_of_git_is_refused() {
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let refused = check_tree(scratch.path()).expect_err("no repository").to_string();
        assert!(refused.contains("git status failed"), "{refused}");
    }

    #[test]
    fn kernels_that_are_missing_changed_or_stale_are_refused() {
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let (ptx, kernel) = (scratch.path(), &KERNELS[0]);
        let file = ptx.join(format!("{}.ptx", kernel.entry));
        let built = [Built {
            entry: kernel.entry.to_string(),
            hash: content_hash(b"ptx"),
            inputs: "sources".to_string(),
            compiler: "rustc 1".to_string(),
        }];
        let told =
            |built: &[Built], inputs: &str| problem(ptx, built, kernel, inputs).unwrap_or_default();
        assert!(told(&built, "sources").contains("missing"));
        fs::write(&file, "ptx").expect("a file of our own");
        assert_eq!(told(&built, "sources"), "");
        assert!(told(&built, "other sources").contains("stale"));
        assert!(told(&[], "sources").contains("does not name it"));
        fs::write(&file, "changed").expect("a file of our own");
        assert!(told(&built, "sources").contains("another one"));
    }

    #[test]
    fn few_problems_are_told() {
        let problems = |count: usize| vec!["a problem".to_string(); count];
        assert_eq!(few(problems(1), "help"), ["a problem", "help"]);
        let told = few(problems(TOLD + 2), "help");
        assert_eq!((told.len(), told[TOLD].as_str()), (TOLD + 1, "and 2 more; help"));
    }
}
