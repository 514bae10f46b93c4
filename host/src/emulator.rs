//! The kernels on the CPU: a device of its own, for programs and tests on machines without a GPU.
//!
//! The same kernels, compiled for the host, run thread by thread, with the copy engine and the
//! tensor core modelled and every synchronisation checked. That is some ten thousand times slower
//! than a GPU: it is for small calls.

use fulgurite_gpu::emu;
use fulgurite_kernels::entry;

use crate::plan::BufferLengths;
use crate::{
    DeviceFacts, Element, Error, Forward, FwdParams, Plan, Pointers, TensorMapSpec, Variant,
};

pub use fulgurite_gpu::emu::{
    Accumulator, Change, Doing, Event, Fault, FaultKind, Global, Mutation, MutationSite, Outcome,
    Primitive, Rows, Stats,
};

/// How a launch runs; all of it decides the run, so that the same options repeat it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The order in which threads and engines run: 0 is round robin with the engines as late as
    /// they may be, odd seeds are random, even ones random by priorities.
    pub seed: u64,
    /// An error to plant, to see what the checks say.
    pub mutation: Option<Mutation>,
    /// Whether [`Outcome::sites`] and [`Outcome::trace`] are wanted.
    pub record_sites: bool,
    /// How the tensor core adds.
    pub accumulator: Accumulator,
}

/// A Hopper GPU that is emulated on the CPU.
///
/// ```
/// use fulgurite::{Dtype, Emulator, Forward, Layout, Mask};
/// use half::bf16;
///
/// let emulator = Emulator::new();
/// let layout = Layout::bshd(Dtype::Bf16, 1, 5, 1, 64); // batch, rows, heads, head_dim
/// let request = Forward {
///     q: layout, k: layout, v: layout, out: layout, mask: Mask::Causal, scale: None, lse: false,
/// };
/// let plan = emulator.plan(&request)?;
/// let q = vec![bf16::ONE; 5 * 64];
/// let mut out = vec![bf16::ZERO; 5 * 64];
/// emulator.launch(&plan, &q, &q, &q, &mut out, None)?;
/// assert_eq!(out, q);
/// # Ok::<(), fulgurite::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Emulator {
    facts: DeviceFacts,
    options: Options,
}

impl Default for Emulator {
    fn default() -> Self {
        Emulator::new()
    }
}

/// Where the first of a launch's tensors lies; each has its own 2^40 bytes.
const FIRST_ADDRESS: u64 = 1 << 40;

impl Emulator {
    /// A device of two multiprocessors: few, so that each does several jobs, as on a GPU in a
    /// large call.
    pub fn new() -> Emulator {
        let name = "emulated Hopper GPU".to_owned();
        let facts = DeviceFacts { name, sm_count: 2, ..DeviceFacts::h200() };
        Emulator { facts, options: Options::default() }
    }

    /// The same device with other options.
    pub fn with_options(self, options: Options) -> Emulator {
        Emulator { options, ..self }
    }

    /// What plans need to know of it.
    pub fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    /// Plans a call for this device.
    ///
    /// # Errors
    /// Those of [`Plan::new`].
    pub fn plan(&self, request: &Forward) -> Result<Plan, Error> {
        Plan::new(request, &self.facts)
    }

    /// As [`plan`](Self::plan) with a kernel of the caller's choice, to measure or test it.
    ///
    /// # Errors
    /// Those of [`Plan::with_variant`].
    pub fn plan_with(&self, request: &Forward, variant: &Variant) -> Result<Plan, Error> {
        Plan::with_variant(request, &self.facts, variant)
    }

    /// Runs a planned call on slices, each from its tensor's first element on.
    ///
    /// # Errors
    /// [`Error::BufferDtype`], [`Error::BufferTooShort`], [`Error::LseMissing`],
    /// [`Error::LseUnexpected`]; [`Error::Emulated`] if the kernel breaks a rule.
    pub fn launch<T: Element>(
        &self,
        plan: &Plan,
        q: &[T],
        k: &[T],
        v: &[T],
        out: &mut [T],
        lse: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let lengths = BufferLengths {
            q: q.len(),
            k: k.len(),
            v: v.len(),
            out: out.len(),
            lse: lse.as_ref().map(|lse| lse.len()),
        };
        plan.check_buffers(T::DTYPE, &lengths)?;
        let [q_at, k_at, v_at, out_at, lse_at] = [0, 1, 2, 3, 4].map(|n| FIRST_ADDRESS * (1 + n));
        let mut global = Global::new();
        global.readable("q", q_at, bytes(q));
        global.readable("k", k_at, bytes(k));
        global.readable("v", v_at, bytes(v));
        global.writable("out", out_at, bytes_mut(out));
        let lse = lse.map(|lse| {
            global.writable("lse", lse_at, bytes_mut(lse));
            lse_at
        });
        let pointers = Pointers { q: q_at, k: k_at, v: v_at, out: out_at, lse };
        let result = self.launch_raw(plan, &pointers, &global)?;
        result.map(|_| ()).map_err(|fault| Error::Emulated { fault: fault.to_string() })
    }

    /// Runs a planned call on addresses in `global`; what lies outside of its ranges is out of
    /// bounds. Returns what the launch did, or the rule that the kernel broke.
    ///
    /// # Errors
    /// Those of [`Plan::check_pointers`].
    pub fn launch_raw(
        &self,
        plan: &Plan,
        pointers: &Pointers,
        global: &Global,
    ) -> Result<Result<Outcome, Box<Fault>>, Error> {
        if plan.is_noop() {
            return Ok(Ok(Outcome::default()));
        }
        plan.check_pointers(pointers)?;
        let [q, k, v] = plan.tensor_maps();
        let [q_at, k_at, v_at] = plan.map_addresses(pointers);
        let maps = [q.emulated(q_at), k.emulated(k_at), v.emulated(v_at)];
        let params = Aligned(plan.params(pointers, maps));
        let entry = entry::find(plan.variant().entry)
            .ok_or(Error::NoVariant { dtype: plan.variant().dtype, mask: plan.request().mask })?;
        let spec = plan.launch_spec();
        let launch = emu::Launch {
            grid: plan.cta_count(),
            threads: spec.threads,
            smem_bytes: spec.smem_bytes,
            parameters: ((&raw const params.0).expose_provenance() as u64, size_of::<FwdParams>()),
            global,
            seed: self.options.seed,
            mutation: self.options.mutation,
            record: self.options.record_sites,
            accumulator: self.options.accumulator,
        };
        // SAFETY: grid, block, shared memory and parameters are the plan's; addresses are checked
        // against `global` by the emulator.
        Ok(emu::launch(&launch, &|| unsafe { entry(&params.0) }))
    }
}

/// Parameters at an address that suits tensor maps.
#[repr(align(64))]
struct Aligned(FwdParams);

impl TensorMapSpec {
    /// The map as the emulator reads it, for a tensor at `address`.
    pub fn emulated(&self, address: u64) -> fulgurite_spec::TensorMap {
        let fields = emu::MapFields {
            address,
            element_bytes: self.dtype.bytes(),
            dims: self.dims,
            stride_bytes: self.stride_bytes,
            box_dims: self.box_dims,
            swizzle: emu::Swizzle::Bytes128,
        };
        fields.encode()
    }
}

/// Plain numbers as bytes.
fn bytes<T: Copy>(values: &[T]) -> &[u8] {
    // SAFETY: called for bf16, f16 and f32 only, which have no padding; a byte needs no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Plain numbers as bytes; any bytes are numbers.
fn bytes_mut<T: Copy>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as `bytes`; every pattern of bits is a value of these types.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
