//! A driver that computes nothing and fails when told to; compiled on its own, by `fake.rs`,
//! into a `libcuda.so.1`.
//!
//! * `FAKE_FAIL=cuInit=802,cuLaunchKernel=700`: these calls fail with these codes.
//! * `FAKE_DEVICES=2`: so many GPUs; one if unset.
//! * `FAKE_MEET=2`: a kernel is compiled only once so many compilations are under way.
//! * `FAKE_COMPILE_MS=500`: how long a compilation takes.
//!
//! It prints what it loads, launches and sets. As of a true driver (H100, driver 580): a reset
//! primary context keeps its address, answers 709 until it is retained again and has another id
//! then, the functions from before are unknown, and in a forked process every call answers 3.
//! Handles of such functions are given to others, as may happen.

#![allow(non_snake_case, clippy::missing_safety_doc)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Duration;

type Handle = *mut c_void;

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const NOT_INITIALIZED: c_int = 3;
const INVALID_DEVICE: c_int = 101;
const INVALID_CONTEXT: c_int = 201;
const INVALID_HANDLE: c_int = 400;
const NOT_FOUND: c_int = 500;
const DESTROYED: c_int = 709;

/// Devices at most.
const DEVICES: usize = 4;

/// What the driver knows. The handle of a device's primary context is the device's number and 1,
/// that of the one context which it may have besides is larger by [`DEVICES`].
struct State {
    lives: [u64; 2 * DEVICES],
    last_life: u64,
    /// Kernels of modules; a module's handle is its place and 1, and so is its function's.
    modules: Vec<String>,
    compiling: usize,
}

static STATE: Mutex<State> =
    Mutex::new(State { lives: [0; 2 * DEVICES], last_life: 0, modules: Vec::new(), compiling: 0 });
/// The process that initialised the driver.
static PROCESS: OnceLock<u32> = OnceLock::new();
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// The context of a thread.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The code that a call shall fail with: the one it was told, or 3 in a forked process.
fn told(call: &str) -> c_int {
    if PROCESS.get().is_some_and(|process| *process != std::process::id()) {
        return NOT_INITIALIZED;
    }
    let told = std::env::var("FAKE_FAIL").unwrap_or_default();
    let code = told.split(',').filter_map(|rule| rule.split_once('='));
    code.filter(|(name, _)| *name == call)
        .map(|(_, code)| code.parse().unwrap())
        .next()
        .unwrap_or(0)
}

/// A function of the driver: fails if told to, else does what its body says.
macro_rules! call {
    ($name:ident($($argument:ident: $type:ty),*) $body:block) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            match told(stringify!($name).trim_end_matches("_v2")) {
                SUCCESS => $body,
                code => code,
            }
        }
    };
}

/// Writes an answer.
fn give<T>(place: *mut T, value: T) -> c_int {
    // SAFETY: the caller of the driver passes a writable place.
    unsafe { place.write(value) };
    SUCCESS
}

call!(cuInit(_flags: c_uint) {
    PROCESS.get_or_init(std::process::id);
    SUCCESS
});
call!(cuDriverGetVersion(version: *mut c_int) { give(version, 12040) });
call!(cuDeviceGetCount(count: *mut c_int) { give(count, number("FAKE_DEVICES", 1) as c_int) });
call!(cuDeviceGet(device: *mut c_int, ordinal: c_int) {
    let known = (ordinal as usize) < number("FAKE_DEVICES", 1);
    if known { give(device, ordinal) } else { INVALID_DEVICE }
});
call!(cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) {
    let text = c"Fake H100";
    assert!(length as usize > text.count_bytes());
    // SAFETY: the place has the length given, which is enough.
    unsafe { name.copy_from_nonoverlapping(text.as_ptr(), text.count_bytes() + 1) };
    SUCCESS
});
call!(cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) { give(bytes, 80 << 30) });
call!(cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
    give(
        value,
        match attribute {
            16 => 132,
            38 => 50 << 20,
            75 => 9,
            76 => 0,
            81 => 233_472,
            97 => 232_448,
            _ => 0,
        },
    )
});
call!(cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) {
    let mut state = STATE.lock().unwrap();
    if state.lives[device as usize] == 0 {
        state.last_life += 1;
        state.lives[device as usize] = state.last_life;
    }
    give(context, (device as usize + 1) as Handle)
});
call!(cuDevicePrimaryCtxRelease_v2(_device: c_int) { SUCCESS });
call!(cuDevicePrimaryCtxReset_v2(device: c_int) {
    let mut state = STATE.lock().unwrap();
    state.lives[device as usize] = 0;
    state.modules.clear();
    SUCCESS
});
call!(cuCtxCreate_v2(context: *mut Handle, _flags: c_uint, device: c_int) {
    let mut state = STATE.lock().unwrap();
    state.last_life += 1;
    let place = DEVICES + device as usize;
    assert_eq!(state.lives[place], 0, "one context for each device");
    state.lives[place] = state.last_life;
    CURRENT.set(place + 1);
    give(context, (place + 1) as Handle)
});
call!(cuCtxDestroy_v2(context: Handle) {
    STATE.lock().unwrap().lives[context as usize - 1] = 0;
    if CURRENT.get() == context as usize {
        CURRENT.set(0);
    }
    SUCCESS
});
call!(cuCtxGetDevice(device: *mut c_int) {
    match CURRENT.get() {
        0 => INVALID_CONTEXT,
        context => give(device, ((context - 1) % DEVICES) as c_int),
    }
});
call!(cuCtxGetId(context: Handle, id: *mut c_ulonglong) {
    match STATE.lock().unwrap().lives[context as usize - 1] {
        0 => DESTROYED,
        life => give(id, life),
    }
});
call!(cuCtxGetCurrent(context: *mut Handle) {
    give(context, CURRENT.get() as Handle)
});
call!(cuCtxSetCurrent(context: Handle) {
    CURRENT.set(context as usize);
    SUCCESS
});
call!(cuCtxPushCurrent_v2(context: Handle) {
    assert_eq!(CURRENT.replace(context as usize), 0, "contexts are pushed onto empty stacks only");
    SUCCESS
});
call!(cuCtxPopCurrent_v2(context: *mut Handle) { give(context, CURRENT.take() as Handle) });
call!(cuModuleLoadDataEx(
    module: *mut Handle, image: *const c_char, _count: c_uint, _options: *mut c_int,
    _values: *mut *mut c_void
) {
    // SAFETY: the image is a text that ends with a zero byte.
    let text = unsafe { CStr::from_ptr(image) }.to_string_lossy();
    let entry = text.split(".entry ").nth(1).unwrap().split('(').next().unwrap().trim().to_owned();
    println!("compile {entry}");
    let mut state = STATE.lock().unwrap();
    state.compiling += 1;
    CHANGED.notify_all();
    let met = |state: &mut State| state.compiling < number("FAKE_MEET", 1);
    let (waited, time) =
        CHANGED.wait_timeout_while(state, Duration::from_secs(10), met).unwrap();
    drop(waited);
    println!("{} {entry}", if time.timed_out() { "alone" } else { "met" });
    std::thread::sleep(Duration::from_millis(number("FAKE_COMPILE_MS", 0) as u64));
    state = STATE.lock().unwrap();
    state.modules.push(entry);
    give(module, state.modules.len() as Handle)
});
call!(cuModuleUnload(_module: Handle) { SUCCESS });
call!(cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) {
    // SAFETY: a name that ends with a zero byte.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    match STATE.lock().unwrap().modules.get(module as usize - 1) {
        Some(entry) if *entry == name => give(function, module),
        _ => NOT_FOUND,
    }
});
call!(cuFuncSetAttribute(_function: Handle, _attribute: c_int, _value: c_int) { SUCCESS });
call!(cuTensorMapEncodeTiled(
    map: *mut [u64; 16], _type: c_int, rank: c_uint, _address: Handle, _dims: *const u64,
    _strides: *const u64, _box: *const c_uint, _steps: *const c_uint, _interleave: c_int,
    _swizzle: c_int, _promotion: c_int, _fill: c_int
) {
    if rank == 4 { give(map, [0; 16]) } else { INVALID_VALUE }
});
call!(cuMemAlloc_v2(address: *mut u64, bytes: usize) {
    // Addresses that no memory has, far enough from each other.
    static NEXT: AtomicU64 = AtomicU64::new(1 << 40);
    let bytes = bytes.next_multiple_of(512) as u64;
    give(address, NEXT.fetch_add(bytes, Ordering::Relaxed))
});
call!(cuMemcpyHtoD_v2(_to: u64, _from: *const c_void, _bytes: usize) { SUCCESS });
call!(cuMemcpyDtoH_v2(_to: *mut c_void, _from: u64, _bytes: usize) { SUCCESS });
call!(cuCtxSynchronize() { SUCCESS });
call!(cuMemsetD8Async(address: u64, value: u8, bytes: usize, _stream: Handle) {
    println!("set {bytes} bytes at {address:#x} to {value}");
    SUCCESS
});
call!(cuStreamIsCapturing(_stream: Handle, status: *mut c_int) { give(status, 0) });
call!(cuLaunchKernel(
    function: Handle, _x: c_uint, _y: c_uint, _z: c_uint, _threads: c_uint, _ty: c_uint,
    _tz: c_uint, _smem: c_uint, _stream: Handle, _parameters: *mut Handle, _extra: *mut Handle
) {
    match STATE.lock().unwrap().modules.get((function as usize).wrapping_sub(1)) {
        Some(entry) => {
            println!("launch {entry}");
            SUCCESS
        }
        None => INVALID_HANDLE,
    }
});
