//! The PTX depends on nothing outside the checkout: no cargo configuration of a folder above it or
//! of the user's home, and no variable.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Settings that would change the PTX, or break the build, if the compiler of the kernels saw them.
const CONFIG: &str = r#"
[build]
rustc-wrapper = "no-such-wrapper"
target-dir = "chosen-by-a-file"
rustflags = ["-Copt-level=1", "-Coverflow-checks=on"]

[target.nvptx64-nvidia-cuda]
rustflags = ["-Cdebug-assertions=on"]

[profile.release]
opt-level = 0
overflow-checks = true
debug-assertions = true

[env]
RUSTC_LOG = { value = "trace", force = true }
"#;

const VARIABLES: [(&str, &str); 9] = [
    ("RUSTFLAGS", "-Copt-level=1 -Coverflow-checks=on"),
    ("CARGO_ENCODED_RUSTFLAGS", "-Copt-level=1"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    ("RUSTC_WRAPPER", "no-such-wrapper"),
    ("RUSTC", "no-such-compiler"),
    ("RUSTC_BOOTSTRAP", "0"),
    ("RUST_TARGET_PATH", "nowhere"),
    ("RUSTC_OVERRIDE_VERSION_STRING", "1.0.0"),
];

/// The family that compiles fastest.
const FAMILY: &str = "d96";

/// Copies sources and manifests.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory of our own");
    for item in fs::read_dir(from).expect("it can be listed").flatten() {
        let (path, name) = (item.path(), item.file_name());
        let ending = path.extension().unwrap_or_default();
        if path.is_dir() && !["target", ".git"].iter().any(|left_out| name == *left_out) {
            copy(&path, &to.join(name));
        } else if ["rs", "toml", "lock"].iter().any(|kept| ending == *kept) {
            fs::copy(&path, to.join(name)).expect("it can be copied");
        }
    }
}

/// Builds the family from the checkout at `root`; the builder must not install anything.
fn build(root: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    for (name, _) in VARIABLES {
        command.env_remove(name);
    }
    command
        .args(["build", "--variant", FAMILY])
        .current_dir(root)
        .env_remove("CARGO_TARGET_DIR")
        .env("CARGO_MANIFEST_DIR", root.join("xtask"))
        .env("FULGURITE_INSTALL", "never")
        .envs(variables.iter().copied());
    command.output().expect("the builder can be started")
}

/// The manifest's lines that tell what the PTX was made from, and all PTX.
fn result(root: &Path) -> (Vec<String>, Vec<(String, String)>) {
    let directory = root.join("host/ptx");
    let read = |path: &Path| fs::read_to_string(path).expect("the builder wrote it");
    let manifest = read(&directory.join("manifest.json"));
    let inputs = manifest.lines().filter(|line| line.contains("\"inputs\"")).map(str::to_string);
    let mut ptx: Vec<(String, String)> = fs::read_dir(&directory)
        .expect("the builder made it")
        .flatten()
        .map(|item| (item.file_name().to_string_lossy().into_owned(), item.path()))
        .filter(|(name, _)| name.ends_with(".ptx"))
        .map(|(name, path)| (name, read(&path)))
        .collect();
    ptx.sort();
    (inputs.collect(), ptx)
}

#[test]
fn no_file_and_no_variable_outside_the_checkout_changes_the_ptx() {
    let scratch = tempfile::tempdir().expect("temporary directories can be made");
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (plain, hostile) = (scratch.path().join("plain"), scratch.path().join("hostile/checkout"));
    copy(&checkout, &plain);
    copy(&checkout, &hostile);
    let output = build(&plain, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("no compiler for the kernels found") {
        eprintln!("skipped: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");

    let above = hostile.parent().expect("it has one").join(".cargo");
    let home = scratch.path().join("home");
    for directory in [&above, &home] {
        fs::create_dir_all(directory).expect("a directory of our own");
        fs::write(directory.join("config.toml"), CONFIG).expect("a file of our own");
    }
    let home = home.display().to_string();
    let variables: Vec<_> = VARIABLES.into_iter().chain([("CARGO_HOME", home.as_str())]).collect();
    let output = build(&hostile, &variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let (wanted, got) = (result(&plain), result(&hostile));
    assert!(!wanted.1.is_empty() && !wanted.0.is_empty());
    assert_eq!(got.0, wanted.0, "the hash of the inputs");
    for ((name, wanted), (_, got)) in wanted.1.iter().zip(&got.1) {
        assert!(wanted == got, "{name} is another one");
    }
    // The builder's own files go where cargo's go.
    assert!(above.join("../chosen-by-a-file/kernels").is_dir());
}
