//! What is done in a process of its own, with the fake driver; run by the tests only.

use std::thread;
use std::time::Duration;

use fulgurite::cudarc::driver::sys;
use fulgurite::internals::TensorMapSpec;
use fulgurite::{
    Context, Dtype, Error, FlashAttention, Forward, ForwardArgs, Layout, Mask, Prepared,
    RawWorkspace, Workspace,
};
use half::bf16;

/// 1 batch entry, 4096 rows, 16 heads, head dim 64: the first kernel for the mask.
fn request(mask: Mask) -> Forward {
    let layout = Layout::bshd(Dtype::Bf16, 1, 4096, 16, 64);
    Forward::new(layout, layout, layout, layout, mask)
}

fn launch<C: Context>(prepared: &Prepared<Forward, C>) -> Result<(), Error> {
    let args = ForwardArgs::new(0x1000_u64, 0x2000_u64, 0x3000_u64, 0x4000_u64);
    // SAFETY: the fake driver follows no address and runs no kernel.
    unsafe { prepared.launch_raw(std::ptr::null_mut(), args) }
}

fn open_and_launch() -> Result<(), Error> {
    let attention = FlashAttention::open(0)?;
    let prepared = attention.plan(&request(Mask::Full))?;
    launch(&prepared)?;
    // A thread without a context.
    thread::scope(|scope| scope.spawn(|| launch(&prepared)).join()).expect("no panic")
}

/// Frees the process from its context, as `cudaDeviceReset` does.
fn reset() {
    // SAFETY: the fake driver's; what is lost by it is what the scene is about.
    assert_eq!(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }, sys::CUresult::CUDA_SUCCESS);
}

#[test]
#[ignore = "a scene"]
fn all_calls() {
    match open_and_launch() {
        Ok(()) => println!("done"),
        Err(error) => println!("error: {error}"),
    }
}

#[test]
#[ignore = "a scene"]
fn lend() {
    let attention = FlashAttention::open(0).unwrap();
    let prepared = attention.plan(&request(Mask::Full)).unwrap();
    // SAFETY: one stream; the fake driver has no events.
    unsafe { attention.context().disable_event_tracking() };
    let stream = attention.context().default_stream();
    // SAFETY: nobody reads them.
    let buffer = || unsafe { stream.alloc::<bf16>(4096 * 16 * 64) }.unwrap();
    let (q, k, v, mut out) = (buffer(), buffer(), buffer(), buffer());
    let mut workspace = Workspace::new(&stream);

    let want = 1 << 20;
    let args = ForwardArgs::new(&q, &k, &v, &mut out).workspace(&mut workspace);
    let short = prepared.lend(&stream, args, want, |_| panic!("nothing is lent"));
    assert_eq!(short, Err::<(), _>(Error::WorkspaceShort { got: 0, want }));
    let args = ForwardArgs::new(&q, &k, &v, &mut out);
    let short = prepared.lend(&stream, args, want, |_| panic!("nothing is lent"));
    assert_eq!(short, Err::<(), _>(Error::WorkspaceShort { got: 0, want }));

    workspace.grow(want).unwrap();
    let args = ForwardArgs::new(&q, &k, &v, &mut out).workspace(&mut workspace);
    let names = ["q", "k", "v", "out", "workspace"];
    let lent = prepared.lend(&stream, args, want, |address| names.map(address)).unwrap();
    // The fake driver gives memory from low addresses to high ones.
    assert!(lent.is_sorted_by(|one, other| *one > 0 && one < other), "{lent:x?}");
    let none = ForwardArgs::new(&q, &k, &v, &mut out);
    assert_eq!(prepared.lend(&stream, none, 0, |address| address("k")), Ok(lent[1]));

    let raw = |bytes| {
        let workspace = RawWorkspace { address: lent[4], bytes };
        ForwardArgs::new(lent[0], lent[1], lent[2], lent[3]).workspace(workspace)
    };
    let short = prepared.lend_raw(raw(want - 1), want, |_| panic!("nothing is lent"));
    assert_eq!(short, Err::<(), _>(Error::WorkspaceShort { got: want - 1, want }));
    assert_eq!(prepared.lend_raw(raw(want), want, |address| names.map(address)), Ok(lent));
    let misaligned = ForwardArgs::new(lent[0] + 8, lent[1], lent[2], lent[3]);
    let refused = prepared.lend_raw(misaligned, 0, |_| panic!("nothing is lent"));
    assert!(matches!(refused, Err::<(), _>(Error::Misaligned { buffer: "q", .. })));
    println!("lent");
    // The fake driver frees nothing.
    std::mem::forget((q, k, v, out, workspace));
}

#[test]
#[ignore = "a scene"]
fn information() {
    let driver = fulgurite::driver_info().unwrap();
    println!("{} CUDA {:?}", driver.library.display(), driver.cuda_version);
    let devices = fulgurite::devices().unwrap();
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    println!("devices {} {}", devices.len(), names.join(", "));
}

#[test]
#[ignore = "a scene"]
fn reset_scene() {
    let gone = Err(Error::ContextGone { ordinal: 0 });
    let attention = FlashAttention::open(0).unwrap();
    let old = attention.plan(&request(Mask::Full)).unwrap();
    launch(&old).unwrap();

    reset();
    assert_eq!(launch(&old), gone);
    assert_eq!(attention.plan(&request(Mask::Full)).map(|_| ()), gone);

    // CUDA's runtime does this in its next call.
    let mut context = std::ptr::null_mut();
    // SAFETY: `context` is writable.
    let code = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, 0) };
    assert_eq!((code, context), (sys::CUresult::CUDA_SUCCESS, attention.context().cu_ctx()));
    launch(&attention.plan(&request(Mask::Causal)).unwrap()).unwrap();
    assert_eq!(launch(&old), gone);
    launch(&attention.plan(&request(Mask::Full)).unwrap()).unwrap();

    reset();
    let again = FlashAttention::open(0).unwrap();
    launch(&again.plan(&request(Mask::Full)).unwrap()).unwrap();
    assert_eq!(launch(&old), gone);
}

/// A context that the driver made for someone else, and what frees it. Found by name: bindings of
/// different versions of CUDA have it by different names.
fn foreign() -> (sys::CUcontext, impl FnOnce()) {
    type Create = unsafe extern "C" fn(*mut sys::CUcontext, u32, i32) -> i32;
    type Destroy = unsafe extern "C" fn(sys::CUcontext) -> i32;
    let mut context = std::ptr::null_mut();
    let driver = fulgurite::driver_info().unwrap().library;
    // SAFETY: the fake driver, which this process has loaded, has these functions.
    let destroy = unsafe {
        let driver = libloading::Library::new(driver).unwrap();
        let create: Create = *driver.get(b"cuCtxCreate_v2").unwrap();
        assert_eq!(create(&raw mut context, 0, 0), 0);
        let destroy: Destroy = *driver.get(b"cuCtxDestroy_v2").unwrap();
        std::mem::forget(driver);
        destroy
    };
    // SAFETY: the context was just made.
    (context, move || assert_eq!(unsafe { destroy(context) }, 0))
}

#[test]
#[ignore = "a scene"]
fn foreign_context() {
    let (context, destroy) = foreign();
    // SAFETY: it is alive until it is destroyed below; what comes after is refused.
    let open = || unsafe { FlashAttention::of_raw(context) };
    let attention = match open() {
        Ok(attention) => attention,
        Err(error) => return println!("error: {error}"),
    };
    assert_eq!((attention.context().handle(), attention.context().ordinal()), (context, 0));
    assert_eq!(attention.facts().name, "Fake H100");
    let old = attention.plan(&request(Mask::Full)).unwrap();
    launch(&old).unwrap();
    launch(&open().unwrap().plan(&request(Mask::Full)).unwrap()).unwrap();
    // A thread with another context.
    thread::scope(|scope| {
        scope.spawn(|| launch(&FlashAttention::open(0)?.plan(&request(Mask::Full))?));
    });

    destroy();
    let gone = Err(Error::ContextGone { ordinal: 0 });
    assert_eq!(launch(&old), gone);
    assert_eq!(attention.plan(&request(Mask::Full)).map(|_| ()), gone);
    // The next context has the handle of the last one.
    let (again, _) = foreign();
    assert_eq!(again, context);
    assert_eq!(launch(&old), gone);
    launch(&attention.plan(&request(Mask::Full)).unwrap()).unwrap();
    println!("done");
}

#[test]
#[ignore = "a scene"]
fn primary_context_by_its_handle() {
    // SAFETY: no context is null, which is refused.
    match unsafe { FlashAttention::of_raw(std::ptr::null_mut()) } {
        Err(error) => println!("error: {error}"),
        Ok(_) => panic!("there is no such context"),
    }
    let attention = FlashAttention::open(0).unwrap();
    launch(&attention.plan(&request(Mask::Full)).unwrap()).unwrap();
    // SAFETY: the context of `attention`, which is alive to the end.
    let raw = unsafe { FlashAttention::of_raw(attention.context().cu_ctx()) }.unwrap();
    launch(&raw.plan(&request(Mask::Full)).unwrap()).unwrap();
}

#[test]
#[ignore = "a scene"]
fn different_kernels() {
    let attention = FlashAttention::open(0).unwrap();
    thread::scope(|scope| {
        for mask in [Mask::Full, Mask::Causal] {
            let attention = &attention;
            scope.spawn(move || launch(&attention.plan(&request(mask)).unwrap()).unwrap());
        }
    });
}

#[test]
#[ignore = "a scene"]
fn one_kernel() {
    let attention = FlashAttention::open(0).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| launch(&attention.plan(&request(Mask::Full)).unwrap()).unwrap());
        }
    });
}

/// Runs `child` in a forked process, and waits for it at most 10 seconds.
fn in_child(child: impl FnOnce()) {
    // SAFETY: the child runs `child` and ends, without unwinding into what this thread was in.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(ended.is_err())) };
    }
    for _ in 0..1000 {
        let mut status = 0;
        // SAFETY: `status` is writable; the process is a child of this one.
        match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
            0 => thread::sleep(Duration::from_millis(10)),
            _ => {
                assert_eq!(status, 0);
                println!("child ended well");
                return;
            }
        }
    }
    // SAFETY: a child of this process that has not ended.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    panic!("the child hangs");
}

#[test]
#[ignore = "a scene"]
fn forked() {
    let attention = FlashAttention::open(0).unwrap();
    let prepared = attention.plan(&request(Mask::Full)).unwrap();
    let layout = Layout::bshd(Dtype::Bf16, 1, 4096, 16, 64);
    thread::scope(|scope| {
        // Still loading while the process forks.
        scope.spawn(|| attention.plan(&request(Mask::Causal)).unwrap());
        thread::sleep(Duration::from_millis(500));
        in_child(|| {
            for result in [
                launch(&prepared),
                attention.plan(&request(Mask::Causal)).map(|_| ()),
                FlashAttention::load(attention.context()).map(|_| ()),
                FlashAttention::open(0).map(|_| ()),
                TensorMapSpec::boxed(&layout, [64, 64]).encode(0x1000).map(|_| ()),
            ] {
                assert!(matches!(result, Err(Error::Forked { .. })));
                println!("child: {}", result.unwrap_err());
            }
        });
    });
}

#[test]
#[ignore = "a scene"]
fn forked_before() {
    if std::env::var_os("FAKE_FAIL").is_some_and(|fail| !fail.is_empty()) {
        println!("parent: {}", open_and_launch().unwrap_err());
    }
    in_child(|| {
        if let Err(error) = open_and_launch() {
            println!("child: {error}");
        }
    });
}
