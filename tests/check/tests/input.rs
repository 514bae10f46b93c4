//! `verify --input` on the fixture that a real model made.

use std::path::{Path, PathBuf};

use check::verify::{self, Options};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/minilm.safetensors")
}

#[test]
fn the_fixture_passes() {
    let options = Options { input: Some(fixture()), ..Options::default() };
    assert_eq!(verify::run(&options), Ok(true));
}

#[test]
fn a_file_that_is_none_is_refused() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let options = Options { input: Some(file), ..Options::default() };
    assert!(verify::run(&options).unwrap_err().contains("Cargo.toml"));
    let options = Options { input: Some("no such file".into()), ..Options::default() };
    assert!(verify::run(&options).unwrap_err().contains("no such file"));
}
