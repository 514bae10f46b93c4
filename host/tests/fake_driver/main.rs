//! What a driver may do, played by a fake one (`libcuda.rs`): errors of every call, resets,
//! several libraries, slow compilation, forks. Each test runs a *scene*, an ignored test of this
//! program, in a process of its own.

#![cfg(target_os = "linux")]

mod fake;
mod scenes;

use std::process::Command;

use fulgurite::internals::VARIANTS;

/// The source of the fake driver.
pub const SOURCE: &str = "tests/fake_driver/libcuda.rs";

/// Whether kernels are in this build; without them there is nothing to load.
fn built() -> bool {
    let built = fulgurite::is_built(VARIANTS[0].entry);
    if !built {
        eprintln!("skipped: the kernels are not built (`cargo xtask build`)");
    }
    built
}

/// Runs test `name` of this program in a process of its own that finds the fake driver.
fn scene(name: &str) -> Command {
    let mut command = fake::command(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Runs a scene with calls told to fail.
#[track_caller]
fn play(name: &str, fail: &str) -> String {
    fake::said(scene(&format!("scenes::{name}")).env("FAKE_FAIL", fail))
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn nothing_fails() {
    if built() {
        let text = play("all_calls", "");
        has(
            &text,
            &["compile fwd_sm90_bf16_d64_full\n", "launch fwd_sm90_bf16_d64_full\n", "done"],
        );
    }
}

/// Every call that the crate makes: which error it gives is named by call, name and number, and
/// says what to do.
#[test]
fn every_call_that_fails_is_named() {
    if !built() {
        return;
    }
    for (call, code, parts) in [
        ("cuInit", 3, &["CUDA_ERROR_NOT_INITIALIZED", "spawn", "libcuda.so"][..]),
        ("cuInit", 802, &["CUDA_ERROR_SYSTEM_NOT_READY", "nvidia-fabricmanager"]),
        ("cuInit", 803, &["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "restart"]),
        ("cuInit", 804, &["CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "compat"]),
        ("cuInit", 999, &["CUDA_ERROR_UNKNOWN", "Xid"]),
        ("cuDeviceGetCount", 999, &["CUDA_ERROR_UNKNOWN"]),
        ("cuDeviceGet", 101, &["CUDA_ERROR_INVALID_DEVICE"]),
        ("cuDeviceGetName", 101, &["CUDA_ERROR_INVALID_DEVICE"]),
        ("cuDeviceGetAttribute", 1, &["CUDA_ERROR_INVALID_VALUE", "COMPUTE_CAPABILITY"]),
        ("cuDevicePrimaryCtxRetain", 2, &["CUDA_ERROR_OUT_OF_MEMORY", "nvidia-smi"]),
        ("cuDevicePrimaryCtxRetain", 46, &["CUDA_ERROR_DEVICE_UNAVAILABLE", "exclusive"]),
        ("cuCtxSetCurrent", 201, &["CUDA_ERROR_INVALID_CONTEXT"]),
        ("cuCtxGetCurrent", 4, &["CUDA_ERROR_DEINITIALIZED"]),
        ("cuCtxPushCurrent", 201, &["CUDA_ERROR_INVALID_CONTEXT", "plan again"]),
        ("cuCtxGetId", 4, &["CUDA_ERROR_DEINITIALIZED"]),
        ("cuModuleLoadDataEx", 2, &["CUDA_ERROR_OUT_OF_MEMORY", "fwd_sm90_bf16_d64_full"]),
        ("cuModuleLoadDataEx", 218, &["CUDA_ERROR_INVALID_PTX", "update"]),
        ("cuModuleLoadDataEx", 221, &["JIT_COMPILER_NOT_FOUND", "libnvidia-ptxjitcompiler.so.1"]),
        ("cuModuleLoadDataEx", 222, &["UNSUPPORTED_PTX_VERSION", "update the NVIDIA driver"]),
        ("cuModuleGetFunction", 500, &["CUDA_ERROR_NOT_FOUND", "fwd_sm90_bf16_d64_full"]),
        ("cuFuncSetAttribute", 1, &["CUDA_ERROR_INVALID_VALUE", "smem"]),
        ("cuTensorMapEncodeTiled", 1, &["CUDA_ERROR_INVALID_VALUE"]),
        ("cuLaunchKernel", 700, &["CUDA_ERROR_ILLEGAL_ADDRESS", "compute-sanitizer"]),
        ("cuLaunchKernel", 702, &["CUDA_ERROR_LAUNCH_TIMEOUT", "earlier kernel"]),
        ("cuLaunchKernel", 719, &["CUDA_ERROR_LAUNCH_FAILED", "earlier kernel"]),
    ] {
        let text = play("all_calls", &format!("{call}={code}"));
        has(&text, &[&format!("error: {call} failed with "), &format!("({code})")]);
        has(&text, parts);
        assert!(!text.contains("done"), "{text}");
    }
}

/// What other packages compute in their own way is checked as a launch is.
#[test]
fn buffers_are_lent_where_all_are_right() {
    if built() {
        let text = play("lend", "");
        has(&text, &["lent"]);
        assert!(!text.contains("launch"), "{text}");
    }
}

#[test]
fn a_driver_without_a_gpu() {
    for fail in ["cuInit=100", "cuDeviceGetCount=100"] {
        let text = play("all_calls", fail);
        has(&text, &["error: no device 0: the driver is there, but shows no GPU", "--gpus all"]);
        has(&play("information", fail), &["CUDA (12, 4)", "devices 0", "libcuda.so"]);
    }
    has(&play("information", ""), &["devices 1 Fake H100"]);
}

/// A toolkit's stub before the driver in LD_LIBRARY_PATH.
#[test]
fn a_stub_is_named() {
    let driver = fake::driver();
    let (stubs, real) = (driver.join("stubs"), driver.join("real"));
    for (folder, name) in [(&stubs, "libcuda.so"), (&real, "libcuda.so.1")] {
        std::fs::create_dir_all(folder).unwrap();
        fake::place(&driver.join("libcuda.so.1"), &folder.join(name));
    }
    let path = std::env::join_paths([&stubs, &real]).unwrap();
    let mut command = scene("scenes::all_calls");
    let text = fake::said(command.env("LD_LIBRARY_PATH", path).env("FAKE_FAIL", "cuInit=34"));
    let stub = stubs.join("libcuda.so");
    has(&text, &[&format!("error: {} is a CUDA toolkit's stub", stub.display())]);
    has(&text, &["LD_LIBRARY_PATH"]);
}

/// Kernels are loaded again in a context that was reset, and handles from before are not used:
/// the fake driver has given them to others.
#[test]
fn a_reset_context() {
    if built() {
        let text = play("reset_scene", "");
        let (full, causal) = ("fwd_sm90_bf16_d64_full", "fwd_sm90_bf16_d64_causal");
        let events: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("compile") || line.starts_with("launch"))
            .collect();
        let wanted = [
            format!("compile {full}"),
            format!("launch {full}"),
            // Reset; another kernel comes first and gets the first one's handle.
            format!("compile {causal}"),
            format!("launch {causal}"),
            format!("compile {full}"),
            format!("launch {full}"),
            // Reset and opened again.
            format!("compile {full}"),
            format!("launch {full}"),
        ];
        assert_eq!(events, wanted, "{text}");
    }
}

/// Kernels are loaded for each context, and again for one that has another's handle.
#[test]
fn a_context_of_someone_else() {
    if built() {
        let text = play("foreign_context", "");
        let full = "fwd_sm90_bf16_d64_full";
        let events: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("compile") || line.starts_with("launch"))
            .collect();
        let (compile, launch) = (format!("compile {full}"), format!("launch {full}"));
        let wanted = [&compile, &launch, &launch, &compile, &launch, &compile, &launch];
        assert_eq!(events, wanted, "{text}");
        has(&text, &["done"]);
    }
    for (call, code, name) in [
        ("cuCtxGetDevice", 201, "CUDA_ERROR_INVALID_CONTEXT"),
        ("cuDeviceGetAttribute", 1, "CUDA_ERROR_INVALID_VALUE"),
    ] {
        let text = play("foreign_context", &format!("{call}={code}"));
        has(&text, &[&format!("error: {call} failed with {name}")]);
    }
}

/// The kernels of a context are the same, however it came.
#[test]
fn the_primary_context_by_its_handle() {
    if built() {
        let text = play("primary_context_by_its_handle", "");
        has(&text, &["error: cuCtxPushCurrent failed with CUDA_ERROR_INVALID_CONTEXT", "null"]);
        assert_eq!(text.matches("compile ").count(), 1, "{text}");
        assert_eq!(text.matches("launch ").count(), 2, "{text}");
    }
}

/// Compilations of different kernels overlap: each waits in the driver until the other is there.
#[test]
fn two_threads_that_want_different_kernels() {
    if built() {
        let mut command = scene("scenes::different_kernels");
        let text = fake::said(command.env("FAKE_MEET", "2"));
        has(&text, &["met fwd_sm90_bf16_d64_full\n", "met fwd_sm90_bf16_d64_causal\n"]);
    }
}

#[test]
fn threads_that_want_the_same_kernel() {
    if built() {
        let mut command = scene("scenes::one_kernel");
        let text = fake::said(command.env("FAKE_COMPILE_MS", "100"));
        assert_eq!(text.matches("compile ").count(), 1, "{text}");
    }
}

/// In the child every door answers at once, though a thread of the parent was loading a kernel.
#[test]
fn a_forked_process() {
    if built() {
        let mut command = scene("scenes::forked");
        let text = fake::said(command.env("FAKE_COMPILE_MS", "2000"));
        assert_eq!(text.matches("child: process ").count(), 5, "{text}");
        has(&text, &["was forked from one that had used the CUDA driver", "child ended well"]);
    }
}

/// Before the first use of the driver a fork does no harm, nor after one that failed.
#[test]
fn a_process_forked_before() {
    if built() {
        has(&play("forked_before", ""), &["child ended well", "launch fwd_sm90_bf16_d64_full"]);
    }
    has(&play("forked_before", "cuInit=100"), &["child: no device 0", "child ended well"]);
}
