//! Copies of the checkout's sources, to build something else from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::workspace::{Workspace, files_below, read, write_if_changed};

/// Copies the sources of all packages to `to`, each text as `change(name, text)` gives it; `None`
/// leaves the file out. Sources of an earlier copy that are gone are removed there; what was
/// generated stays.
pub fn sources(
    workspace: &Workspace,
    to: &Path,
    mut change: impl FnMut(&Path, String) -> Option<String>,
) -> Result<()> {
    let root = workspace.root();
    let enter = |path: &Path| {
        path != workspace.target()
            && !path.ends_with("target")
            && !path.ends_with(".git")
            && path != workspace.ptx()
    };
    let has = |path: &Path, known: &[&str]| {
        let extension = path.extension().unwrap_or_default();
        known.iter().any(|known| extension == *known)
    };
    // Programs embed the harness, which is Python, and tensors, which are no text.
    let is_data = |path: &Path| has(path, &["safetensors"]);
    let keep = |path: &Path| is_data(path) || has(path, &["rs", "toml", "lock", "py"]);
    let mut copied: Vec<PathBuf> = Vec::new();
    for file in files_below(root, &enter, &keep)? {
        let name = file.strip_prefix(root).unwrap_or(&file);
        if is_data(&file) {
            let copy = to.join(name);
            let folder = copy.parent().unwrap_or(to);
            fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
            fs::copy(&file, &copy).map_err(Error::file("write", &copy))?;
            copied.push(copy);
        } else if let Some(text) = change(name, read(&file)?) {
            write_if_changed(&to.join(name), &text)?;
            copied.push(to.join(name));
        }
    }
    let generated = |path: &Path| !path.ends_with("target") && !path.ends_with("host/ptx");
    for file in files_below(to, &generated, &keep)? {
        if !copied.contains(&file) {
            fs::remove_file(&file).map_err(Error::file("remove", &file))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::sources;
    use crate::workspace::Workspace;

    #[test]
    fn every_embedded_file_is_copied() {
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let to = scratch.path();
        let workspace = Workspace::find().expect("cargo knows the checkout");
        let mut embedded = Vec::new();
        sources(&workspace, to, |name, text| {
            // The builder itself is not built from a copy.
            let [texts, data] = [concat!("include_", "str!(\""), concat!("include_", "bytes!(\"")];
            let parts = text.split(texts).skip(1).chain(text.split(data).skip(1));
            for part in parts.filter(|_| !name.starts_with("xtask")) {
                let file = part.split('"').next().unwrap_or_default();
                embedded.push(to.join(name).with_file_name("").join(file));
            }
            Some(text)
        })
        .expect("it can be copied");
        assert!(embedded.len() >= 5, "the harness at least");
        for path in embedded {
            assert!(path.exists(), "{} is embedded and not copied", path.display());
        }
    }

    #[test]
    fn what_programs_embed_is_copied_and_what_is_gone_is_removed() {
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let to = scratch.path();
        let workspace = Workspace::find().expect("cargo knows the checkout");
        let harness = "tests/bench/peers/harness.py";
        sources(&workspace, to, |_, text| Some(text)).expect("it can be copied");
        let copied = std::fs::read(to.join(harness)).expect("the program embeds it");
        assert_eq!(copied, std::fs::read(workspace.root().join(harness)).expect("it is there"));
        sources(&workspace, to, |name, text| (!name.ends_with("harness.py")).then_some(text))
            .expect("it can be copied again");
        assert!(!to.join(harness).exists());
    }
}
