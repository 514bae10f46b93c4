//! `fulgurite-check info` on machines of any kind: it ends well and says what is missing.

#![cfg(target_os = "linux")]

#[path = "../../host/tests/fake_driver/fake.rs"]
mod fake;

use std::path::Path;

use fulgurite::internals::KERNELS;

/// The source of the fake driver.
pub const SOURCE: &str = "../host/tests/fake_driver/libcuda.rs";

/// Runs `info` with the fake driver, or a folder of other libraries, and calls told to fail.
fn info(arguments: &[&str], libraries: &Path, fail: &str) -> String {
    let mut command = fake::command(env!("CARGO_BIN_EXE_fulgurite-check"));
    command.arg("info").args(arguments).env("CUDA_VISIBLE_DEVICES", "0");
    fake::said(command.env("LD_LIBRARY_PATH", libraries).env("FAKE_FAIL", fail))
}

#[test]
fn says_what_a_report_needs() {
    let text = info(&[], fake::driver(), "");
    for name in ["Fulgurite", "system", "driver library", "kernels", "driver's cache", "nvidia-smi"]
    {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing in:\n{text}");
    }
    assert!(text.contains("CUDA_VISIBLE_DEVICES=0"), "{text}");
    let library = fake::driver().join("libcuda.so");
    assert!(text.contains(library.to_str().expect("a plain path")), "{text}");
    let built = KERNELS.iter().filter(|kernel| fulgurite::is_built(kernel.entry)).count();
    for part in [
        "12.4",
        "Fake H100, compute capability 9.0, 132 multiprocessors, 81920 MiB",
        &format!("runs {built} kernels of this build\n"),
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn a_driver_that_cannot_be_used_is_told() {
    for (fail, part) in [
        ("cuInit=34", "MISSING: "),
        ("cuInit=34", "is a CUDA toolkit's stub"),
        ("cuInit=802", "nvidia-fabricmanager"),
        ("cuInit=100", "the driver is there, but shows no GPU"),
        ("cuDeviceGetName=999", "MISSING: cuDeviceGetName failed with CUDA_ERROR_UNKNOWN (999)"),
    ] {
        let text = info(&[], fake::driver(), fail);
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

/// Files that are no library stand for a driver that cannot be loaded.
#[test]
fn a_missing_driver_is_told_and_no_failure() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-driver");
    std::fs::create_dir_all(&folder).expect("it can be created");
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::fs::write(folder.join(name), "no library").expect("it can be written");
    }
    let text = info(&[], &folder, "");
    assert!(text.contains("MISSING: no NVIDIA driver"), "{text}");
    assert!(text.contains("install the driver"), "{text}");

    let json = info(&["--json"], &folder, "");
    let value: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let driver = value["driver"]["missing"].as_str().expect("it is missing");
    assert!(driver.contains("no NVIDIA driver"), "{driver}");
    let built = value["kernels_built"].as_u64().expect("a number");
    let missing = value["kernels_missing"].as_array().expect("a list").len() as u64;
    assert_eq!(built + missing, KERNELS.len() as u64);
}
