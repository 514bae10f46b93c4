//! The header against the library: a C program is compiled with it, linked and run, and its idea
//! of sizes and numbers compared with Rust's. Says so where there is no C compiler.

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fulgurite_c::{Request, Status};

/// Where cargo puts the shared library beside this test.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its place");
    test.parent().expect("a file is in a directory").to_path_buf()
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it can be started");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?} failed ({}): {text}", output.status);
    output
}

fn wanted() -> String {
    let mut text = format!("size {}\n", size_of::<Request>());
    macro_rules! offsets {
        ($($field:ident)*) => {
            $(text += &format!("{} {}\n", stringify!($field), offset_of!(Request, $field));)*
        };
    }
    offsets!(size_bytes dtype mask lse scale device batch heads heads_kv q_len kv_len head_dim);
    offsets!(q k v out);
    let statuses = [
        Status::Ok,
        Status::Argument,
        Status::Request,
        Status::Address,
        Status::Device,
        Status::Driver,
        Status::Internal,
    ];
    let numbers = statuses.map(|status| (status as i32).to_string()).join(" ");
    text + &format!("statuses {numbers}\ndtypes 0 1\nmasks 0 1\n")
}

#[test]
fn a_c_program_agrees_with_the_library() {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("skipped: there is no C compiler `cc` here");
        return;
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = std::env::temp_dir().join(format!("fulgurite-header-{}", std::process::id()));
    let libraries = libraries();
    let mut compile = Command::new("cc");
    compile
        .args(["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(package)
        .arg(package.join("tests/program.c"))
        .arg("-L")
        .arg(&libraries)
        .args(["-lfulgurite_c", "-o"])
        .arg(&program);
    run(&mut compile);
    // The program asks for the library by the name of its interface's version.
    let named = std::env::temp_dir().join(format!("fulgurite-soname-{}", std::process::id()));
    std::fs::create_dir_all(&named).expect("it can be created");
    std::fs::copy(libraries.join("libfulgurite_c.so"), named.join("libfulgurite_c.so.0"))
        .expect("it can be copied");
    let output = run(Command::new(&program).env("LD_LIBRARY_PATH", &named));
    std::fs::remove_file(&program).expect("it can be removed");
    std::fs::remove_dir_all(&named).expect("it can be removed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with(&wanted()), "C says:\n{said}\nRust says:\n{}", wanted());
    let version = env!("CARGO_PKG_VERSION");
    assert!(said.contains(&format!("version {version} {version}\n")), "{said}");
    assert!(said.contains("create 1: request.dtype is 2"), "{said}");
}
