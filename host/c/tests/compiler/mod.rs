//! C and C++ compilers that are strict, and programs of theirs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The compilers, and how they are told to be strict.
pub const LANGUAGES: [(&str, &[&str]); 2] =
    [("cc", &["-x", "c", "-std=c99"]), ("c++", &["-x", "c++", "-std=c++11"])];

/// Where cargo puts the shared library beside this test.
pub fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its place");
    test.parent().expect("a file is in a directory").to_path_buf()
}

pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it can be started");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?} failed ({}): {text}", output.status);
    output
}

/// A directory of this process, which goes away with it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(purpose: &str) -> Scratch {
        let name = format!("fulgurite-{purpose}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).expect("it can be created");
        Scratch(directory)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays lies in cargo's own folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A strict compiler of a language that finds the header; none if there is none here.
pub fn compiler((name, arguments): (&str, &[&str])) -> Option<Command> {
    if Command::new(name).arg("--version").output().is_err() {
        eprintln!("skipped: there is no compiler `{name}` here");
        return None;
    }
    let mut command = Command::new(name);
    command.args(arguments).args(["-pedantic", "-Wall", "-Wextra", "-Werror", "-I"]);
    command.arg(env!("CARGO_MANIFEST_DIR"));
    Some(command)
}

/// Compiles and links a program in a language; it finds the library by its SONAME in `scratch`.
pub fn program(
    scratch: &Path,
    source: &Path,
    language: (&str, &[&str]),
    arguments: &[&str],
) -> Option<PathBuf> {
    let name = source.file_stem().expect("a file has a name").to_string_lossy();
    let program = scratch.join(format!("{name}-{}", language.0));
    let mut compiler = compiler(language)?;
    compiler.arg(source).arg("-L").arg(libraries()).arg("-lfulgurite_c");
    compiler.args(arguments).arg("-o").arg(&program);
    run(&mut compiler);
    let library = scratch.join("libfulgurite.so.0");
    std::fs::copy(libraries().join("libfulgurite_c.so"), library).expect("it can be copied");
    Some(program)
}
