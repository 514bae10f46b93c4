//! Everything the PTX is made from, as one hash: nothing changed, nothing to build.

use std::path::Path;

use fulgurite_spec::Arch;

use crate::compile::flags;
use crate::error::{Error, Result};
use crate::manifest::content_hash;
use crate::toolchain::Toolchain;
use crate::workspace::{Workspace, files_below};

/// The builder's own source that has a say in the PTX.
const BUILDER: [&str; 8] = [
    include_str!("compile.rs"),
    include_str!("libraries.rs"),
    include_str!("manifest.rs"),
    include_str!("probes.rs"),
    include_str!("ptx.rs"),
    include_str!("ptx/finish.rs"),
    include_str!("ptx/split.rs"),
    include_str!("toolchain.rs"),
];

/// Bodies of the primitives that only builds for the host have.
const EMULATOR: &str = "kernels/gpu/src/emu";

/// Source that only the probes are made from.
const PROBES: &str = "kernels/src/probe";

/// Whose PTX it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The library's kernels'.
    Kernels,
    /// The probes'.
    Probes,
}

/// The hash of the kernels' sources, the compiler, its flags, and the builder.
pub fn hash(workspace: &Workspace, toolchain: &Toolchain, arch: Arch, of: Of) -> Result<String> {
    let root = workspace.root();
    let counts = |directory: &Path| {
        let probes = directory == root.join(PROBES);
        directory != root.join(EMULATOR)
            && !directory.ends_with("tests")
            && (of == Of::Probes || !probes)
    };
    let is_source = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let sources = files_below(&root.join("kernels"), &counts, &is_source)?;
    let mut parts = vec![
        toolchain.source.name().to_string(),
        toolchain.details.clone(),
        flags(toolchain, arch).join(" "),
    ];
    parts.extend(BUILDER.map(|source| content_hash(source.as_bytes())));
    for source in sources {
        let content = std::fs::read(&source).map_err(Error::file("read", &source))?;
        let name = source.strip_prefix(workspace.root()).unwrap_or(&source).display().to_string();
        parts.push(format!("{name} {}", content_hash(&content)));
    }
    Ok(content_hash(parts.join("\n").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::Source;
    use std::fs;

    #[test]
    fn the_hash_follows_sources_compiler_and_flags() {
        let scratch = tempfile::tempdir().expect("temporary directories can be made");
        let root = scratch.path();
        let source = root.join("kernels/src/lib.rs");
        fs::create_dir_all(root.join("kernels/src")).expect("a directory of our own");
        fs::write(&source, "one").expect("a file of our own");
        let workspace = Workspace::at(root);
        let prebuilt = Toolchain::for_tests(Source::PrebuiltCore, "rustc 1");
        let hash_of = |toolchain: &Toolchain| {
            hash(&workspace, toolchain, Arch::Sm90, Of::Kernels).expect("readable files")
        };

        let first = hash_of(&prebuilt);
        // No cargo compiles the kernels, so that manifests say nothing of the PTX.
        for other in ["Cargo.toml", "kernels/Cargo.toml", "kernels/notes.md"] {
            fs::write(root.join(other), "no source").expect("a file of our own");
        }
        assert_eq!(hash_of(&prebuilt), first, "only sources count");
        for other in [EMULATOR, PROBES, "kernels/gpu/tests"] {
            fs::create_dir_all(root.join(other)).expect("a directory of our own");
            fs::write(root.join(other).join("x.rs"), "").expect("a file of our own");
            assert_eq!(hash_of(&prebuilt), first, "{other} leaves no trace in a kernel");
        }
        let probes = hash(&workspace, &prebuilt, Arch::Sm90, Of::Probes).expect("readable files");
        assert_ne!(probes, first);
        assert_ne!(hash_of(&Toolchain::for_tests(Source::PrebuiltCore, "rustc 2")), first);
        assert_ne!(hash_of(&Toolchain::for_tests(Source::RustSrc, "rustc 1")), first);
        fs::write(&source, "two").expect("a file of our own");
        assert_ne!(hash_of(&prebuilt), first);
        fs::rename(&source, root.join("kernels/src/new.rs")).expect("a file of our own");
        fs::write(root.join("kernels/src/new.rs"), "one").expect("a file of our own");
        assert_ne!(hash_of(&prebuilt), first, "names count");
    }
}
