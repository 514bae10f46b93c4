//! `fulgurite_plan`: a plan of whichever request, and what can be asked of it.

use std::any::Any;
use std::ffi::{CString, c_char, c_void};

use fulgurite::{Access, BufferNeed, Prepared, RawWorkspace, Request};

use crate::device;
use crate::layout::{DTYPES, number};
use crate::outcome::{Failure, Status, guard};

/// `fulgurite_buffer` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// The field of the arguments.
    pub name: *const c_char,
    /// Type of its elements.
    pub dtype: u32,
    /// 1: read, 2: written.
    pub access: u32,
    /// Elements it has at least.
    pub elements: u64,
    /// The same in bytes.
    pub bytes: u64,
    /// What its address is a multiple of.
    pub align_bytes: u64,
}

/// A checked request with its kernels loaded, `fulgurite_plan`, and what is told about it.
pub struct Plan {
    /// A [`Prepared`] of some request.
    prepared: Box<dyn Any + Send + Sync>,
    /// The request's name.
    request: &'static str,
    text: CString,
    entry: CString,
    /// What `buffers` points to.
    _names: Vec<CString>,
    buffers: Vec<Buffer>,
    workspace_bytes: u64,
    is_noop: bool,
}

impl Plan {
    /// Plans a request on a device and loads its kernels.
    pub(crate) fn new<R: Request>(
        ordinal: u32,
        request: &R,
        options: &fulgurite::PlanOptions,
    ) -> Result<Plan, Failure> {
        let prepared = device::plan(ordinal, request, options)?;
        let plan = prepared.plan();
        let names = plan.buffers().iter().map(|need| string(need.name));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let buffers = plan.buffers().iter().zip(&names).map(|(need, name)| buffer(need, name));
        Ok(Plan {
            request: R::NAME,
            text: string(plan.to_string())?,
            entry: string(plan.launches().last().map_or("", |launch| launch.entry()))?,
            buffers: buffers.collect::<Result<_, _>>()?,
            _names: names,
            workspace_bytes: plan.workspace_bytes(),
            is_noop: plan.is_noop(),
            prepared: Box::new(prepared),
        })
    }

    /// The plan, if it is one of this kind of request.
    pub(crate) fn prepared<R: Request>(&self) -> Result<&Prepared<R>, Failure> {
        self.prepared.downcast_ref().ok_or_else(|| {
            let (asked, own) = (R::NAME, self.request);
            Failure::argument(format!(
                "these are arguments of `{asked}`, but the plan is one of `{own}`: use \
                 fulgurite_launch_{own}, or a plan made by fulgurite_plan_{asked}"
            ))
        })
    }
}

fn string(text: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::internal("a name of this library has a zero byte"))
}

fn buffer(need: &BufferNeed, name: &CString) -> Result<Buffer, Failure> {
    let dtype = number(DTYPES, &need.dtype).ok_or_else(|| {
        Failure::internal(format!("the header has no number for {}", need.dtype.name()))
    })?;
    let elements = need.elements as u64;
    Ok(Buffer {
        name: name.as_ptr(),
        dtype,
        access: match need.access {
            Access::Read => 1,
            Access::Write => 2,
        },
        elements,
        bytes: elements * u64::from(need.dtype.bytes()),
        align_bytes: need.align_bytes,
    })
}

/// The workspace of a launch, if there is one.
pub(crate) fn raw_workspace(address: *mut c_void, bytes: u64) -> Option<RawWorkspace> {
    let address = address.addr() as u64;
    (address != 0 || bytes != 0).then_some(RawWorkspace { address, bytes })
}

/// # Safety
/// `plan` is null or a plan that lives at least as long as the result is used.
pub(crate) unsafe fn living<'a>(plan: *const Plan) -> Result<&'a Plan, Failure> {
    // SAFETY: this function's contract.
    unsafe { plan.as_ref() }.ok_or_else(|| Failure::null("plan"))
}

/// Writes what `ask` says of a plan.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `place`, which the header calls `name`, is null
/// or writable.
unsafe fn tell<T>(
    plan: *const Plan,
    place: *mut T,
    name: &str,
    ask: impl FnOnce(&Plan) -> T,
) -> Status {
    guard(|| {
        // SAFETY: null or a living plan, by this function's contract.
        let plan = unsafe { living(plan) }?;
        if place.is_null() {
            return Err(Failure::null(name));
        }
        // SAFETY: not null, and writable by this function's contract.
        unsafe { place.write(ask(plan)) };
        Ok(())
    })
}

/// `fulgurite_plan_workspace_bytes` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_workspace_bytes(
    plan: *const Plan,
    bytes: *mut u64,
) -> Status {
    // SAFETY: this function's contract.
    unsafe { tell(plan, bytes, "bytes", |plan| plan.workspace_bytes) }
}

/// `fulgurite_plan_buffers` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `buffers` and `count` are null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_buffers(
    plan: *const Plan,
    buffers: *mut *const Buffer,
    count: *mut u64,
) -> Status {
    if !plan.is_null() && count.is_null() {
        return guard(|| Err(Failure::null("count")));
    }
    // SAFETY: this function's contract; `count` is looked at only where `plan` is not null.
    unsafe {
        tell(plan, buffers, "buffers", |plan| {
            count.write(plan.buffers.len() as u64);
            plan.buffers.as_ptr()
        })
    }
}

/// `fulgurite_plan_describe` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `text` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_describe(
    plan: *const Plan,
    text: *mut *const c_char,
) -> Status {
    // SAFETY: this function's contract.
    unsafe { tell(plan, text, "text", |plan| plan.text.as_ptr()) }
}

/// `fulgurite_plan_entry` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `entry` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_entry(
    plan: *const Plan,
    entry: *mut *const c_char,
) -> Status {
    // SAFETY: this function's contract.
    unsafe { tell(plan, entry, "entry", |plan| plan.entry.as_ptr()) }
}

/// `fulgurite_plan_is_noop` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `is_noop` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_is_noop(plan: *const Plan, is_noop: *mut i32) -> Status {
    // SAFETY: this function's contract.
    unsafe { tell(plan, is_noop, "is_noop", |plan| i32::from(plan.is_noop)) }
}

/// `fulgurite_plan_destroy` of the header.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed, and no other call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_plan_destroy(plan: *mut Plan) -> Status {
    guard(|| {
        if !plan.is_null() {
            // SAFETY: made from a box by the function that planned, and given back once, by this
            // function's contract.
            drop(unsafe { Box::from_raw(plan) });
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::ptr::without_provenance_mut;

    use super::*;
    use crate::{ForwardArgs, fulgurite_last_error, fulgurite_launch_forward};

    #[test]
    fn a_workspace_is_absent_if_all_of_it_is_zero() {
        let at = |address, bytes| raw_workspace(without_provenance_mut(address), bytes);
        assert_eq!(at(0, 0), None);
        for (address, bytes) in [(0x100, 0), (0, 7), (0x100, 7)] {
            assert_eq!(at(address as usize, bytes), Some(RawWorkspace { address, bytes }));
        }
    }

    #[test]
    fn arguments_of_another_request_are_refused() {
        let other = Plan {
            prepared: Box::new("a plan of another request"),
            request: "other",
            text: CString::default(),
            entry: CString::default(),
            _names: Vec::new(),
            buffers: Vec::new(),
            workspace_bytes: 0,
            is_noop: false,
        };
        let args = std::ptr::null::<ForwardArgs>();
        // SAFETY: the plan lives; nothing is launched.
        let status = unsafe { fulgurite_launch_forward(&other, std::ptr::null_mut(), args) };
        assert_eq!(status, Status::Argument);
        // SAFETY: the string of this thread, valid until its next failure.
        let text = unsafe { CStr::from_ptr(fulgurite_last_error()) }.to_string_lossy();
        assert_eq!(
            text,
            "these are arguments of `forward`, but the plan is one of `other`: use \
             fulgurite_launch_other, or a plan made by fulgurite_plan_forward"
        );
    }
}
