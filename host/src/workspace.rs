//! Memory that launches work in.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, SyncOnDrop, sys};

use crate::driver::{self, CurrentContext};
use crate::work::check_address;
use crate::{Context, Error, FlashAttention, RawWorkspace, fork};

/// Bytes of a workspace at most: more than any GPU has, and so little that tensor maps hold all
/// strides in it.
pub(crate) const LIMIT_BYTES: u64 = 1 << 40;

/// Blocks of a grid at most where kernels count them with 32-bit integers.
pub(crate) const GRID_LIMIT: u32 = i32::MAX as u32;

/// Device memory for launches on one stream: a launch allocates nothing, so the caller brings what
/// its plan asks for ([`Plan::workspace_bytes`](crate::Plan::workspace_bytes)).
///
/// One workspace serves all launches of all requests on its stream, in order. No result depends on
/// what it holds. Its first [`HEAD_BYTES`](Self::HEAD_BYTES) are zero between launches; the rest is
/// undefined.
///
/// ```no_run
/// # use fulgurite::{Error, FlashAttention, Forward};
/// # fn f(fa: &FlashAttention, forward: &Forward) -> Result<(), Error> {
/// let stream = fa.context().default_stream();
/// let mut workspace = fulgurite::Workspace::new(&stream);
/// workspace.grow(fa.plan(forward)?.plan().workspace_bytes())?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Workspace {
    stream: Arc<CudaStream>,
    memory: Option<CudaSlice<u8>>,
    /// A graph holds its address.
    captured: bool,
}

impl Workspace {
    /// Bytes at the start that are zero between launches.
    pub const HEAD_BYTES: usize = 8 << 10;

    /// Its address is a multiple of so many bytes.
    pub const ALIGN_BYTES: u64 = 256;

    /// An empty workspace for launches on `stream`. Allocates nothing.
    pub fn new(stream: &Arc<CudaStream>) -> Self {
        Workspace { stream: stream.clone(), memory: None, captured: false }
    }

    /// A workspace in memory of the caller's, on that memory's stream.
    ///
    /// # Errors
    /// [`Error::Driver`] if its head cannot be set to zero.
    pub fn wrap(memory: CudaSlice<u8>) -> Result<Self, Error> {
        let stream = memory.stream().clone();
        let mut workspace = Workspace { stream, memory: Some(memory), captured: false };
        workspace.reset()?;
        Ok(workspace)
    }

    /// Bytes that it has.
    pub fn bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.num_bytes() as u64)
    }

    /// Sees to it that it has `bytes` at least. Memory that was too small is freed in the order of
    /// the stream, so that launches under way may go on.
    ///
    /// # Errors
    /// [`Error::WorkspacePinned`] during a capture, and once a captured launch has used it;
    /// [`Error::Driver`].
    pub fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.bytes() {
            return Ok(());
        }
        if self.captured || driver::is_capturing(self.stream.cu_stream())? {
            return Err(Error::WorkspacePinned);
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(Self::HEAD_BYTES);
        // SAFETY: what is not zeroed next holds nothing that anyone reads before writing it.
        let memory = unsafe { self.stream.alloc::<u8>(bytes) };
        self.memory = Some(memory.map_err(driver::failed("cuMemAllocAsync"))?);
        self.reset()
    }

    /// Sets the head to zero, in the order of the stream: what a launch that failed may have left.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn reset(&mut self) -> Result<(), Error> {
        let Some(memory) = &mut self.memory else {
            return Ok(());
        };
        let head = Self::HEAD_BYTES.min(memory.len());
        self.stream
            .memset_zeros(&mut memory.slice_mut(..head))
            .map_err(driver::failed("cuMemsetD8Async"))
    }

    /// The stream whose launches it serves.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Its address for a launch on `stream`, which may be captured.
    pub(crate) fn address<'a>(
        &'a mut self,
        stream: &'a CudaStream,
        captured: bool,
    ) -> (u64, Option<SyncOnDrop<'a>>) {
        self.captured |= captured;
        match &mut self.memory {
            Some(memory) => {
                let (address, used) = memory.device_ptr_mut(stream);
                (address, Some(used))
            }
            None => (0, None),
        }
    }
}

impl RawWorkspace {
    /// Sets the head to zero, in the order of `stream`: once before the first launch, and again
    /// after a launch that failed. Can be captured. Does nothing to a workspace of 0 bytes.
    ///
    /// # Safety
    /// * `stream` is a living stream of the context of `attention`, or null or 1 for its legacy
    ///   default stream, or 2 for its per-thread default stream.
    /// * The device may write the workspace's bytes, which stay allocated until that has happened.
    /// * No launch that may run at the same time uses them.
    ///
    /// # Errors
    /// [`Error::NullPointer`], [`Error::Misaligned`], [`Error::ContextGone`], [`Error::Forked`],
    /// [`Error::Driver`]. Nothing is written then.
    pub unsafe fn reset(
        self,
        attention: &FlashAttention<impl Context>,
        stream: sys::CUstream,
    ) -> Result<(), Error> {
        let RawWorkspace { address, bytes } = self;
        if bytes == 0 {
            return Ok(());
        }
        check_address("workspace", address, Workspace::ALIGN_BYTES)?;
        fork::check_fork()?;
        driver::context_life(attention.context().raw())?;
        let _current = CurrentContext::enter(attention.context().raw().handle())?;
        let head = usize::try_from(bytes)
            .map_or(Workspace::HEAD_BYTES, |it| it.min(Workspace::HEAD_BYTES));
        // SAFETY: this function's own contract; the stream's context is current.
        let code = unsafe { sys::cuMemsetD8Async(address, 0, head, stream) };
        driver::check(code, "cuMemsetD8Async", || format!("{head} bytes at {address:#x}"))
    }
}
