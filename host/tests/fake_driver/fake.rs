//! Builds the fake driver, and runs programs with it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::SOURCE;

/// A folder with the fake driver under both names that are looked for.
pub fn driver() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(concat!("fake-driver-", env!("CARGO_PKG_NAME")));
        fs::create_dir_all(&folder).unwrap();
        // Under a name of this process first: another run may have the library in use.
        let built = folder.join(std::process::id().to_string());
        let output = Command::new("rustc")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "cuda", "-o"])
            .args([&built, &Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        place(&built, &folder.join("libcuda.so"));
        place(&built, &folder.join("libcuda.so.1"));
        fs::remove_file(&built).unwrap();
        folder
    })
}

/// Puts a library where another may be in use.
pub fn place(library: &Path, at: &Path) {
    let beside = at.with_extension(std::process::id().to_string());
    fs::copy(library, &beside).unwrap();
    fs::rename(&beside, at).unwrap();
}

/// A program that finds the fake driver.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", driver());
    command
}

/// What a program printed, once it ended well; one that hangs is ended after a minute.
#[track_caller]
pub fn said(command: &mut Command) -> String {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    // What a test prints first stands behind its name.
    let text = String::from_utf8_lossy(&stdout).replace(" ... ", " ...\n");
    assert!(status.success(), "{status}\n{text}\n{}", String::from_utf8_lossy(&stderr));
    text
}
