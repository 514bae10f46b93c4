//! From a plan and buffers to kernels on a stream.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, SyncOnDrop, sys};

use crate::args::{Args, BUFFER_LIMIT, Buffers, Field};
use crate::driver::{self, CurrentContext};
use crate::module::Kernel;
use crate::place::{Device, Raw};
use crate::request::Request;
use crate::work::{Addresses, LAUNCH_LIMIT, Launch, Params, Work};
use crate::{Context, Error, Plan, RawContext, fork};

/// A plan with its kernels loaded: ready to launch, any number of times, from any thread.
///
/// A launch allocates nothing, waits for nothing and copies nothing between host and device; it
/// encodes tensor maps and enqueues the plan's kernels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prepared<R, C = Arc<CudaContext>> {
    plan: Arc<Plan<R>>,
    context: C,
    /// One for each launch of the plan.
    kernels: [Option<Kernel>; LAUNCH_LIMIT],
}

impl<R: Request, C: Context> Prepared<R, C> {
    pub(crate) fn new(
        plan: Arc<Plan<R>>,
        context: C,
        kernels: [Option<Kernel>; LAUNCH_LIMIT],
    ) -> Self {
        Prepared { plan, context, kernels }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan<R> {
        &self.plan
    }

    /// The context that buffers and streams must belong to.
    pub fn context(&self) -> &C {
        &self.context
    }

    /// Enqueues the kernels for bare addresses on a bare stream: the door for other frameworks
    /// (candle, PyTorch, a C ABI). Checks that addresses are given exactly as planned, and that
    /// none is null or misaligned. No event is waited for or recorded.
    ///
    /// # Safety
    /// * `stream` is a living stream of the plan's context
    ///   ([`FlashAttention::context`](crate::FlashAttention::context)), or null or 1 for its
    ///   legacy default stream, or 2 for its per-thread default stream.
    /// * Each address is that of the first element of a buffer as [`Plan::buffers`] describes it:
    ///   type, elements and access, in memory that the plan's device may read, or write.
    /// * The workspace has the bytes it says it has, its head was zero before its first launch,
    ///   and no other launch uses it at the same time.
    /// * That memory stays allocated until the kernels have run, and in a captured graph as long as
    ///   the graph may run.
    /// * No other work that may run at the same time writes what this launch reads, or touches what
    ///   it writes: order streams with events before and after the call.
    /// * No element that is written shares memory with another of any buffer.
    ///
    /// # Errors
    /// [`Error::NullPointer`], [`Error::Misaligned`], [`Error::Missing`], [`Error::Unexpected`],
    /// [`Error::WorkspaceShort`], [`Error::ContextGone`], [`Error::Forked`], [`Error::Driver`].
    /// Nothing is launched then.
    pub unsafe fn launch_raw(
        &self,
        stream: sys::CUstream,
        args: R::Args<Raw>,
    ) -> Result<(), Error> {
        // SAFETY: this function's own contract.
        unsafe { self.core().launch_raw(stream, args.into_buffers()) }
    }

    fn core(&self) -> Core<'_> {
        Core {
            work: &self.plan.work,
            fields: Plan::<R>::fields(),
            context: self.context.raw(),
            kernels: &self.kernels,
            workspace_bytes: self.plan.work.workspace_bytes,
        }
    }
}

impl<R: Request> Prepared<R> {
    /// Enqueues the kernels on `stream`, reading and writing the buffers of `args`.
    ///
    /// Each buffer begins with its tensor's first element: pass a view (`slice(n..)`) of a packed
    /// tensor. A buffer is given exactly if the plan has a use for it ([`Plan::buffers`]). Elements
    /// of an output between rows (the gaps that strides leave) are not touched.
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
    /// [`Error::Missing`], [`Error::Unexpected`], [`Error::Misaligned`], [`Error::NullPointer`],
    /// [`Error::WorkspaceShort`], [`Error::WorkspaceStream`], [`Error::CaptureWithEvents`],
    /// [`Error::ContextGone`], [`Error::Forked`], [`Error::Driver`]. Nothing is launched then.
    /// Errors of the kernel itself come with a later synchronisation, as always with CUDA.
    pub fn launch(&self, stream: &Arc<CudaStream>, args: R::Args<Device<'_>>) -> Result<(), Error> {
        self.core().launch(stream, &self.context, args.into_buffers())
    }

    /// Has `enqueue` put work of its own on the stream, for the buffers of `args` and a workspace
    /// of so many bytes, all checked and ordered as by [`launch`](Self::launch). It is told the
    /// addresses by the arguments' names, and that of `workspace`. For packages of this project
    /// that compute a request in another way than by the plan's kernels.
    ///
    /// # Errors
    /// Those of [`launch`](Self::launch). Nothing is enqueued then.
    #[doc(hidden)]
    pub fn lend<T>(
        &self,
        stream: &Arc<CudaStream>,
        args: R::Args<Device<'_>>,
        workspace_bytes: u64,
        enqueue: impl FnOnce(&dyn Fn(&str) -> u64) -> T,
    ) -> Result<T, Error> {
        let core = Core { workspace_bytes, ..self.core() };
        core.with_addresses(stream, &self.context, args.into_buffers(), |at| {
            Ok(enqueue(&|name| core.named(at, name)))
        })
    }

    /// As [`lend`](Self::lend), for bare addresses, which are checked as by
    /// [`launch_raw`](Self::launch_raw).
    ///
    /// # Errors
    /// Those of [`launch_raw`](Self::launch_raw). Nothing is enqueued then.
    #[doc(hidden)]
    pub fn lend_raw<T>(
        &self,
        args: R::Args<Raw>,
        workspace_bytes: u64,
        enqueue: impl FnOnce(&dyn Fn(&str) -> u64) -> T,
    ) -> Result<T, Error> {
        let core = Core { workspace_bytes, ..self.core() };
        core.check_alive()?;
        let buffers = args.into_buffers();
        core.check_workspace(buffers.workspace.map_or(0, |workspace| workspace.bytes))?;
        let at = core.work.locate_raw(core.fields, buffers)?;
        Ok(enqueue(&|name| core.named(&at, name)))
    }
}

/// A prepared plan of whatever request.
struct Core<'a> {
    work: &'a Work,
    fields: &'static [Field],
    context: RawContext,
    kernels: &'a [Option<Kernel>; LAUNCH_LIMIT],
    workspace_bytes: u64,
}

impl Core<'_> {
    fn launch(
        &self,
        stream: &Arc<CudaStream>,
        context: &Arc<CudaContext>,
        buffers: Buffers<Device<'_>>,
    ) -> Result<(), Error> {
        if self.work.launches.is_empty() {
            return self.check_buffers(stream, context, &buffers);
        }
        self.with_addresses(stream, context, buffers, |at| {
            // SAFETY: all buffers belong to this context, hold elements of the planned types and
            // are long enough; those that are written are borrowed mutably; guards that order the
            // streams are dropped, recording the uses, after this.
            unsafe { self.enqueue_all(stream.cu_stream(), at) }
        })
    }

    fn check_buffers(
        &self,
        stream: &Arc<CudaStream>,
        context: &Arc<CudaContext>,
        buffers: &Buffers<Device<'_>>,
    ) -> Result<(), Error> {
        let offers = buffers.given.each_ref().map(|given| given.as_ref().map(|one| one.offer()));
        self.work.check_offers(self.fields, &offers)?;
        self.check_contexts(stream, context, buffers)
    }

    /// Checks the buffers, and has `enqueue` use them in the order of the stream.
    fn with_addresses<T>(
        &self,
        stream: &Arc<CudaStream>,
        context: &Arc<CudaContext>,
        mut buffers: Buffers<Device<'_>>,
        enqueue: impl FnOnce(&Addresses) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.check_buffers(stream, context, &buffers)?;
        self.check_alive()?;
        let captured = self.check_capture(stream, &buffers)?;

        context.check_err().map_err(driver::failed("an earlier cudarc call"))?;
        let mut given = [None; BUFFER_LIMIT];
        // Dropped after the launch, which is when they record it.
        let mut uses: [Option<SyncOnDrop<'_>>; BUFFER_LIMIT] = [const { None }; BUFFER_LIMIT];
        for (place, buffer) in buffers.given.iter_mut().enumerate() {
            if let Some(buffer) = buffer {
                let (address, used) = buffer.address(stream);
                given[place] = Some(address);
                uses[place] = Some(used);
            }
        }
        let _workspace_used;
        let mut room = None;
        if let Some(workspace) = buffers.workspace.as_mut().filter(|_| self.needs_workspace()) {
            let bytes = workspace.bytes();
            let address;
            (address, _workspace_used) = workspace.address(stream, captured);
            room = Some((address, bytes));
        }
        // cudarc keeps errors of the waits that it just enqueued until someone asks.
        context.check_err().map_err(driver::failed("cuStreamWaitEvent"))?;
        let at = self.work.locate(self.fields, &given, room)?;
        self.check_workspace(room.map_or(0, |(_, bytes)| bytes))?;
        enqueue(&at)
    }

    fn check_workspace(&self, got: u64) -> Result<(), Error> {
        let want = self.workspace_bytes;
        if got < want { Err(Error::WorkspaceShort { got, want }) } else { Ok(()) }
    }

    /// The address of the argument of a name, or of the workspace.
    fn named(&self, at: &Addresses, name: &str) -> u64 {
        let place = self.fields.iter().position(|field| field.name == name);
        place.map_or(at.workspace, |place| at.buffers[place])
    }

    /// # Safety
    /// As for [`Prepared::launch_raw`].
    unsafe fn launch_raw(&self, stream: sys::CUstream, buffers: Buffers<Raw>) -> Result<(), Error> {
        if self.work.launches.is_empty() {
            return Ok(());
        }
        self.check_alive()?;
        let at = self.work.locate_raw(self.fields, buffers)?;
        // SAFETY: this function's own contract.
        unsafe { self.enqueue_all(stream, &at) }
    }

    fn needs_workspace(&self) -> bool {
        self.workspace_bytes > 0
    }

    /// Refuses launches where the kernels' handles mean nothing: in a forked process, and after
    /// the context was reset.
    fn check_alive(&self) -> Result<(), Error> {
        fork::check_fork()?;
        match self.kernels[0] {
            Some(kernel) => kernel.check_alive(self.context),
            None => Ok(()),
        }
    }

    fn check_contexts(
        &self,
        stream: &Arc<CudaStream>,
        context: &Arc<CudaContext>,
        buffers: &Buffers<Device<'_>>,
    ) -> Result<(), Error> {
        let owners = self.fields.iter().zip(&buffers.given);
        let owners =
            owners.filter_map(|(field, given)| Some((field.name, given.as_ref()?.owner())));
        for (what, owner) in std::iter::once(("the stream", stream)).chain(owners) {
            if owner.context() != context {
                let (got, want) = (owner.context().ordinal(), context.ordinal());
                return Err(Error::WrongDevice { what, got, want });
            }
        }
        match &buffers.workspace {
            Some(workspace) if self.needs_workspace() && workspace.stream() != stream => {
                Err(Error::WorkspaceStream)
            }
            _ => Ok(()),
        }
    }

    /// Whether the launch is captured. Refuses a capture into which cudarc would pull events
    /// recorded outside of it.
    fn check_capture(
        &self,
        stream: &Arc<CudaStream>,
        buffers: &Buffers<Device<'_>>,
    ) -> Result<bool, Error> {
        let tracks =
            |stream: &Arc<CudaStream>| stream.context().is_managing_stream_synchronization();
        let mut owners = buffers.given.iter().flatten().map(|given| given.owner());
        let tracked = tracks(stream) || owners.any(tracks);
        if !tracked && !self.needs_workspace() {
            return Ok(false);
        }
        let captured = driver::is_capturing(stream.cu_stream())?;
        if tracked && captured { Err(Error::CaptureWithEvents) } else { Ok(captured) }
    }

    /// Enqueues the plan's kernels.
    ///
    /// # Safety
    /// As for [`Prepared::launch_raw`]; the addresses were checked, and the kernels are known to be
    /// there.
    unsafe fn enqueue_all(&self, stream: sys::CUstream, at: &Addresses) -> Result<(), Error> {
        // The driver encodes a tensor map only where a context is current.
        let _current = CurrentContext::enter(self.context.handle())?;
        for (launch, kernel) in self.work.launches.iter().zip(self.kernels) {
            let kernel =
                kernel.ok_or_else(|| Error::NotBuilt { entry: launch.entry().to_owned() })?;
            let params = launch.fill(at, |spec, address| spec.encode_loaded(address))?;
            // SAFETY: the kernel was loaded in the context that is current, and the parameters are
            // the plan's; the rest is this function's own contract.
            unsafe { enqueue(launch, kernel, stream, &params) }?;
        }
        Ok(())
    }
}

/// The one launch of a kernel.
///
/// # Safety
/// As for [`Prepared::launch_raw`]; `kernel` is the launch's, loaded in the current context, and
/// `params` are its parameters.
unsafe fn enqueue(
    launch: &Launch,
    kernel: Kernel,
    stream: sys::CUstream,
    params: &Params,
) -> Result<(), Error> {
    let spec = launch.spec();
    let mut arguments = [params.address().cast_mut().cast::<c_void>()];
    // SAFETY: the kernel takes one parameter by value, of the type that the plan made the bytes of,
    // which the driver copies before it returns; grid, block and shared memory are those of the
    // kernel's launch spec.
    let code = unsafe {
        sys::cuLaunchKernel(
            kernel.function(),
            launch.grid(),
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
        format!("kernel {}, {} blocks, {spec:?}", launch.entry(), launch.grid())
    })
}
