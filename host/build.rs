//! Embeds the kernels: a table with one row per kernel, whose PTX is in `ptx/` or missing. It is
//! compressed, from 17.3 MB to 4.9 MB for the first 84 kernels.
//!
//! `cargo xtask build` writes `ptx/`; a published package contains it. Nothing is compiled here.
//! `cfg(packaged)` tells the two apart, for what is said where kernels are missing.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use fulgurite_spec::KERNELS;

fn main() {
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let directory = Path::new(&package).join("ptx");
    // Cargo takes a missing path for changed every time; the package itself is always there.
    println!("cargo::rerun-if-changed={}", if directory.is_dir() { "ptx" } else { "." });

    // Cargo puts this file into packages, which have no `cargo xtask`.
    println!("cargo::rustc-check-cfg=cfg(packaged)");
    if Path::new(&package).join(".cargo_vcs_info.json").is_file() {
        println!("cargo::rustc-cfg=packaged");
    }

    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let out = Path::new(&out);
    let mut table = String::from("[\n");
    for kernel in KERNELS {
        let file = directory.join(format!("{}.ptx", kernel.entry));
        if let Ok(text) = fs::read(&file) {
            let embedded = out.join(format!("{}.lz4", kernel.entry));
            let compressed = lz4_flex::block::compress_prepend_size(&text);
            fs::write(&embedded, compressed).expect("OUT_DIR is writable");
            writeln!(table, "    Some(include_bytes!({:?})),", embedded.display().to_string())
        } else {
            writeln!(table, "    None, // {}", kernel.entry)
        }
        .expect("writing to a string");
    }
    table.push_str("]\n");
    fs::write(out.join("ptx_table.rs"), table).expect("OUT_DIR is writable");
}
