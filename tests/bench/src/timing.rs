//! Times one call: CUDA events around it, the L2 cache overwritten before it, the median.

use std::time::{Duration, Instant};

use fulgurite::cudarc::driver::sys::CUevent_flags;
use fulgurite::cudarc::driver::{CudaEvent, CudaSlice};

use check::gpu::{Gpu, failed};

/// Bytes written before each call, several times the L2 cache.
const FLUSH_BYTES: usize = 256 << 20;

/// Most calls that are timed.
const MOST_CALLS: usize = 100;

/// The timing rule.
pub struct Timer<'a> {
    gpu: &'a Gpu,
    flush: CudaSlice<u8>,
    /// Fewest calls that are timed.
    least_calls: usize,
    /// Time spent on timed calls, up to [`MOST_CALLS`] of them, in milliseconds.
    call_ms: f64,
    events: Vec<(CudaEvent, CudaEvent)>,
}

impl<'a> Timer<'a> {
    /// A timer for calls on the GPU's stream.
    ///
    /// # Errors
    /// A message if the driver refuses.
    pub fn new(gpu: &'a Gpu, least_calls: usize, call_ms: f64) -> Result<Timer<'a>, String> {
        let flush = gpu.stream().alloc_zeros(FLUSH_BYTES).map_err(failed("allocating"))?;
        let event = || {
            let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
            gpu.attention().context().new_event(flags).map_err(failed("creating an event"))
        };
        let most = MOST_CALLS.max(least_calls);
        let events = (0..most).map(|_| Ok((event()?, event()?))).collect::<Result<_, String>>()?;
        Ok(Timer { gpu, flush, least_calls, call_ms, events })
    }

    /// Median time of `call` in milliseconds.
    ///
    /// # Errors
    /// The call's own message, or one about the driver.
    pub fn median_ms(
        &mut self,
        mut call: impl FnMut() -> Result<(), String>,
    ) -> Result<f64, String> {
        let stream = self.gpu.stream();
        let synchronize = || stream.synchronize().map_err(failed("waiting for the GPU"));
        let warm_up = Instant::now();
        for turn in 0..10 {
            call()?;
            if turn >= 2 {
                synchronize()?;
                if warm_up.elapsed() > Duration::from_millis(50) {
                    break;
                }
            }
        }
        synchronize()?;
        let estimate_ms = {
            let (start, end) = &self.events[0];
            start.record(stream).map_err(failed("recording"))?;
            (0..3).try_for_each(|_| call())?;
            end.record(stream).map_err(failed("recording"))?;
            f64::from(start.elapsed_ms(end).map_err(failed("reading a time"))?) / 3.0
        };
        let wanted = (self.call_ms / estimate_ms.max(1e-3)) as usize;
        let count = wanted.max(self.least_calls).min(self.events.len());
        for (start, end) in &self.events[..count] {
            stream.memset_zeros(&mut self.flush).map_err(failed("flushing the L2"))?;
            start.record(stream).map_err(failed("recording"))?;
            call()?;
            end.record(stream).map_err(failed("recording"))?;
        }
        synchronize()?;
        let times = self.events[..count].iter().map(|(start, end)| start.elapsed_ms(end));
        let mut times: Vec<f32> =
            times.collect::<Result<_, _>>().map_err(failed("reading a time"))?;
        times.sort_by(f32::total_cmp);
        Ok(f64::from(times[count / 2]))
    }
}
