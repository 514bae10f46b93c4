//! From a plan and buffers to a kernel on a stream.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, sys};
use fulgurite_spec::FwdParams;

use crate::driver::{self, CurrentContext};
use crate::module::Kernel;
use crate::plan::BufferLengths;
use crate::{Dtype, Error, Plan, fork};

mod sealed {
    pub trait Sealed {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// The Rust types of the elements of q, k, v and out.
pub trait Element: sealed::Sealed + DeviceRepr + Copy + 'static {
    /// What a [`Layout`](crate::Layout) calls it.
    const DTYPE: Dtype;
}

impl Element for half::bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
}

impl Element for half::f16 {
    const DTYPE: Dtype = Dtype::F16;
}

/// Device addresses of the first element of each tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// Queries; a multiple of 16.
    pub q: u64,
    /// Keys; a multiple of 16, or anything if there are none.
    pub k: u64,
    /// Values; a multiple of 16, or anything if there are none.
    pub v: u64,
    /// Output; a multiple of 16.
    pub out: u64,
    /// Log-sum-exp, `f32[batch, heads, q_len]`; a multiple of 4.
    pub lse: Option<u64>,
}

/// A plan with its kernel loaded: ready to launch, any number of times, from any thread.
///
/// A launch allocates nothing, waits for nothing and copies nothing between host and device; it
/// encodes three tensor maps and enqueues one kernel.
#[derive(Clone, Debug)]
pub struct Prepared {
    plan: Arc<Plan>,
    context: Arc<CudaContext>,
    /// None for a plan without work.
    kernel: Option<Kernel>,
}

impl Prepared {
    pub(crate) fn new(plan: Arc<Plan>, context: Arc<CudaContext>, kernel: Option<Kernel>) -> Self {
        Prepared { plan, context, kernel }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The context that buffers and streams must belong to.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Enqueues the kernel on `stream`, reading `q`, `k`, `v` and writing `out` (and `lse`).
    ///
    /// Each buffer begins with its tensor's first element: pass a view (`slice(n..)`) of a packed
    /// tensor. `lse` is given exactly if the plan writes one. Elements of `out` between rows (the
    /// gaps that strides leave) are not touched.
    ///
    /// # Order
    /// The launch keeps cudarc's rules. In a context with more streams than the default one,
    /// cudarc tracks every buffer with events: the launch then waits (on the device) for the last
    /// write of each buffer on other streams and records its own use. These events cost the host
    /// more than the launch itself; where you order streams yourself, call
    /// [`CudaContext::disable_event_tracking`].
    ///
    /// # CUDA graphs
    /// A launch can be captured, except with those events, which would tie the graph to work
    /// outside of it: disable event tracking before the capture. The graph holds the addresses of
    /// the buffers; keep them alive. Make the plan before the capture begins, because loading a
    /// kernel is not allowed during one.
    ///
    /// # Errors
    /// [`Error::WrongDevice`], [`Error::BufferDtype`], [`Error::BufferTooShort`],
    /// [`Error::LseMissing`], [`Error::LseUnexpected`], [`Error::Misaligned`],
    /// [`Error::NullPointer`], [`Error::CaptureWithEvents`], [`Error::ContextGone`],
    /// [`Error::Forked`], [`Error::Driver`]. Nothing is launched then. Errors of the kernel itself
    /// come with a later synchronisation, as always with CUDA.
    pub fn launch<T: Element>(
        &self,
        stream: &Arc<CudaStream>,
        q: &impl DevicePtr<T>,
        k: &impl DevicePtr<T>,
        v: &impl DevicePtr<T>,
        out: &mut impl DevicePtrMut<T>,
        lse: Option<&mut dyn DevicePtrMut<f32>>,
    ) -> Result<(), Error> {
        let lengths = BufferLengths {
            q: q.len(),
            k: k.len(),
            v: v.len(),
            out: out.len(),
            lse: lse.as_ref().map(|lse| lse.len()),
        };
        self.plan.check_buffers(T::DTYPE, &lengths)?;
        let lse_stream = lse.as_ref().map_or(stream, |lse| lse.stream());
        let streams = [
            ("the stream", stream),
            ("q", q.stream()),
            ("k", k.stream()),
            ("v", v.stream()),
            ("out", out.stream()),
            ("lse", lse_stream),
        ];
        self.check_contexts(&streams)?;
        if self.plan.is_noop() {
            return Ok(());
        }
        self.check_alive()?;
        check_capture(&streams)?;

        let context = stream.context();
        context.check_err().map_err(driver::failed("an earlier cudarc call"))?;
        let (q, _q_read) = q.device_ptr(stream);
        let (k, _k_read) = k.device_ptr(stream);
        let (v, _v_read) = v.device_ptr(stream);
        let (out, _out_written) = out.device_ptr_mut(stream);
        let lse = lse.map(|lse| lse.device_ptr_mut(stream));
        // cudarc keeps errors of the waits that it just enqueued until someone asks.
        context.check_err().map_err(driver::failed("cuStreamWaitEvent"))?;
        let pointers = Pointers { q, k, v, out, lse: lse.as_ref().map(|(address, _)| *address) };
        // SAFETY: all buffers belong to this context and are long enough for their layouts; `out`
        // and `lse` are borrowed mutably; the guards above order the streams and are dropped,
        // recording the uses, after the launch.
        unsafe { self.launch_alive(stream.cu_stream(), &pointers) }
    }

    /// Enqueues the kernel for bare addresses on a bare stream: the door for other frameworks
    /// (candle, PyTorch, a C ABI). Checks that no address is null or misaligned and that `lse` is
    /// given exactly if planned. No event is waited for or recorded.
    ///
    /// # Safety
    /// * `stream` is a living stream of the plan's context
    ///   ([`FlashAttention::context`](crate::FlashAttention::context)), or null or 1 for its
    ///   legacy default stream, or 2 for its per-thread default stream.
    /// * `q`, `k`, `v` and `out` are addresses of the first elements of tensors of the planned
    ///   dtype whose whole span ([`Plan::buffer_elements`]) lies in memory that the plan's device
    ///   may read (`out`: write); `lse` points to [`Plan::lse_elements`] writable `f32`.
    /// * That memory stays allocated until the kernel has run, and in a captured graph as long as
    ///   the graph may run.
    /// * No other work that may run at the same time writes q, k or v, or reads or writes `out`
    ///   or `lse`: order streams with events before and after the call.
    /// * No element of `out` or `lse` shares memory with an element of q, k, v or of each other.
    ///
    /// # Errors
    /// [`Error::NullPointer`], [`Error::Misaligned`], [`Error::LseMissing`],
    /// [`Error::LseUnexpected`], [`Error::ContextGone`], [`Error::Forked`], [`Error::Driver`].
    /// Nothing is launched then.
    pub unsafe fn launch_raw(
        &self,
        stream: sys::CUstream,
        pointers: &Pointers,
    ) -> Result<(), Error> {
        self.check_alive()?;
        // SAFETY: this function's own contract.
        unsafe { self.launch_alive(stream, pointers) }
    }

    /// Refuses launches where the kernel's handle means nothing: in a forked process, and after
    /// the context was reset.
    fn check_alive(&self) -> Result<(), Error> {
        let Some(kernel) = self.kernel else {
            return Ok(());
        };
        fork::check_fork()?;
        kernel.check_alive(&self.context)
    }

    /// [`launch_raw`](Self::launch_raw) once the kernel is known to be there.
    ///
    /// # Safety
    /// As for [`launch_raw`](Self::launch_raw).
    unsafe fn launch_alive(&self, stream: sys::CUstream, pointers: &Pointers) -> Result<(), Error> {
        let Some(kernel) = self.kernel else {
            return Ok(());
        };
        self.plan.check_pointers(pointers)?;
        // The driver encodes a tensor map only where a context is current.
        let _current = CurrentContext::enter(&self.context)?;
        let [q, k, v] = self.plan.tensor_maps();
        let [q_at, k_at, v_at] = self.plan.map_addresses(pointers);
        let maps = [q.encode_loaded(q_at)?, k.encode_loaded(k_at)?, v.encode_loaded(v_at)?];
        let params = self.plan.params(pointers, maps);
        // SAFETY: the kernel was loaded in the context that is current; the rest is this
        // function's own contract.
        unsafe { enqueue(&self.plan, kernel, stream, &params) }
    }

    fn check_contexts(&self, streams: &[(&'static str, &Arc<CudaStream>)]) -> Result<(), Error> {
        for &(what, stream) in streams {
            if stream.context() != &self.context {
                let (got, want) = (stream.context().ordinal(), self.context.ordinal());
                return Err(Error::WrongDevice { what, got, want });
            }
        }
        Ok(())
    }
}

/// Refuses a capture into which cudarc would pull events recorded outside of it. `streams` starts
/// with the one to launch on; the others are those of the buffers.
fn check_capture(streams: &[(&'static str, &Arc<CudaStream>)]) -> Result<(), Error> {
    let tracked =
        streams.iter().any(|(_, stream)| stream.context().is_managing_stream_synchronization());
    if tracked && driver::is_capturing(streams[0].1.cu_stream())? {
        return Err(Error::CaptureWithEvents);
    }
    Ok(())
}

/// The one launch of a kernel.
///
/// # Safety
/// As for [`Prepared::launch_raw`]; `kernel` is the plan's, loaded in the current context.
unsafe fn enqueue(
    plan: &Plan,
    kernel: Kernel,
    stream: sys::CUstream,
    params: &FwdParams,
) -> Result<(), Error> {
    let spec = plan.launch_spec();
    let mut arguments = [std::ptr::from_ref(params).cast_mut().cast::<c_void>()];
    // SAFETY: the kernel takes one parameter, a `FwdParams` by value, which the driver copies
    // before it returns; grid, block and shared memory are those of the kernel's launch spec.
    let code = unsafe {
        sys::cuLaunchKernel(
            kernel.function(),
            plan.cta_count(),
            1,
            1,
            spec.threads,
            1,
            1,
            spec.smem_bytes,
            stream,
            arguments.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    };
    driver::check(code, "cuLaunchKernel", || {
        format!("kernel {}, {} blocks, {spec:?}", plan.variant().entry, plan.cta_count())
    })
}
