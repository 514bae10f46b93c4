//! The GPU backend: the launch's memory on a device, through the host crate's safe door.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fulgurite::cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, DriverError};
use fulgurite::{Dtype, Element, FlashAttention};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::device::{Device, Ran};
use crate::memory::{Allocation, Launch};

/// After this long without an end a kernel is taken to hang; right ones need milliseconds.
const HANG: Duration = Duration::from_secs(30);

/// Memory that is left to the driver and others, in bytes.
const SPARE_BYTES: usize = 1 << 30;

/// Whether a run without a GPU is a failure: `FULGURITE_REQUIRE_GPU` is set, to anything.
pub fn is_required() -> bool {
    std::env::var_os("FULGURITE_REQUIRE_GPU").is_some()
}

/// Opens a GPU if there is one that the kernels are for; the inner error says why there is none.
///
/// # Errors
/// A message: a right GPU fails, or there is none although `required`.
pub fn find(ordinal: usize, required: bool) -> Result<Result<Gpu, fulgurite::Error>, String> {
    use fulgurite::Error;
    match Gpu::open(ordinal) {
        Ok(gpu) => Ok(Ok(gpu)),
        Err(
            error @ (Error::NoDriver { .. }
            | Error::NoDevice { .. }
            | Error::DriverTooOld { .. }
            | Error::Architecture { .. }
            | Error::NotBuilt { .. }),
        ) if !required => Ok(Err(error)),
        Err(error) if required => Err(format!(
            "no GPU runs the kernels, and one is required (--gpu or FULGURITE_REQUIRE_GPU): {error}"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// An element type whose bits travel as `u16`.
pub trait Bits: Element + Sized {
    /// Elements as their type.
    fn of(bits: &[u16]) -> &[Self];
    /// Elements as their bits.
    fn bits(elements: &[Self]) -> &[u16];
}

impl Bits for bf16 {
    fn of(bits: &[u16]) -> &[bf16] {
        bits.reinterpret_cast()
    }
    fn bits(elements: &[bf16]) -> &[u16] {
        elements.reinterpret_cast()
    }
}

impl Bits for f16 {
    fn of(bits: &[u16]) -> &[f16] {
        bits.reinterpret_cast()
    }
    fn bits(elements: &[f16]) -> &[u16] {
        elements.reinterpret_cast()
    }
}

/// A GPU.
pub struct Gpu {
    attention: FlashAttention,
    stream: Arc<CudaStream>,
    /// Why nothing more can run: a kernel hangs, or the context is lost.
    dead: Mutex<Option<String>>,
    /// Held for one launch after another: a case may take most of the memory.
    one_at_a_time: Mutex<()>,
}

impl Gpu {
    /// Opens the device of this ordinal.
    ///
    /// # Errors
    /// Those of [`FlashAttention::open`].
    pub fn open(ordinal: usize) -> Result<Gpu, fulgurite::Error> {
        let attention = FlashAttention::open(ordinal)?;
        let stream = attention.context().default_stream();
        Ok(Gpu { attention, stream, dead: Mutex::default(), one_at_a_time: Mutex::default() })
    }

    /// The kernels of the device.
    pub fn attention(&self) -> &FlashAttention {
        &self.attention
    }

    /// The stream that everything runs on: the default one, so that cudarc tracks no events.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    fn run_typed<T: Bits>(&self, launch: &mut Launch) -> Result<(), String> {
        let prepared = match &launch.variant {
            Some(variant) => self.attention.plan_with(&launch.request, variant),
            None => self.attention.plan(&launch.request),
        };
        let prepared = prepared.map_err(|error| error.to_string())?;
        let mut buffers = Vec::new();
        for allocation in &launch.allocations {
            let buffer = self.upload::<T>(allocation).map_err(failed("copying to the device"))?;
            buffers.push(buffer);
        }
        // The output is alone in the last allocation.
        let mut out = buffers.pop().ok_or("a launch has allocations")?;
        let mut lse = match &launch.lse {
            Some(lse) => Some(self.stream.clone_htod(lse).map_err(failed("copying lse"))?),
            None => None,
        };
        let guard = crate::memory::GUARD_ELEMENTS;
        let mut lse_view = lse.as_mut().map(|lse| {
            let end = lse.len() - guard;
            lse.slice_mut(guard..end)
        });
        let lse_pointer = lse_view.as_mut().map(|view| view as &mut dyn DevicePtrMut<f32>);
        let [q, k, v] = [launch.q, launch.k, launch.v]
            .map(|place| buffers[place.allocation].slice(place.start..));
        let mut out_view = out.slice_mut(launch.out.start..);
        prepared
            .launch::<T>(&self.stream, &q, &k, &v, &mut out_view, lse_pointer)
            .map_err(|error| error.to_string())?;
        if let Err(error) = self.wait() {
            // A kernel may still write here: the memory stays allocated, and freeing would wait.
            std::mem::forget((buffers, out, lse));
            return Err(error);
        }
        let place = launch.out.allocation;
        self.download(&out, &mut launch.allocations[place]).map_err(failed("copying out back"))?;
        if let (Some(host), Some(device)) = (&mut launch.lse, &lse) {
            self.stream.memcpy_dtoh(device, host).map_err(failed("copying lse back"))?;
        }
        self.stream.synchronize().map_err(failed("copying back"))
    }

    fn upload<T: Bits>(&self, allocation: &Allocation) -> Result<CudaSlice<T>, DriverError> {
        // SAFETY: the elements of regions are written next; nothing else is read from a launch's
        // allocation, unless a kernel reads where it may not, which the comparison then shows.
        let mut buffer = unsafe { self.stream.alloc::<T>(allocation.len)? };
        for region in &allocation.regions {
            let mut view = buffer.slice_mut(region.start..region.start + region.bits.len());
            self.stream.memcpy_htod(T::of(&region.bits), &mut view)?;
        }
        Ok(buffer)
    }

    fn download<T: Bits>(
        &self,
        buffer: &CudaSlice<T>,
        allocation: &mut Allocation,
    ) -> Result<(), DriverError> {
        for region in &mut allocation.regions {
            let view = buffer.slice(region.start..region.start + region.bits.len());
            let elements = self.stream.clone_dtoh(&view)?;
            region.bits.copy_from_slice(T::bits(&elements));
        }
        Ok(())
    }

    /// Waits for the stream, but not for ever.
    ///
    /// # Errors
    /// What the driver says of the kernel, or that it hangs.
    pub fn wait(&self) -> Result<(), String> {
        let event = self.stream.record_event(None).map_err(failed("recording an event"))?;
        let start = Instant::now();
        loop {
            match event.try_is_complete() {
                Ok(true) => return Ok(()),
                Ok(false) if start.elapsed() > HANG => {
                    let seconds = HANG.as_secs();
                    let reason = format!("the kernel did not end within {seconds} s: it hangs");
                    return Err(self.give_up(reason));
                }
                Ok(false) => std::thread::yield_now(),
                Err(error) => return Err(self.give_up(failed("the kernel")(error))),
            }
        }
    }

    fn give_up(&self, reason: String) -> String {
        *self.dead.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
        reason
    }
}

/// Names the step that the driver refused.
pub fn failed(step: &'static str) -> impl FnOnce(DriverError) -> String {
    move |error| format!("{step} failed: {error}")
}

impl Device for Gpu {
    fn name(&self) -> String {
        self.attention.facts().name.clone()
    }

    fn run(&self, launch: &mut Launch) -> Result<Ran, String> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = self.lost() {
            return Ok(Ran::Skipped(format!("an earlier case ended the GPU's context: {reason}")));
        }
        let (free, _) = self.attention.context().mem_get_info().map_err(failed("memory info"))?;
        let need = launch.device_bytes();
        if need + SPARE_BYTES > free {
            let mib = |bytes: usize| bytes >> 20;
            let reason = format!("needs {} MiB of GPU memory, {} are free", mib(need), mib(free));
            return Ok(Ran::Skipped(reason));
        }
        match launch.request.q.dtype {
            Dtype::Bf16 => self.run_typed::<bf16>(launch)?,
            Dtype::F16 => self.run_typed::<f16>(launch)?,
        }
        Ok(Ran::Done)
    }

    fn lost(&self) -> Option<String> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
