//! The C interface on the fake driver of the host crate: resets and forks. Each test runs a scene
//! in a process of its own.

#![cfg(target_os = "linux")]

#[path = "../../tests/fake_driver/fake.rs"]
mod fake;

use std::ffi::CStr;
use std::process::Command;
use std::ptr::{null_mut, without_provenance, without_provenance_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use fulgurite::VARIANTS;
use fulgurite::cudarc::driver::sys;
use fulgurite_c::{
    Plan, Request, Status, Strides, fulgurite_last_error, fulgurite_launch, fulgurite_plan_create,
    fulgurite_plan_destroy,
};

/// The source of the fake driver.
pub const SOURCE: &str = "../tests/fake_driver/libcuda.rs";

fn create() -> (Status, *mut Plan) {
    let strides = Strides { batch: 1 << 20, head: 64, row: 1024 };
    let request = Request {
        size_bytes: size_of::<Request>() as u32,
        dtype: 0,
        mask: 0,
        lse: 0,
        scale: 0.0,
        device: 0,
        batch: 1,
        heads: 16,
        heads_kv: 16,
        q_len: 1024,
        kv_len: 1024,
        head_dim: 64,
        q: strides,
        k: strides,
        v: strides,
        out: strides,
    };
    let mut plan = null_mut();
    // SAFETY: both are references.
    let status = unsafe { fulgurite_plan_create(&raw const request, &raw mut plan) };
    (status, plan)
}

fn launch(plan: *const Plan) -> Status {
    let [q, k, v] = [0x1000, 0x2000, 0x3000].map(without_provenance);
    let out = without_provenance_mut(0x4000);
    // SAFETY: the plan lives; the fake driver follows no address and runs no kernel.
    unsafe { fulgurite_launch(plan, null_mut(), q, k, v, out, null_mut()) }
}

#[track_caller]
fn says(part: &str) {
    // SAFETY: the string of this thread, valid until its next failure.
    let text = unsafe { CStr::from_ptr(fulgurite_last_error()) }.to_string_lossy();
    assert!(text.contains(part), "{part:?} is missing in: {text}");
}

/// Runs test `name` of this program in a process of its own that finds the fake driver.
fn scene(name: &str) -> Command {
    let mut command = fake::command(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Runs a scene, if there are kernels to load.
fn play(name: &str) {
    if fulgurite::ptx(&VARIANTS[0]).is_some() {
        println!("{}", fake::said(&mut scene(name)));
    } else {
        eprintln!("skipped: the kernels are not built (`cargo xtask build`)");
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
    says("was reset or destroyed");
    let (status, new) = create();
    assert_eq!((status, launch(new), launch(old)), (Status::Ok, Status::Ok, Status::Driver));
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
    in_child(|| {
        assert_eq!((launch(plan), create().0), (Status::Driver, Status::Driver));
        says("was forked from one that had used the CUDA driver");
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
