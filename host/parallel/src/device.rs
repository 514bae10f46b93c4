//! Streams and events of a device: the driver's, without what cudarc's own add to every buffer.

use std::sync::Arc;

use fulgurite::cudarc::driver::{CudaContext, result, sys};
use fulgurite::driver_failure;

use crate::program::Copy;

type Result<T> = std::result::Result<T, fulgurite::Error>;

/// Turns a driver's code into a result.
pub(crate) fn check(code: sys::CUresult, call: &'static str) -> Result<()> {
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        code => Err(driver_failure(code, call, String::new())),
    }
}

/// Makes a context current on this thread.
pub(crate) fn enter(context: &CudaContext) -> Result<()> {
    let entered = context.bind_to_thread();
    entered.map_err(|error| driver_failure(error.0, "cuCtxSetCurrent", String::new()))
}

/// Whether work given to a stream is recorded into a graph.
pub(crate) fn is_capturing(stream: sys::CUstream) -> Result<bool> {
    let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: the caller's stream is alive; `status` is writable.
    check(unsafe { sys::cuStreamIsCapturing(stream, &raw mut status) }, "cuStreamIsCapturing")?;
    Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Arc<CudaContext>,
    raw: sys::CUstream,
}

// SAFETY: a handle that the driver synchronises, in any thread.
unsafe impl Send for Stream {}
// SAFETY: as above; it is never changed.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream that waits for no other one by itself; `urgent`: its blocks go first.
    pub fn new(context: &Arc<CudaContext>, urgent: bool) -> Result<Stream> {
        enter(context)?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: both numbers are writable.
        let code = unsafe { sys::cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest) };
        check(code, "cuCtxGetStreamPriorityRange")?;
        let priority = if urgent { greatest } else { least };
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is writable; the context is current.
        let code = unsafe { sys::cuStreamCreateWithPriority(&raw mut raw, flags, priority) };
        check(code, "cuStreamCreateWithPriority")?;
        Ok(Stream { context: context.clone(), raw })
    }

    pub fn raw(&self) -> sys::CUstream {
        self.raw
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if enter(&self.context).is_ok() {
            // SAFETY: made by `new`, and used by nobody any more. The driver keeps what it needs
            // until work under way has ended.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    context: Arc<CudaContext>,
    raw: sys::CUevent,
}

// SAFETY: a handle that the driver synchronises, in any thread.
unsafe impl Send for Event {}
// SAFETY: as above; it is never changed.
unsafe impl Sync for Event {}

impl Event {
    /// An event; one that is not timed costs less.
    pub fn new(context: &Arc<CudaContext>, timed: bool) -> Result<Event> {
        enter(context)?;
        let mut raw = std::ptr::null_mut();
        let flags = match timed {
            true => sys::CUevent_flags::CU_EVENT_DEFAULT as u32,
            false => sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32,
        };
        // SAFETY: `raw` is writable; the context is current.
        check(unsafe { sys::cuEventCreate(&raw mut raw, flags) }, "cuEventCreate")?;
        Ok(Event { context: context.clone(), raw })
    }

    /// Records it behind what is on a stream.
    ///
    /// # Safety
    /// The stream lives, and is of the event's context.
    pub unsafe fn record(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: this function's own contract.
        check(unsafe { sys::cuEventRecord(self.raw, stream) }, "cuEventRecord")
    }

    /// Has a stream wait for it.
    ///
    /// # Safety
    /// The stream lives, and is of the event's context.
    pub unsafe fn wait_on(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: this function's own contract.
        check(unsafe { sys::cuStreamWaitEvent(stream, self.raw, 0) }, "cuStreamWaitEvent")
    }

    /// Milliseconds from another event to this one; both are timed and done.
    pub fn since(&self, start: &Event) -> Result<f32> {
        enter(&self.context)?;
        // SAFETY: both events live.
        let ms = unsafe { result::event::elapsed(start.raw, self.raw) };
        ms.map_err(|error| driver_failure(error.0, "cuEventElapsedTime", String::new()))
    }

    /// Whether all before it has ended; also where it was never recorded.
    pub fn is_done(&self) -> Result<bool> {
        enter(&self.context)?;
        // SAFETY: the event lives.
        match unsafe { sys::cuEventQuery(self.raw) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            code => check(code, "cuEventQuery").map(|()| true),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if enter(&self.context).is_ok() {
            // SAFETY: made by `new`, and used by nobody any more; the driver keeps what it needs.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}

/// Enqueues a copy on the device.
///
/// # Safety
/// Both addresses are memory of the current context for all lines, until the stream has come so
/// far.
pub(crate) unsafe fn copy(copy: &Copy, from: u64, to: u64, stream: sys::CUstream) -> Result<()> {
    let Copy { from_pitch, to_pitch, width, lines, .. } = *copy;
    if lines == 1 {
        // SAFETY: this function's own contract.
        let code = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, width as usize, stream) };
        return check(code, "cuMemcpyDtoDAsync");
    }
    let device = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
    let copy = sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: device,
        srcHost: std::ptr::null(),
        srcDevice: from,
        srcArray: std::ptr::null_mut(),
        srcPitch: from_pitch as usize,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: device,
        dstHost: std::ptr::null_mut(),
        dstDevice: to,
        dstArray: std::ptr::null_mut(),
        dstPitch: to_pitch as usize,
        WidthInBytes: width as usize,
        Height: lines as usize,
    };
    // SAFETY: this function's own contract; the driver reads the description before it returns.
    check(unsafe { sys::cuMemcpy2DAsync_v2(&raw const copy, stream) }, "cuMemcpy2DAsync")
}
