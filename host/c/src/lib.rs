//! The C interface of Fulgurite: what `fulgurite.h` declares, and nothing else.
//!
//! Contracts are in the header. Every function catches panics, returns a [`Status`] and keeps the
//! message of a failure for [`fulgurite_last_error`].

mod device;
mod outcome;
mod request;

use std::ffi::{CString, c_char, c_void};

use fulgurite::cudarc::driver::sys::CUstream;
use fulgurite::{Pointers, Prepared};

pub use outcome::{Status, fulgurite_last_error};
pub use request::{Request, Strides};

use outcome::{Failure, guard};

/// A checked request with its kernel loaded: `fulgurite_plan`.
pub struct Plan {
    prepared: Prepared,
    /// The kernel's name for C.
    variant: CString,
}

/// `fulgurite_version` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn fulgurite_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// `fulgurite_plan_create` of the header.
///
/// # Safety
/// `request` is null or points to a `fulgurite_request`; `plan` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_create(
    request: *const Request,
    plan: *mut *mut Plan,
) -> Status {
    guard(|| {
        if plan.is_null() {
            return Err(Failure::null("plan"));
        }
        // SAFETY: null or a request, by this function's contract.
        let request = unsafe { Request::read(request) }?;
        let forward = request.forward()?;
        request::check(&forward)?;
        let prepared = device::plan(request.device, &forward)?;
        let variant = CString::new(prepared.plan().variant().entry)
            .map_err(|_| Failure::internal("the kernel's name contains a zero byte"))?;
        let made = Box::into_raw(Box::new(Plan { prepared, variant }));
        // SAFETY: not null, and writable by this function's contract.
        unsafe { plan.write(made) };
        Ok(())
    })
}

/// `fulgurite_plan_variant` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `name` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_variant(
    plan: *const Plan,
    name: *mut *const c_char,
) -> Status {
    guard(|| {
        // SAFETY: null or a living plan, by this function's contract.
        let plan = unsafe { living(plan) }?;
        // SAFETY: null or writable, by this function's contract.
        unsafe { write(name, "name", plan.variant.as_ptr()) }
    })
}

/// `fulgurite_plan_is_noop` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `is_noop` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_is_noop(plan: *const Plan, is_noop: *mut i32) -> Status {
    guard(|| {
        // SAFETY: null or a living plan, by this function's contract.
        let plan = unsafe { living(plan) }?;
        // SAFETY: null or writable, by this function's contract.
        unsafe { write(is_noop, "is_noop", i32::from(plan.prepared.plan().is_noop())) }
    })
}

/// `fulgurite_launch` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; for stream and addresses the contract is that
/// of [`Prepared::launch_raw`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_launch(
    plan: *const Plan,
    stream: CUstream,
    q: *const c_void,
    k: *const c_void,
    v: *const c_void,
    out: *mut c_void,
    lse: *mut c_void,
) -> Status {
    guard(|| {
        // SAFETY: null or a living plan, by this function's contract.
        let plan = unsafe { living(plan) }?;
        let [q, k, v] = [q, k, v].map(|pointer| pointer.addr() as u64);
        let lse = (!lse.is_null()).then_some(lse.addr() as u64);
        let pointers = Pointers { q, k, v, out: out.addr() as u64, lse };
        // SAFETY: this function's contract.
        Ok(unsafe { plan.prepared.launch_raw(stream, &pointers) }?)
    })
}

/// `fulgurite_plan_destroy` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed, and no other call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_destroy(plan: *mut Plan) -> Status {
    guard(|| {
        if !plan.is_null() {
            // SAFETY: made by `fulgurite_plan_create` from a box, and given back once, by this
            // function's contract.
            drop(unsafe { Box::from_raw(plan) });
        }
        Ok(())
    })
}

/// # Safety
/// `plan` is null or a plan that lives at least as long as the result is used.
unsafe fn living<'a>(plan: *const Plan) -> Result<&'a Plan, Failure> {
    // SAFETY: this function's contract.
    unsafe { plan.as_ref() }.ok_or(Failure::null("plan"))
}

/// # Safety
/// `place` is null or writable.
unsafe fn write<T>(place: *mut T, name: &'static str, value: T) -> Result<(), Failure> {
    if place.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: not null, and writable by this function's contract.
    unsafe { place.write(value) };
    Ok(())
}
