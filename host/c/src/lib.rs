//! The C interface of Fulgurite: what `fulgurite.h` declares, and nothing else.
//!
//! Contracts are in the header. Every function catches panics, returns a [`Status`] and keeps the
//! message of a failure for [`fulgurite_last_error`]. Each operation has a module of its own: its
//! two structs, and what they mean; its functions are those that all share.

mod backward;
mod descale;
mod device;
mod forward;
mod grown;
mod layout;
mod operation;
mod options;
mod outcome;
mod plan;

use std::ffi::{c_char, c_void};

use fulgurite::RawWorkspace;
use fulgurite::cudarc::driver::sys::CUstream;

pub use backward::{
    BackwardArgs, BackwardRequest, fulgurite_backward, fulgurite_launch_backward,
    fulgurite_plan_backward, fulgurite_preload_backward,
};
pub use descale::Descale;
pub use forward::{
    ForwardArgs, ForwardRequest, fulgurite_forward, fulgurite_launch_forward,
    fulgurite_plan_forward, fulgurite_preload_forward,
};
pub use layout::Layout;
pub use options::PlanOptions;
pub use outcome::{Status, fulgurite_last_error};
pub use plan::{
    Buffer, Plan, fulgurite_plan_buffers, fulgurite_plan_describe, fulgurite_plan_destroy,
    fulgurite_plan_entry, fulgurite_plan_is_noop, fulgurite_plan_workspace_bytes,
};

use outcome::guard;

/// `fulgurite_version` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn fulgurite_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// `fulgurite_device_supported` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn fulgurite_device_supported(device: u32) -> Status {
    guard(|| device::check(device))
}

/// `fulgurite_workspace_reset` of the header.
///
/// # Safety
/// The contract is that of [`RawWorkspace::reset`], in the device's primary context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fulgurite_workspace_reset(
    device: u32,
    stream: CUstream,
    workspace: *mut c_void,
    workspace_bytes: u64,
) -> Status {
    let workspace = RawWorkspace { address: workspace.addr() as u64, bytes: workspace_bytes };
    guard(|| {
        // SAFETY: this function's contract.
        device::on(device, || Ok(()), |attention| unsafe { workspace.reset(attention, stream) })
    })
}
