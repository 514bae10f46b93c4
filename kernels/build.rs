//! Which entries a build for the host has: all, or with fewer features one. Builds for the GPU are
//! the builder's, which selects by itself.

/// The one entry: three consumers, a causal mask, both loops of the softmax.
const SAMPLE: &str = "fwd_sm90_bf16_d64_causal";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=FULGURITE_SAMPLE={SAMPLE}");
    if std::env::var_os("CARGO_FEATURE_EVERY_ENTRY").is_none() {
        println!("cargo::rustc-cfg=selected");
        println!("cargo::rustc-cfg={SAMPLE}");
    }
}
