//! The context that kernels run in: one of cudarc, or one of anyone else.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{CudaContext, sys};

mod sealed {
    /// Implemented in this module only.
    pub trait Sealed {}
}

/// How a [`FlashAttention`](crate::FlashAttention) holds its context: as one of cudarc, the rule,
/// or as a bare handle, [`RawContext`].
pub trait Context: sealed::Sealed + Clone + fmt::Debug + Send + Sync + 'static {
    /// The driver's handle, and the device.
    fn raw(&self) -> RawContext;

    /// What keeps the context alive; a bare handle does not.
    #[doc(hidden)]
    fn keeper(&self) -> Option<&Arc<CudaContext>>;
}

/// A context of the driver that its owner keeps alive
/// ([`FlashAttention::of_raw`](crate::FlashAttention::of_raw)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawContext {
    handle: sys::CUcontext,
    ordinal: usize,
}

// SAFETY: a handle that the driver looks up and synchronises, in any thread.
unsafe impl Send for RawContext {}
// SAFETY: as above; it is never changed.
unsafe impl Sync for RawContext {}

impl RawContext {
    pub(crate) fn new(handle: sys::CUcontext, ordinal: usize) -> Self {
        RawContext { handle, ordinal }
    }

    /// The driver's handle.
    pub fn handle(self) -> sys::CUcontext {
        self.handle
    }

    /// The ordinal of its device.
    pub fn ordinal(self) -> usize {
        self.ordinal
    }
}

impl sealed::Sealed for RawContext {}
impl Context for RawContext {
    fn raw(&self) -> RawContext {
        *self
    }

    fn keeper(&self) -> Option<&Arc<CudaContext>> {
        None
    }
}

impl sealed::Sealed for Arc<CudaContext> {}
impl Context for Arc<CudaContext> {
    fn raw(&self) -> RawContext {
        RawContext::new(self.cu_ctx(), self.ordinal())
    }

    fn keeper(&self) -> Option<&Arc<CudaContext>> {
        Some(self)
    }
}
