//! `cargo xtask tidy`: rules of this repository that neither rustc nor clippy knows.
//!
//! The rules themselves are pure functions in [`rules`], over what [`source`] finds in a text.

mod ratchet;
mod rules;
mod source;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::workspace::{Workspace, files_below, read};
use ratchet::Ratchet;

/// Directories with sources.
const DIRECTORIES: [&str; 5] = ["host", "kernels", "tests", "xtask", ".ci"];

/// Files with an own text, by the end of their names; those without are scripts.
const ENDINGS: [&str; 6] = ["rs", "toml", "md", "sh", "py", ""];

/// Checks every source of the checkout; prints how many, or fails with one line per problem.
pub fn run(workspace: &Workspace) -> Result<()> {
    let files = sources(workspace)?;
    let problems = problems(workspace, &files)?;
    if problems.is_empty() {
        println!("{} files are tidy", files.len());
        Ok(())
    } else {
        Err(Error::Tidy(problems))
    }
}

fn sources(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let keep = |path: &Path| {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        ENDINGS.contains(&&*ending)
    };
    let enter = |path: &Path| !path.ends_with("host/ptx") && !path.ends_with("target");
    let mut files = files_below(workspace.root(), &|_| false, &keep)?;
    for directory in DIRECTORIES {
        files.extend(files_below(&workspace.root().join(directory), &enter, &keep)?);
    }
    // Licences and the like: their lines are not ours.
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with("LICENSE") && (!name.starts_with('.') || path.extension().is_some())
    });
    Ok(files)
}

fn problems(workspace: &Workspace, files: &[PathBuf]) -> Result<Vec<String>> {
    let list = workspace.root().join("xtask/tidy-ratchet.txt");
    let text = if list.exists() { read(&list)? } else { String::new() };
    let mut ratchet = Ratchet::parse(&text)
        .map_err(|line| Error::Unreadable { what: format!("{}", list.display()), got: line })?;
    let mut problems = Vec::new();
    for path in files {
        let name = path.strip_prefix(workspace.root()).unwrap_or(path);
        let name = name.to_string_lossy().replace('\\', "/");
        let text = read(path)?;
        problems.extend(rules::any_text(&name, &text));
        problems.extend(rules::document(&name, &text));
        if name.ends_with(".rs") {
            problems.extend(rules::rust(&name, &text, &mut ratchet));
        }
    }
    problems.extend(ratchet.unused());
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let workspace = Workspace::find().expect("cargo knows the checkout");
        let files = sources(&workspace).expect("the checkout is readable");
        assert!(files.iter().any(|path| path.ends_with("xtask/src/tidy.rs")));
        let problems = problems(&workspace, &files).expect("the checkout is readable");
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
