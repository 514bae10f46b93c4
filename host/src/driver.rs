//! The thin layer over cudarc: contexts of the calling thread, modules.
//!
//! Everything that calls the driver checks the code through [`check`], which names the call.

use std::ffi::{CString, c_char, c_uint, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, sys};

pub(crate) use crate::library::{init, probe};
use crate::{DeviceFacts, Error, RawContext, codes};

/// Bytes of the compiler's messages that are kept.
const LOG_BYTES: usize = 8192;

/// Turns a driver's code into a result; `detail` is asked only for errors.
pub(crate) fn check(
    code: sys::CUresult,
    call: &'static str,
    detail: impl FnOnce() -> String,
) -> Result<(), Error> {
    if code == sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(failure(code, call, detail())) }
}

/// The error of a failed driver call.
pub fn failure(code: sys::CUresult, call: &'static str, detail: String) -> Error {
    let number = code as u32;
    let (name, meaning) = codes::describe(number)
        .unwrap_or_else(|| ("unknown".to_owned(), "a code that this version does not know"));
    let detail =
        if detail.is_empty() { meaning.to_owned() } else { format!("{meaning}; {detail}") };
    Error::Driver { call, code: number, name, detail, advice: codes::advice(number) }
}

/// Converts cudarc's error, naming the call.
pub(crate) fn failed(call: &'static str) -> impl FnOnce(DriverError) -> Error {
    move |error| failure(error.0, call, String::new())
}

/// Makes the context of device `ordinal`.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::DriverTooOld`], [`Error::StubDriver`], [`Error::Forked`],
/// [`Error::NoDevice`], [`Error::Driver`].
pub(crate) fn open(ordinal: usize) -> Result<Arc<CudaContext>, Error> {
    let count = device_count()?;
    if ordinal >= count {
        return Err(Error::NoDevice { ordinal, count });
    }
    // cudarc's errors name no call: all that it does is done before, by name.
    facts(ordinal)?;
    let retained = Retained::new(ordinal)?;
    if current()? != retained.context {
        // SAFETY: the context is retained.
        let code = unsafe { sys::cuCtxSetCurrent(retained.context) };
        check(code, "cuCtxSetCurrent", String::new)?;
    }
    CudaContext::new(ordinal).map_err(failed("a call of cudarc's CudaContext::new"))
}

/// A device's primary context, held until cudarc holds it as well.
struct Retained {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

impl Retained {
    /// # Errors
    /// [`Error::Driver`].
    fn new(ordinal: usize) -> Result<Self, Error> {
        let device = device(ordinal)?;
        let mut context = ptr::null_mut();
        // SAFETY: `context` is writable; the device exists.
        let code = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) };
        check(code, "cuDevicePrimaryCtxRetain", || format!("device {ordinal}"))?;
        Ok(Retained { device, context })
    }
}

impl Drop for Retained {
    fn drop(&mut self) {
        // SAFETY: retained by `new`, once. It can fail only where the next call fails too.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// The context of the calling thread; null if it has none.
///
/// # Errors
/// [`Error::Driver`].
fn current() -> Result<sys::CUcontext, Error> {
    let mut current = ptr::null_mut();
    // SAFETY: `current` is writable.
    let code = unsafe { sys::cuCtxGetCurrent(&raw mut current) };
    check(code, "cuCtxGetCurrent", String::new)?;
    Ok(current)
}

/// Devices that the driver shows.
///
/// # Errors
/// Those of [`init`] but [`Error::NoDevice`].
pub(crate) fn device_count() -> Result<usize, Error> {
    match init() {
        Ok(()) => {}
        Err(Error::NoDevice { .. }) => return Ok(0),
        Err(error) => return Err(error),
    }
    let mut count = 0;
    // SAFETY: `count` is writable.
    match unsafe { sys::cuDeviceGetCount(&raw mut count) } {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
        code => {
            check(code, "cuDeviceGetCount", String::new)?;
            Ok(usize::try_from(count).unwrap_or(0))
        }
    }
}

/// The driver's handle of a device.
///
/// # Errors
/// [`Error::Driver`].
fn device(ordinal: usize) -> Result<sys::CUdevice, Error> {
    let mut device = 0;
    // An ordinal beyond the type's range is one that no device has.
    let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
    // SAFETY: `device` is writable.
    let code = unsafe { sys::cuDeviceGet(&raw mut device, number) };
    check(code, "cuDeviceGet", || format!("device {ordinal}"))?;
    Ok(device)
}

/// The device of a context that is alive.
///
/// # Errors
/// [`Error::Driver`].
pub(crate) fn device_of(context: sys::CUcontext) -> Result<usize, Error> {
    if context.is_null() {
        let code = sys::CUresult::CUDA_ERROR_INVALID_CONTEXT;
        return Err(failure(code, "cuCtxPushCurrent", "the context is null".to_owned()));
    }
    let mut found = 0;
    {
        let _current = CurrentContext::enter(context)?;
        // SAFETY: `found` is writable.
        let code = unsafe { sys::cuCtxGetDevice(&raw mut found) };
        check(code, "cuCtxGetDevice", String::new)?;
    }
    for ordinal in 0..device_count()? {
        if device(ordinal)? == found {
            return Ok(ordinal);
        }
    }
    let code = sys::CUresult::CUDA_ERROR_INVALID_DEVICE;
    Err(failure(code, "cuCtxGetDevice", format!("no device has the handle {found}")))
}

/// The number of a context's life: another one after each reset, never the same for two contexts.
/// Takes 12 to 14 ns (H100, driver 580).
///
/// # Errors
/// [`Error::ContextGone`], [`Error::Driver`].
pub(crate) fn context_life(context: RawContext) -> Result<u64, Error> {
    let mut life = 0;
    // SAFETY: `life` is writable; the driver looks handles up, also those that are gone.
    let code = unsafe { sys::cuCtxGetId(context.handle(), &raw mut life) };
    match code {
        sys::CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | sys::CUresult::CUDA_ERROR_INVALID_CONTEXT
        | sys::CUresult::CUDA_ERROR_INVALID_HANDLE => {
            Err(Error::ContextGone { ordinal: context.ordinal() })
        }
        code => check(code, "cuCtxGetId", String::new).map(|()| life),
    }
}

/// Asks the driver for the facts of a device; no context is needed or made.
///
/// # Errors
/// [`Error::Driver`].
pub(crate) fn facts(ordinal: usize) -> Result<DeviceFacts, Error> {
    use sys::CUdevice_attribute as Attribute;
    let device = device(ordinal)?;
    let attribute = |attribute: Attribute| {
        let mut value = 0;
        // SAFETY: `value` is writable; the device exists.
        let code = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) };
        check(code, "cuDeviceGetAttribute", || format!("device {ordinal}, {attribute:?}"))?;
        Ok::<_, Error>(u32::try_from(value).unwrap_or(0))
    };
    Ok(DeviceFacts {
        name: cudarc::driver::result::device::get_name(device)
            .map_err(failed("cuDeviceGetName"))?,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        sm_count: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        smem_optin_bytes: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
        smem_per_sm_bytes: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
        )?,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
    })
}

/// Makes a context current on the calling thread; dropping it leaves the thread as it was, so
/// that a framework's idea of its current device is not disturbed.
pub(crate) struct CurrentContext {
    pushed: bool,
}

impl CurrentContext {
    /// # Errors
    /// [`Error::Driver`].
    pub(crate) fn enter(context: sys::CUcontext) -> Result<Self, Error> {
        if current()? == context {
            return Ok(CurrentContext { pushed: false });
        }
        // SAFETY: the context is alive: a `CudaContext` keeps it so, or its owner, by the contract
        // of `FlashAttention::of_raw`.
        let code = unsafe { sys::cuCtxPushCurrent_v2(context) };
        check(code, "cuCtxPushCurrent", String::new)?;
        Ok(CurrentContext { pushed: true })
    }
}

impl Drop for CurrentContext {
    fn drop(&mut self) {
        if self.pushed {
            let mut popped = ptr::null_mut();
            // SAFETY: `enter` pushed a context onto this thread's stack. A failure to pop would
            // show in the next call, which has an error path.
            let _ = unsafe { sys::cuCtxPopCurrent_v2(&raw mut popped) };
        }
    }
}

/// Whether work given to a stream is recorded into a graph.
///
/// # Errors
/// [`Error::Driver`].
pub(crate) fn is_capturing(stream: sys::CUstream) -> Result<bool, Error> {
    let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: the caller's stream is alive; `status` is writable.
    let code = unsafe { sys::cuStreamIsCapturing(stream, &raw mut status) };
    check(code, "cuStreamIsCapturing", String::new)?;
    Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
}

/// Has the driver compile PTX for the current context; its messages go into the error.
///
/// # Errors
/// [`Error::Driver`].
pub(crate) fn load_module(entry: &str, ptx: &str) -> Result<sys::CUmodule, Error> {
    let detail = |text: &str| format!("kernel {entry}: {text}");
    let image = CString::new(ptx).map_err(|_| {
        let code = sys::CUresult::CUDA_ERROR_INVALID_PTX;
        failure(code, "cuModuleLoadDataEx", detail("the PTX contains a zero byte"))
    })?;
    let mut log = vec![0_u8; LOG_BYTES];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
    let mut module = ptr::null_mut();
    // SAFETY: the image ends with a zero byte; options and values have two elements; the log
    // buffer has the size given and outlives the call.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &raw mut module,
            image.as_ptr().cast(),
            options.len() as c_uint,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    check(code, "cuModuleLoadDataEx", || {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
        detail(String::from_utf8_lossy(&log[..end]).trim())
    })?;
    Ok(module)
}

/// Unloads a module of the current context from which nothing was launched.
pub(crate) fn unload_module(module: sys::CUmodule) {
    // SAFETY: the caller's module is loaded and none of its code runs. It follows another failed
    // call, whose error is the one to report.
    let _ = unsafe { sys::cuModuleUnload(module) };
}

/// Looks up an entry of a module and lets it use `smem_bytes` of dynamic shared memory.
///
/// # Safety
/// `module` is loaded in the current context.
///
/// # Errors
/// [`Error::Driver`].
pub(crate) unsafe fn function(
    module: sys::CUmodule,
    entry: &'static str,
    smem_bytes: u32,
) -> Result<sys::CUfunction, Error> {
    let name = CString::new(entry).map_err(|_| Error::NotBuilt { entry: entry.to_owned() })?;
    let name: *const c_char = name.as_ptr();
    let mut function = ptr::null_mut();
    // SAFETY: the module is loaded (by contract); the name ends with a zero byte.
    let code = unsafe { sys::cuModuleGetFunction(&raw mut function, module, name) };
    check(code, "cuModuleGetFunction", || format!("kernel {entry}"))?;
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function was just found. Setting the attribute also makes a lazily loading
    // driver load the code now and not in the first launch, which may be captured.
    let code = unsafe { sys::cuFuncSetAttribute(function, attribute, smem_bytes as i32) };
    check(code, "cuFuncSetAttribute", || format!("kernel {entry}, {smem_bytes} bytes of smem"))?;
    Ok(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_without_a_device_is_an_error_and_no_panic() {
        match open(usize::MAX) {
            Err(Error::NoDriver { .. } | Error::DriverTooOld { .. } | Error::StubDriver { .. }) => {
            }
            Err(error @ Error::NoDevice { .. }) => {
                assert!(error.to_string().starts_with("no device 18446744073709551615"));
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}
