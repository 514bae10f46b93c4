//! What cargo builds, and where it puts it: asked from cargo, since the place depends on files and
//! variables that cargo reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process::{cargo, run_for_output};

/// The target directory of the checkout at `root`.
pub fn target_directory(root: &Path) -> Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let text = run_for_output("cargo metadata", &mut command)?;
    let metadata: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    metadata["target_directory"].as_str().map(PathBuf::from).ok_or_else(|| Error::Unreadable {
        what: "cargo's metadata".to_string(),
        got: "no target_directory".to_string(),
    })
}

/// Runs a `cargo build` and returns the file of this name that it made, or found up to date.
pub fn build(what: &str, file: &str, command: &mut Command) -> Result<PathBuf> {
    command.arg("--message-format=json-render-diagnostics");
    let messages = run_for_output(what, command)?;
    made(&messages, file).ok_or_else(|| Error::Unreadable {
        what: "cargo's messages".to_string(),
        got: format!("none of them tells where {file} is"),
    })
}

/// The file of a name among cargo's messages, one JSON object a line.
fn made(messages: &str, file: &str) -> Option<PathBuf> {
    let paths = |message: &str| {
        let message: Value = serde_json::from_str(message).ok()?;
        let is_artifact = message["reason"] == "compiler-artifact";
        let files = message["filenames"].as_array().filter(|_| is_artifact)?;
        files.iter().filter_map(Value::as_str).map(PathBuf::from).find(|path| path.ends_with(file))
    };
    messages.lines().find_map(paths)
}

/// The programs among the messages of a `cargo test --no-run`.
pub fn test_programs(messages: &str) -> Vec<PathBuf> {
    let program = |message: &str| {
        let message: Value = serde_json::from_str(message).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    messages.lines().filter_map(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn test_programs_are_found() {
        let program = json!({ "reason": "compiler-artifact", "executable": "/there/cpu-1" });
        let library = json!({ "reason": "compiler-artifact", "executable": null });
        let messages = format!("{library}\n{program}\na line of something else\n");
        assert_eq!(test_programs(&messages), [PathBuf::from("/there/cpu-1")]);
    }

    #[test]
    fn a_file_is_found_wherever_cargo_puts_it() {
        let artifact = |files: &[&str]| {
            json!({ "reason": "compiler-artifact", "filenames": files }).to_string()
        };
        let messages = [
            artifact(&["/else/where/release/libtests.rlib"]),
            "a line of something else".to_string(),
            artifact(&["/else/where/x86_64-unknown-linux-gnu/release/fulgurite-check"]),
            json!({ "reason": "build-finished", "success": true }).to_string(),
        ]
        .join("\n");
        assert_eq!(
            made(&messages, "fulgurite-check"),
            Some(PathBuf::from("/else/where/x86_64-unknown-linux-gnu/release/fulgurite-check"))
        );
        assert_eq!(made(&messages, "check"), None);
    }
}
