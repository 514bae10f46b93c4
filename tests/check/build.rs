//! Embeds the probes: a table with one row per probe, whose PTX is in `ptx/` or missing.
//!
//! `cargo xtask build` writes `ptx/`. Nothing is compiled here.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use fulgurite_spec::PROBES;

fn main() {
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let directory = Path::new(&package).join("ptx");
    // Cargo takes a missing path for changed every time; the package itself is always there.
    println!("cargo::rerun-if-changed={}", if directory.is_dir() { "ptx" } else { "." });
    let mut table = String::from("[\n");
    for probe in PROBES {
        let file = directory.join(format!("{probe}.ptx"));
        if file.is_file() {
            writeln!(table, "    Some(include_str!({:?})),", file.display().to_string())
        } else {
            writeln!(table, "    None, // {probe}")
        }
        .expect("writing to a string");
    }
    table.push_str("]\n");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("probe_table.rs"), table).expect("OUT_DIR is writable");
}
