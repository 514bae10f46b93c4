//! Embeds the manifest that `cargo xtask build` writes: what made the kernels, for records.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() {
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let host = Path::new(&package).join("../../host");
    let manifest = host.join("ptx/manifest.json");
    // Cargo takes a missing path for changed every time; the host's package is always there.
    let watched = if manifest.is_file() { &manifest } else { &host };
    println!("cargo::rerun-if-changed={}", watched.display());
    let mut text = String::from("/// The manifest of the kernels, if they were built.\n");
    let value = if manifest.is_file() {
        format!("Some(include_str!({:?}))", manifest.display().to_string())
    } else {
        "None".to_string()
    };
    writeln!(text, "const MANIFEST: Option<&str> = {value};").expect("writing to a string");
    fs::write(Path::new(&out).join("manifest.rs"), text).expect("OUT_DIR is writable");
}
