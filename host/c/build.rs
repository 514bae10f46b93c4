//! Names the shared library for the linker by the version of its interface, so that a program
//! linked with one does not run with another that it does not fit.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_OS").expect("cargo sets CARGO_CFG_TARGET_OS");
    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets the version");
    if target == "linux" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libfulgurite.so.{major}");
    }
}
