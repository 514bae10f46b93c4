//! The kernels on the CPU: a device of its own, for programs and tests on machines without a GPU.
//!
//! The same kernels, compiled for the host, run thread by thread, with the copy engine and the
//! tensor core modelled and every synchronisation checked. That is some ten thousand times slower
//! than a GPU: it is for small calls.

use fulgurite_gpu::emu;
use fulgurite_kernels::entry;

use crate::args::{Args, BUFFER_LIMIT};
use crate::place::{Given, Host, Raw};
use crate::tensor_map::TensorMapSpec;
use crate::work::{Addresses, Work};
use crate::{DeviceFacts, Error, Plan, PlanOptions, Request, Workspace};

pub use fulgurite_gpu::emu::{
    Accumulator, Change, Doing, Event, Fault, FaultKind, Global, Mutation, MutationSite, Primitive,
    Rows, Stats, Summary,
};

/// How a launch runs; all of it decides the run, so that the same options repeat it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The order in which threads and engines run: 0 is round robin with the engines as late as
    /// they may be, odd seeds are random, even ones random by priorities.
    pub seed: u64,
    /// An error to plant, to see what the checks say.
    pub mutation: Option<Mutation>,
    /// Whether [`Summary::sites`] and [`Summary::trace`] are wanted.
    pub record_sites: bool,
    /// How the tensor core adds.
    pub accumulator: Accumulator,
}

/// A Hopper GPU that is emulated on the CPU.
///
/// ```
/// use fulgurite::{Dtype, Emulator, Forward, ForwardArgs, Layout, Mask};
/// use half::bf16;
///
/// let emulator = Emulator::new();
/// let layout = Layout::bshd(Dtype::Bf16, 1, 5, 1, 64); // batch, rows, heads, head_dim
/// let plan = emulator.plan(&Forward::new(layout, layout, layout, layout, Mask::Causal))?;
/// let q = vec![bf16::ONE; 5 * 64];
/// let mut out = vec![bf16::ZERO; 5 * 64];
/// emulator.launch(&plan, ForwardArgs::new(&q, &q, &q, &mut out))?;
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
    pub fn plan<R: Request>(&self, request: &R) -> Result<Plan<R>, Error> {
        Plan::new(request, &self.facts)
    }

    /// As [`plan`](Self::plan), in the way that the options say.
    ///
    /// # Errors
    /// Those of [`Plan::with`].
    pub fn plan_with<R: Request>(
        &self,
        request: &R,
        options: &PlanOptions,
    ) -> Result<Plan<R>, Error> {
        Plan::with(request, &self.facts, options)
    }

    /// Runs a planned call on slices, each from its tensor's first element on. The workspace is the
    /// emulator's own.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unexpected`], [`Error::BufferDtype`],
    /// [`Error::BufferTooShort`]; [`Error::Emulated`] if the kernel breaks a rule.
    pub fn launch<R: Request>(
        &self,
        plan: &Plan<R>,
        args: R::Args<Host<'_>>,
    ) -> Result<Summary, Error> {
        let fields = Plan::<R>::fields();
        let buffers = args.into_buffers();
        let offers = buffers.given.each_ref().map(|given| given.as_ref().map(|one| one.offer()));
        plan.work.check_offers(fields, &offers)?;
        let mut at = Addresses { buffers: [0; BUFFER_LIMIT], workspace: 0 };
        let mut global = Global::new();
        let places = fields.iter().zip(buffers.given).zip(&mut at.buffers).enumerate();
        for (place, ((field, given), address)) in places {
            *address = FIRST_ADDRESS * (1 + place as u64);
            match given {
                Some(Given::Read(read)) => global.readable(field.name, *address, read.bytes),
                Some(Given::Write(write)) => global.writable(field.name, *address, write.bytes),
                None => {}
            }
        }
        let mut workspace = vec![0; usize::try_from(plan.workspace_bytes()).unwrap_or(usize::MAX)];
        at.workspace = FIRST_ADDRESS * (1 + BUFFER_LIMIT as u64);
        global.writable("workspace", at.workspace, &mut workspace);
        let outcome = self.run(&plan.work, &at, &global)?;
        drop(global);
        Emulator::check_workspace_head(&workspace)?;
        outcome.map_err(|fault| Error::Emulated { fault: fault.to_string() })
    }

    /// Whether the head of a workspace is zero, as each launch leaves it: for who brings one of his
    /// own to [`launch_raw`](Self::launch_raw).
    ///
    /// # Errors
    /// [`Error::Emulated`] says where it is not.
    pub fn check_workspace_head(workspace: &[u8]) -> Result<(), Error> {
        let head = &workspace[..workspace.len().min(Workspace::HEAD_BYTES)];
        head.iter().position(|byte| *byte != 0).map_or(Ok(()), |byte| {
            let fault = format!("byte {byte} of the workspace's head is left different from 0");
            Err(Error::Emulated { fault })
        })
    }

    /// Runs a planned call on addresses in `global`; what lies outside of its ranges is out of
    /// bounds. Returns what the launch did, or the rule that the kernel broke.
    ///
    /// # Errors
    /// Those of [`Plan::check_addresses`].
    pub fn launch_raw<R: Request>(
        &self,
        plan: &Plan<R>,
        args: R::Args<Raw>,
        global: &Global,
    ) -> Result<Result<Summary, Box<Fault>>, Error> {
        if plan.is_noop() {
            return Ok(Ok(Summary::default()));
        }
        let at = plan.work.locate_raw(Plan::<R>::fields(), args.into_buffers())?;
        self.run(&plan.work, &at, global)
    }

    /// Runs a plan's kernels one after another.
    fn run(
        &self,
        work: &Work,
        at: &Addresses,
        global: &Global,
    ) -> Result<Result<Summary, Box<Fault>>, Error> {
        let mut whole = Summary::default();
        for launch in &work.launches {
            let params = launch.fill(at, |spec, address| Ok(spec.emulated(address)))?;
            let name = launch.entry();
            let entry =
                entry::find(name).ok_or_else(|| Error::NotBuilt { entry: name.to_owned() })?;
            let spec = launch.spec();
            let setup = emu::Grid {
                blocks: launch.grid(),
                threads: spec.threads,
                smem_bytes: spec.smem_bytes,
                parameters: (params.address().expose_provenance() as u64, params.bytes()),
                global,
                seed: self.options.seed,
                mutation: self.options.mutation,
                record: self.options.record_sites,
                accumulator: self.options.accumulator,
            };
            // SAFETY: grid, block, shared memory and parameters are the plan's, the parameters of
            // the type that the plan made the bytes of; addresses are checked against `global` by
            // the emulator.
            let ran = emu::launch(&setup, &|| unsafe { entry(params.address()) });
            match ran {
                Ok(outcome) => whole.add(outcome),
                Err(fault) => return Ok(Err(fault)),
            }
            global.settle();
        }
        Ok(Ok(whole))
    }
}

impl TensorMapSpec {
    /// The map as the emulator reads it, for a tensor at `address`.
    pub fn emulated(&self, address: u64) -> fulgurite_spec::TensorMap {
        let swizzle = match self.swizzle_bytes() {
            32 => emu::Swizzle::Bytes32,
            64 => emu::Swizzle::Bytes64,
            _ => emu::Swizzle::Bytes128,
        };
        let fields = emu::MapFields {
            address,
            element_bytes: self.dtype.bytes(),
            dims: self.dims,
            stride_bytes: self.stride_bytes,
            box_dims: self.box_dims,
            swizzle,
        };
        fields.encode()
    }
}
