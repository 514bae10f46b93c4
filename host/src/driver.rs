//! The thin layer over cudarc: finding the driver, contexts of the calling thread, modules.
//!
//! Everything that calls the driver checks the code through [`check`], which names the call.

use std::ffi::{CString, c_char, c_uint, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};

use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, sys};
use libloading::Library;

use crate::{DeviceFacts, Error};

/// Names of the driver's library, in the order that they are tried.
const LIBRARIES: &[&str] =
    if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// A function that CUDA 12.0 added: the newest of those that the crate calls.
const NEWEST_SYMBOL: &str = "cuTensorMapEncodeTiled";

/// Bytes of the compiler's messages that are kept.
const LOG_BYTES: usize = 8192;

/// Finds out, once per process, whether the driver can be loaded; cudarc panics if it cannot.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::DriverTooOld`].
pub(crate) fn probe() -> Result<(), Error> {
    static FOUND: OnceLock<Result<Library, Error>> = OnceLock::new();
    FOUND.get_or_init(|| find(LIBRARIES)).as_ref().map(|_| ()).map_err(Clone::clone)
}

/// Loads the first of the libraries that is there and checks that it is new enough.
fn find(names: &[&'static str]) -> Result<Library, Error> {
    let mut reasons = Vec::new();
    for name in names {
        // SAFETY: the initialisers of NVIDIA's driver library may run at any time; cudarc loads
        // the same library right after.
        match unsafe { Library::new(*name) } {
            Ok(library) => {
                // SAFETY: the symbol is only looked up, never called through this type.
                let found = unsafe { library.get::<unsafe extern "C" fn()>(NEWEST_SYMBOL) }.is_ok();
                return if found {
                    Ok(library)
                } else {
                    Err(Error::DriverTooOld { symbol: NEWEST_SYMBOL })
                };
            }
            // What the system said is in the source; the error itself only names the call.
            Err(error) => reasons.push(match std::error::Error::source(&error) {
                Some(source) => source.to_string(),
                None => format!("{name}: {error}"),
            }),
        }
    }
    Err(Error::NoDriver { reason: reasons.join("; ") })
}

/// Turns a driver's code into a result; `detail` is asked only for errors.
pub(crate) fn check(
    code: sys::CUresult,
    call: &'static str,
    detail: impl FnOnce() -> String,
) -> Result<(), Error> {
    if code == sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(failure(code, call, detail())) }
}

/// The error of a failed driver call.
pub(crate) fn failure(code: sys::CUresult, call: &'static str, detail: String) -> Error {
    let error = DriverError(code);
    let text = |c_str: Result<&std::ffi::CStr, DriverError>| {
        c_str.map_or_else(|_| "unknown".to_owned(), |text| text.to_string_lossy().into_owned())
    };
    let explanation = text(error.error_string());
    let detail = if detail.is_empty() { explanation } else { format!("{explanation}; {detail}") };
    Error::Driver { call, code: code as u32, name: text(error.error_name()), detail }
}

/// Converts cudarc's error, naming the call.
pub(crate) fn failed(call: &'static str) -> impl FnOnce(DriverError) -> Error {
    move |error| failure(error.0, call, String::new())
}

/// Makes the context of device `ordinal`.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::DriverTooOld`], [`Error::NoDevice`], [`Error::Driver`].
pub(crate) fn open(ordinal: usize) -> Result<Arc<CudaContext>, Error> {
    probe()?;
    let count = match CudaContext::device_count() {
        Ok(count) => usize::try_from(count).unwrap_or(0),
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
        Err(error) => return Err(failed("cuDeviceGetCount")(error)),
    };
    if ordinal >= count {
        return Err(Error::NoDevice { ordinal, count });
    }
    CudaContext::new(ordinal).map_err(failed("cuDevicePrimaryCtxRetain"))
}

/// Asks the driver for the facts of a context's device.
///
/// # Errors
/// [`Error::Driver`].
pub(crate) fn facts(context: &CudaContext) -> Result<DeviceFacts, Error> {
    use sys::CUdevice_attribute as Attribute;
    let attribute = |attribute| {
        context
            .attribute(attribute)
            .map(|value| u32::try_from(value).unwrap_or(0))
            .map_err(failed("cuDeviceGetAttribute"))
    };
    Ok(DeviceFacts {
        name: context.name().map_err(failed("cuDeviceGetName"))?,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        sm_count: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        smem_optin_bytes: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
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
    pub(crate) fn enter(context: &CudaContext) -> Result<Self, Error> {
        let mut current = ptr::null_mut();
        // SAFETY: `current` is writable.
        let code = unsafe { sys::cuCtxGetCurrent(&raw mut current) };
        check(code, "cuCtxGetCurrent", String::new)?;
        if current == context.cu_ctx() {
            return Ok(CurrentContext { pushed: false });
        }
        // SAFETY: the context is alive as long as the `CudaContext`.
        let code = unsafe { sys::cuCtxPushCurrent_v2(context.cu_ctx()) };
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
        let hint = match code {
            sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => "update the driver. ",
            _ => "",
        };
        detail(&format!("{hint}{}", String::from_utf8_lossy(&log[..end]).trim()))
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
    let name = CString::new(entry).map_err(|_| Error::NotBuilt { entry })?;
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
    fn no_driver() {
        let error = find(&["libfulgurite-none.so.1", "libfulgurite-none.so"]).unwrap_err();
        assert!(matches!(error, Error::NoDriver { .. }));
        let text = error.to_string();
        for part in ["no NVIDIA driver", "libfulgurite-none.so.1", "install the driver"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn driver_too_old() {
        let error = find(&["libc.so.6"]).unwrap_err();
        assert_eq!(error, Error::DriverTooOld { symbol: "cuTensorMapEncodeTiled" });
        assert!(error.to_string().contains("CUDA 12.0 (525) or later"));
    }

    #[test]
    fn opening_without_a_device_is_an_error_and_no_panic() {
        match open(usize::MAX) {
            Err(Error::NoDriver { .. } | Error::DriverTooOld { .. }) => {}
            Err(error @ Error::NoDevice { .. }) => {
                assert!(error.to_string().starts_with("no device 18446744073709551615"));
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}
