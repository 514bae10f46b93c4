//! The examples are programs in strict C99 and C++11 that run: on the fake driver, which computes
//! nothing. Says so where there is no compiler.

#![cfg(target_os = "linux")]

#[path = "../../tests/fake_driver/fake.rs"]
mod fake;

mod compiler;

use std::path::Path;

use compiler::{LANGUAGES, Scratch};
use fulgurite::internals::KERNELS;

/// The source of the fake driver.
pub const SOURCE: &str = "../tests/fake_driver/libcuda.rs";

/// What an example prints in a language; `None` without a compiler or kernels.
fn said(example: &str, language: (&str, &[&str])) -> Option<String> {
    if KERNELS.iter().any(|kernel| !fulgurite::is_built(kernel.entry)) {
        eprintln!("skipped: the kernels are not built (`cargo xtask build`)");
        return None;
    }
    let scratch = Scratch::new(&format!("{example}-{}", language.0));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{example}.c"));
    let driver = fake::driver().to_str().expect("a plain path");
    let link = ["-L", driver, "-l:libcuda.so.1"];
    let program = compiler::program(&scratch.0, &source, language, &link)?;
    let paths = std::env::join_paths([fake::driver(), &scratch.0]).expect("names without colons");
    Some(fake::said(fake::command(program).env("LD_LIBRARY_PATH", &paths)))
}

#[test]
fn forward_launches_its_kernel() {
    for said in LANGUAGES.into_iter().filter_map(|language| said("forward", language)) {
        assert!(said.contains("launch fwd_sm90_bf16_d64_causal\n"), "{said}");
        assert!(said.ends_with("the first element of out is 0x0000 (3.0 is 0x4040)\n"), "{said}");
    }
}

#[test]
fn backward_launches_its_kernels_behind_the_forward() {
    for said in LANGUAGES.into_iter().filter_map(|language| said("backward", language)) {
        let launches: Vec<&str> =
            said.lines().filter_map(|line| line.strip_prefix("launch ")).collect();
        let wanted = [
            "fwd_sm90_bf16_d64_causal",
            "bwd_delta_bf16",
            "bwd_dkdv_sm90_bf16_d64_causal",
            "bwd_dq_sm90_bf16_d64_causal",
        ];
        assert_eq!(launches, wanted, "{said}");
        assert!(said.ends_with("dv is 0x0000 (1/256 is 0x3b80)\n"), "{said}");
    }
}

#[test]
fn plan_launches_three_times() {
    for said in LANGUAGES.into_iter().filter_map(|language| said("plan", language)) {
        assert_eq!(said.matches("launch fwd_sm90_s8e4m3_d128_full\n").count(), 3, "{said}");
        assert!(said.contains("to 0\n") && said.ends_with("launched 3 times\n"), "{said}");
    }
}
