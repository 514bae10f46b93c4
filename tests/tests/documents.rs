//! What the documents say of errors and files is so.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the texts are that users see.
const SOURCES: [&str; 5] = [
    "host/parallel/src/error.rs",
    "host/src/error.rs",
    "host/src/error/remedy.rs",
    "host/src/codes.rs",
    "xtask/src/toolchain.rs",
];

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    let path = checkout().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The sources as one text, in which string literals are not broken into lines.
fn sources() -> String {
    let text: String = SOURCES.iter().map(|name| read(name)).collect();
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

/// What stands between pairs of a mark.
fn between(text: &str, mark: char) -> Vec<&str> {
    text.split(mark).skip(1).step_by(2).collect()
}

/// Whether an error of this name, or a code of the driver such as `CUDA_ERROR_UNKNOWN`, is there.
fn is_error(sources: &str, name: &str, cell: &str) -> bool {
    match name.strip_prefix("CUDA_ERROR_") {
        None => [" {", ","].iter().any(|end| sources.contains(&format!("\n    {name}{end}"))),
        Some(code) => {
            let (_, rest) = cell.split_once(&format!("`{name}` (")).expect("a code has its number");
            let number = rest.split(')').next().unwrap_or_default();
            sources.contains(&format!("({number}, \"{code}\","))
        }
    }
}

#[test]
fn errors_in_troubleshooting_are_those_of_the_library() {
    let (document, sources) = (read("TROUBLESHOOTING.md"), sources());
    let mut count = 0;
    for line in document.lines().filter(|line| line.starts_with("| ")) {
        let cell = line.split('|').nth(1).unwrap_or_default();
        for text in between(cell, '"') {
            assert!(sources.contains(text), "no error says {text:?}");
            count += 1;
        }
        let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        for name in between(cell, '`').into_iter().filter(is_name) {
            assert!(is_error(&sources, name, cell), "there is no error {name}");
            count += 1;
        }
    }
    assert!(count >= 30, "{count} names and texts were found");
}

#[test]
fn links_lead_to_files() {
    let mut count = 0;
    for directory in [".", "host", "host/parallel", "kernels", "xtask"] {
        let directory = checkout().join(directory);
        for item in fs::read_dir(&directory).expect("it is there").flatten() {
            let path = item.path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("it can be read");
            for rest in text.split("](").skip(1) {
                let link = rest.split([')', '#']).next().unwrap_or_default();
                if link.is_empty() || link.contains("://") {
                    continue;
                }
                assert!(directory.join(link).exists(), "{}: {link}", path.display());
                count += 1;
            }
        }
    }
    assert!(count >= 30, "{count} links were found");
}

#[test]
fn the_changelog_tells_of_this_version_or_the_next() {
    let changelog = read("CHANGELOG.md");
    let version = format!("\n## [{}] - ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.contains(&version) || changelog.contains("\n## [Unreleased]\n"));
}
