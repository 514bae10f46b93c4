//! A GPU: the launch's memory on it, calls through the host crate's safe door.

use std::cell::{Ref, RefCell, RefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fulgurite::Arch;
use fulgurite::cudarc::driver::{
    CudaSlice, CudaStream, CudaView, CudaViewMut, DeviceRepr, DriverError,
};
use fulgurite::internals::{VARIANTS, VARIANTS_8BIT, VARIANTS_SM80, Variant};
use fulgurite::{DeviceFacts, Element, FlashAttention};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::call::Launch;
use crate::device::{Device, Ran};
use crate::forward::call::load;
use crate::memory::{Allocation, GUARD_ELEMENTS, Memory};

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
pub trait Bits: Element + DeviceRepr + Sized {
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

    /// What the driver says of the device.
    pub fn facts(&self) -> &DeviceFacts {
        self.attention.facts()
    }

    /// The architecture whose kernels plans choose on it.
    pub fn arch(&self) -> Arch {
        let runs = |arch: &Arch| arch.runs_on(self.facts().compute_capability);
        Arch::ALL.into_iter().find(runs).unwrap_or(Arch::Sm90)
    }

    /// Has the driver compile and load kernels; says how many. One that it refuses is reported by
    /// its first call.
    pub fn preload(&self, entries: &[&str]) -> Option<usize> {
        let wanted = |variant: &&Variant| entries.contains(&variant.entry);
        let all = VARIANTS.iter().chain(VARIANTS_SM80).chain(VARIANTS_8BIT);
        let variants: Vec<&Variant> = all.filter(wanted).collect();
        let loaded = variants.iter().try_for_each(|variant| load(&self.attention, variant));
        loaded.is_ok().then_some(variants.len())
    }

    fn upload(&self, allocation: &Allocation) -> Result<CudaSlice<u16>, DriverError> {
        // SAFETY: the elements of regions are written next; nothing else is read from a launch's
        // allocation, unless a kernel reads where it may not, which the comparison then shows.
        let mut buffer = unsafe { self.stream.alloc::<u16>(allocation.len)? };
        for region in &allocation.regions {
            let mut view = buffer.slice_mut(region.start..region.start + region.bits.len());
            self.stream.memcpy_htod(&region.bits, &mut view)?;
        }
        Ok(buffer)
    }

    fn download(
        &self,
        buffer: &CudaSlice<u16>,
        allocation: &mut Allocation,
    ) -> Result<(), DriverError> {
        for region in &mut allocation.regions {
            let view = buffer.slice(region.start..region.start + region.bits.len());
            region.bits.copy_from_slice(&self.stream.clone_dtoh(&view)?);
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

/// A launch's memory on a GPU.
pub struct OnGpu<'a> {
    memory: &'a Memory,
    allocations: Vec<RefCell<CudaSlice<u16>>>,
    numbers: Vec<RefCell<CudaSlice<f32>>>,
}

/// An allocation on a GPU, seen from a tensor's first element on.
pub struct Seen<R> {
    allocation: R,
    start: usize,
}

impl<'a> OnGpu<'a> {
    fn new(gpu: &Gpu, memory: &'a Memory) -> Result<OnGpu<'a>, DriverError> {
        let allocations = memory.allocations.iter().map(|it| gpu.upload(it).map(RefCell::new));
        let numbers = memory.numbers.iter().map(|it| gpu.stream.clone_htod(&it.guarded));
        let numbers = numbers.map(|it| it.map(RefCell::new)).collect::<Result<_, _>>()?;
        Ok(OnGpu { memory, allocations: allocations.collect::<Result<_, _>>()?, numbers })
    }

    /// A tensor that the call reads.
    pub fn read(&self, name: &str) -> Seen<Ref<'_, CudaSlice<u16>>> {
        let place = self.memory.place(name);
        Seen { allocation: self.allocations[place.allocation].borrow(), start: place.start }
    }

    /// A tensor that the call writes.
    pub fn write(&self, name: &str) -> Seen<RefMut<'_, CudaSlice<u16>>> {
        let place = self.memory.place(name);
        Seen { allocation: self.allocations[place.allocation].borrow_mut(), start: place.start }
    }

    /// Numbers that the call reads, with their guards; none if none of this name were laid out.
    pub fn read_numbers(&self, name: &str) -> Option<Ref<'_, CudaSlice<f32>>> {
        let index = self.memory.numbers.iter().position(|numbers| numbers.name == name)?;
        Some(self.numbers[index].borrow())
    }

    /// Numbers that the call writes, for `with`; none if none of this name were laid out.
    pub fn with_numbers<O>(
        &self,
        name: &str,
        with: impl FnOnce(Option<&mut CudaViewMut<'_, f32>>) -> O,
    ) -> O {
        match self.memory.numbers.iter().position(|numbers| numbers.name == name) {
            Some(index) => {
                let mut buffer = self.numbers[index].borrow_mut();
                let end = buffer.len() - GUARD_ELEMENTS;
                with(Some(&mut buffer.slice_mut(GUARD_ELEMENTS..end)))
            }
            None => with(None),
        }
    }
}

impl Seen<Ref<'_, CudaSlice<u16>>> {
    /// As elements of a type.
    pub fn view<T: Bits>(&self) -> CudaView<'_, T> {
        // SAFETY: both types that `Bits` has are 16 bits wide, and any bits are a value of them.
        let all = unsafe { self.allocation.transmute::<T>(self.allocation.len()) };
        all.expect("as many elements of as many bytes").slice(self.start..)
    }
}

impl Seen<RefMut<'_, CudaSlice<u16>>> {
    /// Gives its elements, as those of a type, to `with`.
    pub fn with_view<T: Bits, O>(&mut self, with: impl FnOnce(&mut CudaViewMut<'_, T>) -> O) -> O {
        let len = self.allocation.len();
        // SAFETY: both types that `Bits` has are 16 bits wide, and any bits are a value of them.
        let all = unsafe { self.allocation.transmute_mut::<T>(len) };
        let mut all = all.expect("as many elements of as many bytes");
        with(&mut all.slice_mut(self.start..))
    }
}

impl Gpu {
    fn run_alone(&self, launch: &mut Launch) -> Result<(), String> {
        let on_gpu = OnGpu::new(self, &launch.memory).map_err(failed("copying to the device"))?;
        launch.call.launch(self, &on_gpu)?;
        if let Err(error) = self.wait() {
            // A kernel may still write here: the memory stays allocated, and freeing would wait.
            std::mem::forget(on_gpu);
            return Err(error);
        }
        let OnGpu { allocations, numbers, .. } = on_gpu;
        for (index, buffer) in allocations.iter().enumerate() {
            if launch.memory.is_written(index) {
                let place = &mut launch.memory.allocations[index];
                self.download(&buffer.borrow(), place).map_err(failed("copying results back"))?;
            }
        }
        for (buffer, place) in numbers.iter().zip(&mut launch.memory.numbers) {
            self.stream
                .memcpy_dtoh(&*buffer.borrow(), &mut place.guarded)
                .map_err(failed("copying numbers back"))?;
        }
        self.stream.synchronize().map_err(failed("copying back"))
    }
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
        let need = launch.memory.device_bytes();
        if need + SPARE_BYTES > free {
            let mib = |bytes: usize| bytes >> 20;
            let reason = format!("needs {} MiB of GPU memory, {} are free", mib(need), mib(free));
            return Ok(Ran::Skipped(reason));
        }
        self.run_alone(launch)?;
        Ok(Ran::Done)
    }

    fn lost(&self) -> Option<String> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The architecture of a name, for options of commands.
///
/// # Errors
/// The names that there are.
pub fn arch(name: &str) -> Result<Arch, String> {
    let found = Arch::ALL.into_iter().find(|arch| arch.name() == name);
    found.ok_or_else(|| format!("it is one of {}", Arch::ALL.map(Arch::name).join(", ")))
}
