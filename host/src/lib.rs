//! Exact attention for Hopper GPUs (H100, H200, GH200), with kernels written in Rust.
//!
//! The crate needs an NVIDIA driver at run time (CUDA 12.0 or later) and nothing else: no CUDA
//! toolkit, no C++ compiler. Contexts, streams and buffers are those of [`cudarc`].
//!
//! ```no_run
//! use fulgurite::{Dtype, FlashAttention, Forward, ForwardArgs, Layout, Mask};
//! use half::bf16;
//!
//! let fa = FlashAttention::open(0)?;
//! let stream = fa.context().default_stream();
//! let layout = Layout::bshd(Dtype::Bf16, 2, 4096, 16, 128); // batch, rows, heads, head_dim
//! let forward = Forward::new(layout, layout, layout, layout, Mask::Causal);
//!
//! let q = stream.alloc_zeros::<bf16>(2 * 4096 * 16 * 128)?;
//! let (k, v, mut out) = (q.clone(), q.clone(), q.clone());
//! fa.launch(&stream, &forward, ForwardArgs::new(&q, &k, &v, &mut out))?;
//! let result: Vec<bf16> = stream.clone_dtoh(&out)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The life of a call
//! A *request*, [`Forward`], describes a call: a [`Layout`] for each tensor, a [`Mask`], a scale.
//! [`FlashAttention::plan`] decides which kernel runs it on which grid ([`Plan`], pure, works
//! without a GPU; print it to see) and loads that kernel ([`Prepared`]). [`Prepared::launch`]
//! enqueues it for the buffers of its *arguments*, [`ForwardArgs`]: those of cudarc;
//! [`Prepared::launch_raw`] for addresses and streams of anyone else. A prepared plan serves any
//! number of launches, from any thread. [`FlashAttention::launch`] does both, with plans that it
//! keeps; with the feature `emulator`, [`Emulator::launch`](emulator::Emulator::launch) runs the
//! same plans and kernels on the CPU.
//!
//! # What is computed
//! For every batch entry and query head `h`, with KV head `h / (q heads / kv heads)`:
//!
//! `out = softmax(scale · q kᵀ + mask) v` and, if asked for,
//! `lse[row] = ln Σ_col exp(scale · q·k + mask)`.
//!
//! * **Precision**: what follows is said of [`Precision::Given`]; in 8 bits, which the request has
//!   to ask for, error, bits and what a NaN reaches are others ([`Precision::S8E4m3`]).
//! * **Types**: q, k, v and out are bf16 or f16; products accumulate in f32, softmax is f32,
//!   probabilities are rounded to the type of v for the second product; lse is f32. Or q, k and v
//!   are e4m3 and out is bf16 or f16 ([`Forward::descale`]).
//! * **Sizes**: any number of queries, keys, batch entries and heads; head_dim any multiple of 8 up
//!   to 256. Batch 0 and no queries are calls without work: nothing is launched or written.
//! * **Strides**: the head_dim axis is contiguous, all other strides are multiples of 8 elements,
//!   not 0. Only the batch of k or v, and the heads of both together, may have stride 0, as an
//!   expanded tensor has. Addresses are multiples of 16 bytes, offsets may exceed 2³¹ elements, and
//!   elements of the output may not overlap.
//! * **Causal** masks are aligned bottom right: the last query sees every key, row `row` sees
//!   `col <= row + kv_len - q_len`.
//! * **Windows** ([`Mask::Window`]) are aligned so too: with `i = row + kv_len - q_len`, row `row`
//!   sees `i - left <= col <= i + right`. A window that is as wide as the call is computed as the
//!   full or causal mask; in 8 bits others have no kernel.
//! * **A row that sees no key** (causal, more queries than keys; a window beside all keys; any
//!   mask, no keys) gives output 0 and lse −∞. Empty tensors need no memory: their addresses are
//!   not looked at.
//! * **Inputs that are not finite**: a NaN or infinity in a row of q makes no other row NaN;
//!   in a row of k it reaches the query rows that see this key; in v it can reach every
//!   query row that works on the tile of keys it lies in, because the probability 0 times
//!   infinity or NaN is NaN. Batch entries, and heads that do not share the KV head, are not
//!   affected.
//! * **Any finite inputs and any accepted scale** give the right answer, as long as each q·k fits
//!   float32. A log-sum-exp beyond float32 is infinite then.
//! * **Bits**: the same call gives the same bits on every launch. Output and log-sum-exp of a query
//!   row depend on the rows of q in its *group* (64 rows of the same head, from a multiple of 64
//!   on), on the keys and values of the KV tiles that the group works on, on scale, mask and
//!   lengths, and on the kernel, which [`Plan::new`] chooses by element type, head dim, mask and
//!   lengths. They depend on nothing else: not on other groups, heads or batch entries, nor their
//!   number, not on strides, addresses, the GPU, its number of multiprocessors or earlier calls.
//!   Other rows of its group never change a row's values beyond rounding.
//! * **Error**: before the output is rounded each element is within `u · Σ w |v|` of the exact one,
//!   besides terms of float32: `w` the softmax weights, `u` 2⁻⁸ for bf16 and 2⁻¹¹ for f16. Proved,
//!   the same as with an online softmax that follows the maximum. Up to head dim 192 it does not,
//!   but for windows of more than 2¹⁴ keys, grow with the number of keys (1.16 times at 2²⁰ keys,
//!   f16, values of mean 1).
//!
//! # Gradients
//! [`Backward`] describes the gradients of a forward call; its documentation says what is computed,
//! and its launches bring [`BackwardArgs`] and a [`Workspace`].
//!
//! # Versions
//! [`cudarc`] is part of the interface: a new minor version of it is one of ours. A program that
//! uses another version of cudarc works all the same, by [`FlashAttention::open`] (the device's
//! primary context is the same one) and [`Prepared::launch_raw`] with bare addresses and streams.
//! What is in [`internals`] changes with every tuning of the kernels and is exempt.
//!
//! # Sources
//! The algorithm is that of FlashAttention-2 (Dao 2023, section 3.1: online softmax, one
//! rescaling at the end, LSE) with the Hopper pipeline of FlashAttention-3 (Shah et al. 2024,
//! sections 3.1 and 3.2: warp specialisation, ping-pong scheduling of softmax and products).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod args;
mod backward;
mod cache;
mod codes;
mod context;
mod device;
mod driver;
#[cfg(feature = "emulator-sample")]
pub mod emulator;
mod error;
mod fork;
mod forward;
pub mod internals;
mod launch;
mod layout;
mod library;
mod module;
mod place;
mod plan;
mod request;
mod slot;
mod tensor_map;
#[cfg(test)]
mod twice;
mod work;
mod workspace;

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, sys};

pub use cudarc;
pub use fulgurite_spec::{Arch, Dtype, Mask};

pub use crate::args::Access;
#[doc(hidden)]
pub use crate::args::Field;
pub use crate::backward::{Backward, BackwardArgs};

pub use crate::context::{Context, RawContext};
pub use crate::device::{DeviceFacts, DriverInfo, devices};
#[cfg(feature = "emulator-sample")]
pub use crate::emulator::Emulator;
pub use crate::error::{Error, ErrorClass};
pub use crate::fork::check_fork;
pub use crate::forward::{Descale, Forward, ForwardArgs, Precision};
pub use crate::launch::Prepared;
pub use crate::layout::{Form, Layout};
pub use crate::library::driver_info;
pub use crate::module::{is_built, ptx};
pub use crate::place::{Device, Element, Place, Raw, RawWorkspace, Read, Write};
#[cfg(feature = "emulator-sample")]
pub use crate::place::{Host, HostRead, HostWrite, NoWorkspace};
pub use crate::plan::Plan;
pub use crate::request::{PlanOptions, Request};
pub use crate::work::BufferNeed;
pub use crate::workspace::Workspace;

use crate::cache::PlanCache;
use crate::module::Kernels;

/// Attention on one device. Cheap to clone; may be shared and used by any thread.
///
/// Kernels are compiled by the driver on first use (about a second each, kept in the driver's
/// cache on disk) and stay loaded for the rest of the process, together with their context. Where
/// the context was reset (`cudaDeviceReset`) and is in use again, plans load them again; plans
/// from before are refused ([`Error::ContextGone`]).
///
/// Its context is one of cudarc, unless [`of_raw`](Self::of_raw) makes it.
#[derive(Clone, Debug)]
pub struct FlashAttention<C = Arc<CudaContext>> {
    context: C,
    facts: Arc<DeviceFacts>,
    kernels: &'static Kernels,
    plans: Arc<PlanCache>,
}

impl FlashAttention {
    /// Attention on the device of a cudarc context (candle and others have one to share).
    ///
    /// # Errors
    /// [`Error::Architecture`] if no kernel runs on this device, [`Error::SharedMemory`] if it
    /// offers too little, [`Error::NotBuilt`] if the crate was built without kernels,
    /// [`Error::DriverTooOld`], [`Error::StubDriver`], [`Error::Forked`], [`Error::Driver`].
    pub fn load(context: &Arc<CudaContext>) -> Result<Self, Error> {
        driver::init()?;
        Self::with(context.clone())
    }

    /// Attention on device number `ordinal`, in its primary context (the one that CUDA's runtime,
    /// and so PyTorch, uses too).
    ///
    /// # Errors
    /// Those of [`load`](Self::load), and [`Error::NoDriver`], [`Error::NoDevice`].
    pub fn open(ordinal: usize) -> Result<Self, Error> {
        Self::load(&driver::open(ordinal)?)
    }

    /// Plans a call and launches it: [`plan`](Self::plan), [`Prepared::launch`].
    ///
    /// # Errors
    /// Those of both. Nothing is launched then.
    pub fn launch<R: Request>(
        &self,
        stream: &Arc<CudaStream>,
        request: &R,
        args: R::Args<Device<'_>>,
    ) -> Result<(), Error> {
        self.plan(request)?.launch(stream, args)
    }
}

impl FlashAttention<RawContext> {
    /// Attention in a context of anyone: `cuCtxCreate`'s, a green context's, another library's.
    /// Plans are launched on bare streams and addresses, by [`Prepared::launch_raw`].
    ///
    /// The kernels of a context that is destroyed are forgotten by the driver; what refers to them
    /// is refused then ([`Error::ContextGone`]).
    ///
    /// ```no_run
    /// # use fulgurite::cudarc::driver::sys;
    /// # use fulgurite::{Dtype, Error, FlashAttention, Forward, ForwardArgs, Layout, Mask};
    /// # fn f(context: sys::CUcontext, stream: sys::CUstream, [q, k, v, out]: [u64; 4])
    /// # -> Result<(), Error> {
    /// // SAFETY: the context outlives every use of `attention` and of its plans.
    /// let attention = unsafe { FlashAttention::of_raw(context) }?;
    /// let layout = Layout::bshd(Dtype::Bf16, 2, 4096, 16, 128);
    /// let prepared =
    ///     attention.plan(&Forward::new(layout, layout, layout, layout, Mask::Causal))?;
    /// // SAFETY: stream and addresses are the context's, and as the plan describes them.
    /// unsafe { prepared.launch_raw(stream, ForwardArgs::new(q, k, v, out)) }
    /// # }
    /// ```
    ///
    /// # Safety
    /// `context` is a context of the driver, and is not destroyed while a function of the result,
    /// its clones or its plans is called. They may be dropped later.
    ///
    /// # Errors
    /// Those of [`load`](FlashAttention::load), [`Error::NoDriver`], [`Error::NoDevice`];
    /// [`Error::Driver`] with `CUDA_ERROR_INVALID_CONTEXT` if `context` is null.
    pub unsafe fn of_raw(context: sys::CUcontext) -> Result<Self, Error> {
        driver::init()?;
        let ordinal = driver::device_of(context)?;
        Self::with(RawContext::new(context, ordinal))
    }
}

impl<C: Context> FlashAttention<C> {
    /// The driver is initialised, and the context is alive.
    fn with(context: C) -> Result<Self, Error> {
        let facts = driver::facts(context.raw().ordinal())?;
        facts.check_any()?;
        module::check_built()?;
        let kernels = Kernels::of(&context);
        Ok(FlashAttention { context, facts: Arc::new(facts), kernels, plans: Arc::default() })
    }

    /// The context that buffers and streams must belong to.
    pub fn context(&self) -> &C {
        &self.context
    }

    /// What the driver says about the device.
    pub fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    /// Plans a call and loads its kernels, unless they are loaded already (or there is no work).
    ///
    /// The plans of the last 1024 different requests are kept, for this and all its clones: a
    /// request that comes again costs a lookup and allocates nothing.
    ///
    /// # Errors
    /// Those of [`Plan::new`]; [`Error::NotBuilt`] if the kernel is not in this build;
    /// [`Error::Driver`] if the driver does not take it.
    pub fn plan<R: Request>(&self, request: &R) -> Result<Prepared<R, C>, Error> {
        self.prepare(self.plans.get(request, || Plan::new(request, &self.facts))?)
    }

    /// As [`plan`](Self::plan), in the way that the options say. Such plans are not kept.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan) and of [`Plan::with`].
    pub fn plan_with<R: Request>(
        &self,
        request: &R,
        options: &PlanOptions,
    ) -> Result<Prepared<R, C>, Error> {
        self.prepare(Arc::new(Plan::with(request, &self.facts, options)?))
    }

    /// Loads the kernels of calls ahead of their first use: one second now instead of later.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan), for the first request that fails.
    pub fn preload<R: Request>(&self, requests: &[R]) -> Result<(), Error> {
        requests.iter().try_for_each(|request| self.plan(request).map(|_| ()))
    }

    fn prepare<R: Request>(&self, plan: Arc<Plan<R>>) -> Result<Prepared<R, C>, Error> {
        let mut kernels = [None; work::LAUNCH_LIMIT];
        for (kernel, launch) in kernels.iter_mut().zip(plan.launches()) {
            *kernel = Some(self.kernels.get(launch.kernel)?);
        }
        Ok(Prepared::new(plan, self.context.clone(), kernels))
    }
}
