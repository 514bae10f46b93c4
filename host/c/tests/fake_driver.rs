//! The C interface on the fake driver of the host crate: calls, resets and forks. Each test runs a
//! scene in a process of its own.

#![cfg(target_os = "linux")]

#[path = "../../tests/fake_driver/fake.rs"]
mod fake;

mod common;

use std::ffi::{CStr, c_void};
use std::process::Command;
use std::ptr::{null, null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{args, bshd, options, request, says};
use fulgurite::cudarc::driver::sys;
use fulgurite::internals::VARIANTS;
use fulgurite::{Error, FlashAttention, RawWorkspace};
use fulgurite_c::{
    ForwardArgs, ForwardRequest, Plan, PlanOptions, Status, fulgurite_device_supported,
    fulgurite_forward, fulgurite_launch_forward, fulgurite_plan_buffers, fulgurite_plan_describe,
    fulgurite_plan_destroy, fulgurite_plan_entry, fulgurite_plan_forward, fulgurite_plan_is_noop,
    fulgurite_plan_workspace_bytes, fulgurite_workspace_reset,
};

/// The source of the fake driver.
pub const SOURCE: &str = "../tests/fake_driver/libcuda.rs";

fn plan_with(request: &ForwardRequest, options: *const PlanOptions) -> (Status, *mut Plan) {
    let mut plan = null_mut();
    // SAFETY: references, but for the options, which are null or one.
    let status = unsafe { fulgurite_plan_forward(request, options, &raw mut plan) };
    (status, plan)
}

fn create() -> (Status, *mut Plan) {
    plan_with(&request(), null())
}

fn launch_with(plan: *const Plan, args: &ForwardArgs) -> Status {
    // SAFETY: the plan lives; the fake driver follows no address and runs no kernel.
    unsafe { fulgurite_launch_forward(plan, null_mut(), args) }
}

fn launch(plan: *const Plan) -> Status {
    launch_with(plan, &args())
}

/// A call without a plan of the caller's.
fn forward(request: &ForwardRequest) -> Status {
    // SAFETY: references; the fake driver follows no address and runs no kernel.
    unsafe { fulgurite_forward(request, null_mut(), &args()) }
}

fn reset(workspace: *mut c_void, bytes: u64) -> Status {
    // SAFETY: the fake driver follows no address.
    unsafe { fulgurite_workspace_reset(0, null_mut(), workspace, bytes) }
}

/// Runs test `name` of this program in a process of its own that finds the fake driver.
fn scene(name: &str) -> Command {
    let mut command = fake::command(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Runs a scene, if there are kernels to load, and returns what was printed.
fn play(name: &str) -> Option<String> {
    if !fulgurite::is_built(VARIANTS[0].entry) {
        eprintln!("skipped: the kernels are not built (`cargo xtask build`)");
        return None;
    }
    let said = fake::said(&mut scene(name));
    println!("{said}");
    Some(said)
}

#[test]
fn calls_reach_the_driver() {
    if let Some(said) = play("scene_of_calls") {
        let printed = |part: &str| said.lines().filter(|line| line.starts_with(part)).count();
        assert_eq!(printed("compile fwd_sm90_bf16_d64_causal_short"), 1);
        assert_eq!(printed("compile"), 2);
        assert_eq!(printed("launch fwd_sm90_bf16_d64_causal_short"), 3);
        assert_eq!(printed("launch fwd_sm90_bf16_d64_causal"), 4);
        assert_eq!(printed("set 8192 bytes at 0x6000 to 0"), 1);
        assert_eq!(printed("set 512 bytes at 0x6100 to 0"), 1);
        assert_eq!(printed("set "), 2);
    }
}

#[test]
#[ignore = "a scene"]
fn scene_of_calls() {
    assert_eq!(fulgurite_device_supported(0), Status::Ok);
    assert_eq!(fulgurite_device_supported(1), Status::Device);
    says(&["no device 1: this machine shows 1"]);
    let (status, plan) = create();
    assert_eq!((status, launch(plan)), (Status::Ok, Status::Ok));
    for _ in 0..2 {
        assert_eq!(forward(&request()), Status::Ok);
    }
    // What a launch may not bring, or has to.
    let (buffer, odd) = (Status::Buffer, without_provenance_mut(0x4002));
    assert_eq!(launch_with(plan, &ForwardArgs { lse: odd, ..args() }), buffer);
    says(&["the launch got a buffer for lse", "`with_lse`"]);
    assert_eq!(launch_with(plan, &ForwardArgs { out: odd, ..args() }), buffer);
    says(&["the address of out is 0x4002", "multiple of 16"]);
    assert_eq!(launch_with(plan, &ForwardArgs { k: null(), ..args() }), buffer);
    says(&["the address of k is null"]);
    // An earlier request stays what it was: the device is open, and what is wrong with one is told.
    assert_eq!(forward(&ForwardRequest { v: bshd(2, 100, 2, 64), ..request() }), Status::Request);
    says(&["v has rows 100, but k has 200"]);
    // The workspace's head.
    let workspace = |at: usize| without_provenance_mut(at);
    assert_eq!(reset(workspace(0x6000), 1 << 20), Status::Ok);
    assert_eq!(reset(workspace(0x6100), 512), Status::Ok);
    assert_eq!(reset(workspace(0), 0), Status::Ok);
    assert_eq!((reset(workspace(0), 1), reset(workspace(0x6010), 512)), (buffer, buffer));
    says(&["the address of workspace is 0x6010", "multiple of 256"]);
    scene_of_options();
}

/// Each option does what it says.
fn scene_of_options() {
    let entry = c"fwd_sm90_bf16_d64_causal";
    let chosen = PlanOptions { entry: entry.as_ptr(), sm_limit: 3, ..options() };
    let (status, plan) = plan_with(&request(), &chosen);
    assert_eq!((status, launch(plan)), (Status::Ok, Status::Ok));
    let (mut name, mut text, mut is_noop) = (null(), null(), -1);
    // SAFETY: the plan lives, the rest are references.
    let told = unsafe {
        [
            fulgurite_plan_entry(plan, &raw mut name),
            fulgurite_plan_describe(plan, &raw mut text),
            fulgurite_plan_is_noop(plan, &raw mut is_noop),
        ]
    };
    assert_eq!((told, is_noop), ([Status::Ok; 3], 0));
    // SAFETY: strings that live as long as the plan.
    let (told, text) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(text)) };
    assert_eq!(told, entry);
    assert!(text.to_string_lossy().contains("fwd_sm90_bf16_d64_causal: 3 blocks of"), "{text:?}");
    // Answers need a place.
    let (mut buffers, mut count) = (null(), 7);
    let nowhere = null_mut();
    // SAFETY: the plan lives, the rest is null or a reference.
    let told = unsafe {
        [
            fulgurite_plan_entry(plan, null_mut()),
            fulgurite_plan_workspace_bytes(plan, nowhere),
            fulgurite_plan_buffers(plan, null_mut(), &raw mut count),
            fulgurite_plan_buffers(plan, &raw mut buffers, nowhere),
        ]
    };
    assert_eq!((told, count, buffers), ([Status::Argument; 4], 7, null()));
    says(&["the pointer `count` is null"]);
    // Without work there is no kernel, and no address is looked at.
    let nothing = ForwardRequest { q: bshd(2, 0, 8, 64), out: bshd(2, 0, 8, 64), ..request() };
    let (status, plan) = plan_with(&nothing, null());
    // SAFETY: the plan lives, the rest are references.
    let told = unsafe {
        [fulgurite_plan_entry(plan, &raw mut name), fulgurite_plan_is_noop(plan, &raw mut is_noop)]
    };
    assert_eq!((status, told, is_noop), (Status::Ok, [Status::Ok; 2], 1));
    // SAFETY: a string that lives as long as the plan.
    assert_eq!(unsafe { CStr::from_ptr(name) }, c"");
    assert_eq!(launch_with(plan, &ForwardArgs { q: null(), ..args() }), Status::Ok);
}

#[test]
fn a_request_is_judged_by_the_device_that_is_there() {
    if fulgurite::is_built(VARIANTS[0].entry) {
        fake::said(scene("scene_without_devices").env("FAKE_DEVICES", "0"));
    }
}

#[test]
#[ignore = "a scene"]
fn scene_without_devices() {
    for call in [|it: &ForwardRequest| plan_with(it, null()).0, forward] {
        assert_eq!(call(&request()), Status::Device);
        says(&["the driver is there, but shows no GPU"]);
        assert_eq!(call(&ForwardRequest { scale: -1.0, ..request() }), Status::Request);
        says(&["softmax scale -1"]);
    }
}

#[test]
fn a_reset_context_is_opened_again() {
    play("scene_of_a_reset");
}

#[test]
#[ignore = "a scene"]
fn scene_of_a_reset() {
    let (status, old) = create();
    assert_eq!((status, launch(old)), (Status::Ok, Status::Ok));
    // SAFETY: the fake driver's; what is lost by it is what the scene is about.
    assert_eq!(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }, sys::CUresult::CUDA_SUCCESS);
    assert_eq!(launch(old), Status::Driver);
    says(&["was reset or destroyed"]);
    let (status, new) = create();
    assert_eq!((status, launch(new), launch(old)), (Status::Ok, Status::Ok, Status::Driver));
    // A call that brings no plan opens the device again by itself.
    // SAFETY: as above.
    assert_eq!(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }, sys::CUresult::CUDA_SUCCESS);
    assert_eq!(forward(&request()), Status::Ok);
    // SAFETY: as above.
    assert_eq!(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }, sys::CUresult::CUDA_SUCCESS);
    assert_eq!(reset(without_provenance_mut(0x100), 1), Status::Ok);
    let mut life = 0;
    // SAFETY: the fake driver's handle of device 0's context, and a reference.
    let lives = unsafe { sys::cuCtxGetId(without_provenance_mut(1), &raw mut life) };
    assert_eq!(lives, sys::CUresult::CUDA_SUCCESS, "resetting a workspace opens the device again");
}

#[test]
fn a_forked_process_gets_a_status() {
    play("scene_of_a_fork");
}

#[test]
#[ignore = "a scene"]
fn scene_of_a_fork() {
    let (status, plan) = create();
    assert_eq!(status, Status::Ok);
    let attention = FlashAttention::open(0).unwrap();
    in_child(|| {
        let workspace = RawWorkspace { address: 0x100, bytes: 1 };
        // SAFETY: the fake driver follows no address.
        let refused = unsafe { workspace.reset(&attention, null_mut()) };
        assert!(matches!(refused, Err(Error::Forked { .. })));
        assert_eq!((launch(plan), create().0), (Status::Driver, Status::Driver));
        says(&["was forked from one that had used the CUDA driver"]);
        assert_eq!((forward(&request()), reset(null_mut(), 0)), (Status::Driver, Status::Driver));
        assert_eq!(fulgurite_device_supported(0), Status::Driver);
    });
    assert_eq!(launch(plan), Status::Ok);
}

/// Runs `child` in a forked process, which is ended after 5 seconds.
fn in_child(child: impl FnOnce()) {
    // SAFETY: the child ends without returning into the test.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: ends this process later.
        unsafe { libc::alarm(5) };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(ended.is_err())) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable; the process is a child of this one.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(status, 0);
}

#[test]
fn locks_that_others_held_at_a_fork_are_not_waited_for() {
    play("scene_of_forks_amid_calls");
}

/// Of so many forks some come while another thread has a lock of the library.
#[test]
#[ignore = "a scene"]
fn scene_of_forks_amid_calls() {
    assert_eq!(create().0, Status::Ok);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (status, plan) = create();
                    assert_eq!(status, Status::Ok);
                    // SAFETY: just made, and used by nobody.
                    assert_eq!(unsafe { fulgurite_plan_destroy(plan) }, Status::Ok);
                }
            });
        }
        let forks = std::panic::catch_unwind(|| {
            for _ in 0..300 {
                in_child(|| assert_eq!(create().0, Status::Driver));
            }
        });
        done.store(true, Ordering::Relaxed);
        forks.expect("every child ends well");
    });
}
