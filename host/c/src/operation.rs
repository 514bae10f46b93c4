//! What every operation does with its two structs: a plan, a launch, both in one, kernels loaded
//! ahead.

use fulgurite::cudarc::driver::sys::CUstream;
use fulgurite::{Raw, Request};

use crate::grown::{self, Grown};
use crate::options::{self, PlanOptions};
use crate::outcome::{Failure, Status, guard};
use crate::plan::{self, Plan};

/// A request of the header.
pub(crate) trait Operation: Grown {
    /// The request of the host crate.
    type Host: Request;
    /// Its arguments in the header.
    type Args: Grown;

    /// The ordinal of its GPU, and the request in the words of the host crate.
    ///
    /// # Safety
    /// Pointers in it are null or lead to what the header says.
    unsafe fn meaning(&self) -> Result<(u32, Self::Host), Failure>;

    /// Arguments in the words of the host crate.
    fn arguments(args: &Self::Args) -> <Self::Host as Request>::Args<Raw>;
}

/// # Safety
/// `request` is null or points to a struct as large as it says, whose pointers are null or lead to
/// what the header says.
unsafe fn read<O: Operation>(request: *const O) -> Result<(u32, O::Host), Failure> {
    // SAFETY: this function's contract.
    unsafe { grown::read(request, "request")?.meaning() }
}

/// Plans a request and loads its kernels.
///
/// # Safety
/// As [`read`]; `options` is null or points to a struct as large as it says, a name in it is null
/// or a string; `plan` is null or writable.
pub(crate) unsafe fn plan<O: Operation>(
    request: *const O,
    options: *const PlanOptions,
    plan: *mut *mut Plan,
) -> Status {
    guard(|| {
        if plan.is_null() {
            return Err(Failure::null("plan"));
        }
        // SAFETY: this function's contract.
        let (device, request) = unsafe { read(request) }?;
        // SAFETY: null or options, by this function's contract.
        let options = unsafe { options::meaning(options) }?;
        let made = Plan::new(device, &request, &options)?;
        // SAFETY: not null, and writable by this function's contract.
        unsafe { plan.write(Box::into_raw(Box::new(made))) };
        Ok(())
    })
}

/// Launches a plan.
///
/// # Safety
/// `plan` is null or a plan that was not destroyed; `args` is null or points to arguments as large
/// as they say; for stream and addresses the contract is that of
/// [`fulgurite::Prepared::launch_raw`].
pub(crate) unsafe fn launch<O: Operation>(
    plan: *const Plan,
    stream: CUstream,
    args: *const O::Args,
) -> Status {
    guard(|| {
        // SAFETY: null or a living plan, by this function's contract.
        let prepared = unsafe { plan::living(plan) }?.prepared::<O::Host>()?;
        // SAFETY: null or arguments, by this function's contract.
        let args = unsafe { grown::read(args, "args") }?;
        // SAFETY: this function's contract.
        Ok(unsafe { prepared.launch_raw(stream, O::arguments(&args)) }?)
    })
}

/// Launches with a plan that the library keeps.
///
/// # Safety
/// As [`read`] and [`launch`].
pub(crate) unsafe fn call<O: Operation>(
    request: *const O,
    stream: CUstream,
    args: *const O::Args,
) -> Status {
    guard(|| {
        // SAFETY: null or a request, by this function's contract.
        let request = unsafe { grown::read(request, "request") }?;
        // SAFETY: null or arguments, by this function's contract.
        let args = unsafe { grown::read(args, "args") }?;
        // SAFETY: this function's contract. Both sizes are looked at before what the structs say.
        let (device, request) = unsafe { request.meaning() }?;
        let options = fulgurite::PlanOptions::default();
        let prepared = crate::device::plan(device, &request, &options)?;
        // SAFETY: this function's contract.
        Ok(unsafe { prepared.launch_raw(stream, O::arguments(&args)) }?)
    })
}

/// Loads the kernels of a request, and keeps its plan.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn preload<O: Operation>(request: *const O) -> Status {
    guard(|| {
        // SAFETY: this function's contract.
        let (device, request) = unsafe { read(request) }?;
        let options = fulgurite::PlanOptions::default();
        crate::device::plan(device, &request, &options).map(|_| ())
    })
}

/// The four functions of an operation, by the names that the header has for them.
macro_rules! functions {
    ($request:ident, $args:ident: $plan:ident, $launch:ident, $call:ident, $preload:ident) => {
        #[doc = concat!("`", stringify!($plan), "` of the header.")]
        ///
        /// # Safety
        /// `request` and `options` are null or point to structs as large as they say, with pointers
        /// that are null or lead to what the header says; `plan` is null or writable.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $plan(
            request: *const $request,
            options: *const crate::options::PlanOptions,
            plan: *mut *mut crate::plan::Plan,
        ) -> crate::outcome::Status {
            // SAFETY: this function's contract.
            unsafe { crate::operation::plan(request, options, plan) }
        }

        #[doc = concat!("`", stringify!($launch), "` of the header.")]
        ///
        /// # Safety
        /// `plan` is null or a plan that was not destroyed; `args` is null or points to arguments
        /// as large as they say; for stream and addresses the contract is that of
        /// [`fulgurite::Prepared::launch_raw`].
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $launch(
            plan: *const crate::plan::Plan,
            stream: fulgurite::cudarc::driver::sys::CUstream,
            args: *const $args,
        ) -> crate::outcome::Status {
            // SAFETY: this function's contract.
            unsafe { crate::operation::launch::<$request>(plan, stream, args) }
        }

        #[doc = concat!("`", stringify!($call), "` of the header.")]
        ///
        /// # Safety
        /// `request` and `args` are null or point to structs as large as they say, with pointers
        /// that are null or lead to what the header says; for stream and addresses the contract is
        /// that of [`fulgurite::Prepared::launch_raw`].
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $call(
            request: *const $request,
            stream: fulgurite::cudarc::driver::sys::CUstream,
            args: *const $args,
        ) -> crate::outcome::Status {
            // SAFETY: this function's contract.
            unsafe { crate::operation::call(request, stream, args) }
        }

        #[doc = concat!("`", stringify!($preload), "` of the header.")]
        ///
        /// # Safety
        /// `request` is null or points to a struct as large as it says, with pointers that are null
        /// or lead to what the header says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $preload(request: *const $request) -> crate::outcome::Status {
            // SAFETY: this function's contract.
            unsafe { crate::operation::preload(request) }
        }
    };
}
pub(crate) use functions;
