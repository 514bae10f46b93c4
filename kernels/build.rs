//! Which entries a build for the host has: all, or with fewer features one; of those for GPUs from
//! Ampere on a sample, or with more all. Builds for the GPU are the builder's, which selects by
//! itself.

/// The one entry: three consumers, a causal mask, both loops of the softmax.
const SAMPLE: &str = "fwd_sm90_bf16_d64_causal";

/// Of those for GPUs from Ampere on: four warps of 32 rows, eight and four of 16, with both masks,
/// one and two buffers.
const SAMPLE_SM80: [&str; 3] =
    ["fwd_sm80_f16_d64_causal", "fwd_sm80_f16_d96_causal_100k", "fwd_sm80_bf16_d192_full"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=FULGURITE_SAMPLE={SAMPLE}");
    println!("cargo::rustc-env=FULGURITE_SAMPLE_SM80={}", SAMPLE_SM80.join(" "));
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    if !has("EVERY_ENTRY") {
        println!("cargo::rustc-cfg=selected");
        println!("cargo::rustc-cfg={SAMPLE}");
    } else if !has("EVERY_SM80_ENTRY") {
        println!("cargo::rustc-cfg=sampled");
        SAMPLE_SM80.iter().for_each(|entry| println!("cargo::rustc-cfg={entry}"));
    }
}
