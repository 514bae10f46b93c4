//! From a plan and buffers to work on several GPUs.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fulgurite::cudarc::driver::sys::CUstream;
use fulgurite::cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut};
use fulgurite::{
    Device, DeviceFacts, FlashAttention, Forward, ForwardArgs, PlanOptions, Prepared, Raw,
    driver_failure,
};

use crate::Error;
use crate::communicator::{Communicator, ConnectOptions, Id};
use crate::device::{Event, Stream, copy, enter, is_capturing};
use crate::plan::{ParallelOptions, ParallelPlan, Sharded};
use crate::program::{Action, Attend, Lane, Memory, Message, Program, Spot};

/// Multiprocessors that launches leave to transfers, where room of the workspace is taken again and
/// nothing else is asked for.
const TRANSFER_BLOCKS: u32 = 8;

/// What a rank says whose plan failed: no plan has this hash, but for one in 2⁶⁴.
const NO_PLAN: u64 = u64::MAX;

/// Attention on one of several GPUs. Cheap to clone.
///
/// Every rank does the same calls in the same order, each in a process or a thread of its own:
/// making plans and launching them wait for the others, for as long as
/// [`ConnectOptions::deadline`] says.
#[derive(Clone, Debug)]
pub struct Parallel {
    attention: FlashAttention,
    communicator: Communicator,
}

impl Parallel {
    /// The rank of a communicator that was made for the device of `attention`.
    pub fn new(attention: &FlashAttention, communicator: Communicator) -> Parallel {
        Parallel { attention: attention.clone(), communicator }
    }

    /// All ranks, in one process: rank `r` on the `r`-th device. Each is then used by a thread of
    /// its own.
    ///
    /// # Errors
    /// Those of [`Communicator::connect`]; [`Error::RankCount`] without devices.
    pub fn all(
        devices: &[FlashAttention],
        options: &ConnectOptions,
    ) -> Result<Vec<Parallel>, Error> {
        if devices.is_empty() {
            return Err(Error::RankCount { got: 0 });
        }
        let (id, world) = (Id::new()?, devices.len());
        let connect = |rank: usize, attention: &FlashAttention| {
            let communicator = Communicator::connect(attention, &id, rank, world, options)?;
            Ok(Parallel::new(attention, communicator))
        };
        let connect = &connect;
        std::thread::scope(|scope| {
            let ranks = devices.iter().enumerate();
            let threads: Vec<_> =
                ranks.map(|(rank, device)| scope.spawn(move || connect(rank, device))).collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(connected) => connected,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect()
        })
    }

    /// The rank's kernels.
    pub fn attention(&self) -> &FlashAttention {
        &self.attention
    }

    /// Its end of what joins the ranks.
    pub fn communicator(&self) -> &Communicator {
        &self.communicator
    }

    /// Plans a call, sees that all ranks plan the same one, and loads its kernels.
    ///
    /// # Errors
    /// Those of [`ParallelPlan::new`]; [`Error::World`]; [`Error::PlansDiffer`], also where another
    /// rank's plan failed; [`Error::PeerLost`], [`Error::CommunicatorDead`].
    pub fn plan(&self, sharded: &Sharded) -> Result<ParallelPrepared, Error> {
        self.plan_with(sharded, &ParallelOptions::default())
    }

    /// As [`plan`](Self::plan), in the way that the options say.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan).
    pub fn plan_with(
        &self,
        sharded: &Sharded,
        options: &ParallelOptions,
    ) -> Result<ParallelPrepared, Error> {
        let planned = self.decide(sharded, options);
        let agreed = self.agree(planned.as_ref().map_or(NO_PLAN, ParallelPlan::hash));
        let plan = planned?;
        agreed?;
        self.prepare(plan, options)
    }

    fn decide(&self, sharded: &Sharded, options: &ParallelOptions) -> Result<ParallelPlan, Error> {
        let (got, want) = (sharded.shards.world(), self.communicator.world());
        if got != want {
            return Err(Error::World { got, want });
        }
        ParallelPlan::new(sharded, self.communicator.rank(), self.attention.facts(), options)
    }

    /// Compares the hashes of all ranks' plans.
    fn agree(&self, hash: u64) -> Result<(), Error> {
        let world = self.communicator.world();
        let context = self.attention.context();
        enter(context)?;
        let stream = context.default_stream();
        let failed = |call| {
            move |error: fulgurite::cudarc::driver::DriverError| {
                driver_failure(error.0, call, String::new())
            }
        };
        let own = stream.clone_htod(&[hash]).map_err(failed("cuMemcpyHtoDAsync"))?;
        let mut all = stream.alloc_zeros::<u64>(world).map_err(failed("cuMemAllocAsync"))?;
        let step = || "comparing plans".to_owned();
        {
            let (from, _read) = own.device_ptr(&stream);
            let (to, _written) = all.device_ptr_mut(&stream);
            let bytes = size_of::<u64>();
            // SAFETY: both buffers are this device's, of one number and of one for each rank, and
            // live until the stream was waited for below.
            unsafe {
                self.communicator.gather(stream.cu_stream(), from, to, bytes, &step)?;
            }
        }
        let done = Event::new(context, false)?;
        // SAFETY: the stream is the context's.
        unsafe { done.record(stream.cu_stream()) }?;
        let is_done = || Ok(done.is_done()?);
        self.communicator.wait_for(self.communicator.deadline(), is_done, &step)?;
        let all = stream.clone_dtoh(&all).map_err(failed("cuMemcpyDtoHAsync"))?;
        let of = |wanted: &dyn Fn(u64) -> bool| -> Vec<usize> {
            (0..world).filter(|rank| wanted(all[*rank])).collect()
        };
        let failed = of(&|hash| hash == NO_PLAN);
        let ranks = if failed.is_empty() { of(&|hash| hash != all[0]) } else { failed };
        if ranks.is_empty() { Ok(()) } else { Err(Error::PlansDiffer { ranks }) }
    }

    fn prepare(
        &self,
        plan: ParallelPlan,
        options: &ParallelOptions,
    ) -> Result<ParallelPrepared, Error> {
        let (context, facts) = (self.attention.context(), self.attention.facts());
        let shares = plan.slots() < plan.groups();
        let spare = options.transfer_blocks.unwrap_or(if shares { TRANSFER_BLOCKS } else { 0 });
        let blocks = sm_limit(facts, spare);
        let kernel = |entry: Option<&'static str>, forward: &Forward| {
            let entry = entry.map_or_else(PlanOptions::default, PlanOptions::entry);
            self.attention.plan_with(forward, &entry.sm_limit(blocks))
        };
        let program = plan.program();
        let requests = program.requests.iter();
        let kernels = requests.map(|it| kernel(it.entry, &it.forward)).collect::<Result<_, _>>()?;
        // The kernel of the rank's own rows is one of the launches', which are loaded.
        let local = &plan.sharded().local;
        let entry = plan.entry().filter(|_| local.k.rows() > 0);
        let inner = Inner {
            lend: kernel(entry, local)?,
            kernels,
            second: Stream::new(context, false)?,
            transfer: Stream::new(context, true)?,
            events: (0..program.events)
                .map(|_| Event::new(context, options.timed))
                .collect::<Result<_, _>>()?,
            communicator: self.communicator.clone(),
            timed: options.timed,
            plan,
            turn: Mutex::new(()),
        };
        Ok(ParallelPrepared { inner: Arc::new(inner) })
    }
}

/// Blocks of a grid at most.
fn sm_limit(facts: &DeviceFacts, spare: u32) -> u32 {
    facts.sm_count.saturating_sub(spare).max(1)
}

/// What of a program is enqueued.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// No exchanges.
    Launches,
    /// No launches.
    Transfers,
}

/// A plan with its kernels loaded: ready to launch, any number of times. Cheap to clone.
#[derive(Clone)]
pub struct ParallelPrepared {
    inner: Arc<Inner>,
}

struct Inner {
    plan: ParallelPlan,
    /// Lends the buffers of launches, checked and ordered.
    lend: Prepared<Forward>,
    kernels: Vec<Prepared<Forward>>,
    second: Stream,
    transfer: Stream,
    events: Vec<Event>,
    timed: bool,
    communicator: Communicator,
    /// Launches are enqueued one after another.
    turn: Mutex<()>,
}

impl fmt::Debug for ParallelPrepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParallelPrepared({:?})", self.inner.plan)
    }
}

impl ParallelPrepared {
    /// The plan.
    pub fn plan(&self) -> &ParallelPlan {
        &self.inner.plan
    }

    /// Enqueues the rank's part on `stream`: its rows of q, k and v are read, those of out are
    /// written, and the workspace is worked in ([`ParallelPlan::workspace_bytes`]). Waits until the
    /// other ranks have enqueued theirs where NCCL asks for that (the first launch of a
    /// communicator), at most for [`ConnectOptions::deadline`].
    ///
    /// Launches of one plan are for one stream at a time, as those with one workspace are.
    ///
    /// # Errors
    /// Those of [`fulgurite::Prepared::launch`]; [`Error::Captured`]; [`Error::PeerLost`],
    /// [`Error::Nccl`], [`Error::CommunicatorDead`]: the output is undefined then.
    pub fn launch(
        &self,
        stream: &Arc<CudaStream>,
        args: ForwardArgs<Device<'_>>,
    ) -> Result<Work, Error> {
        self.launch_part(stream, args, Part::All)
    }

    /// As [`launch`](Self::launch), without a part of it: to measure what hides what. The output is
    /// undefined then.
    ///
    /// # Errors
    /// Those of [`launch`](Self::launch).
    #[doc(hidden)]
    pub fn launch_part(
        &self,
        stream: &Arc<CudaStream>,
        args: ForwardArgs<Device<'_>>,
        part: Part,
    ) -> Result<Work, Error> {
        let inner = &self.inner;
        let (_turn, end) = inner.begin(stream.cu_stream())?;
        let bytes = inner.plan.workspace_bytes();
        let enqueued = inner.lend.lend(stream, args, bytes, |address| {
            // SAFETY: the buffers were checked against the plan of the rank's own rows, and the
            // workspace has the plan's bytes; all are kept by cudarc until the stream has come so
            // far, and the stream waits for the program's other lanes.
            unsafe { inner.enqueue(stream.cu_stream(), address, part) }
        })?;
        enqueued?;
        // SAFETY: the stream is the context's: the buffers' checks saw to it.
        unsafe { end.record(stream.cu_stream()) }?;
        Ok(Work { inner: inner.clone(), end })
    }

    /// As [`launch`](Self::launch), for bare addresses on a bare stream: the door for other
    /// frameworks.
    ///
    /// # Safety
    /// As for [`fulgurite::Prepared::launch_raw`] of the plan's own rows
    /// ([`Sharded::local`](crate::Sharded::local)); the workspace has
    /// [`ParallelPlan::workspace_bytes`] at least.
    ///
    /// # Errors
    /// Those of [`fulgurite::Prepared::launch_raw`]; [`Error::Captured`]; [`Error::PeerLost`],
    /// [`Error::Nccl`], [`Error::CommunicatorDead`]: the output is undefined then.
    pub unsafe fn launch_raw(
        &self,
        stream: CUstream,
        args: ForwardArgs<Raw>,
    ) -> Result<Work, Error> {
        let inner = &self.inner;
        let (_turn, end) = inner.begin(stream)?;
        let enqueued = inner.lend.lend_raw(args, inner.plan.workspace_bytes(), |address| {
            // SAFETY: this function's own contract; the addresses were checked.
            unsafe { inner.enqueue(stream, address, Part::All) }
        })?;
        enqueued?;
        // SAFETY: this function's own contract.
        unsafe { end.record(stream) }?;
        Ok(Work { inner: inner.clone(), end })
    }
}

impl ParallelPrepared {
    /// When the events of the last launch happened, which has ended: what was done on which lane
    /// before it, and milliseconds from the launch's start. Empty if the plan's events are not
    /// timed ([`ParallelOptions::timed`]).
    ///
    /// # Errors
    /// [`Error::Attention`] if nothing was launched, or the launch is under way.
    pub fn timeline(&self) -> Result<Vec<(String, f32)>, Error> {
        let Inner { events, plan, timed, .. } = &*self.inner;
        let mut last = [const { String::new() }; 3];
        let mut times = Vec::new();
        for (lane, action) in plan.program().steps.iter().filter(|_| *timed) {
            let before = &mut last[*lane as usize];
            match action {
                Action::Record(event) => {
                    let name = format!("{lane:?}: {before}");
                    times.push((name, events[*event].since(&events[0])?));
                }
                Action::Copy(_) => *before = "copies".to_owned(),
                Action::Exchange(number, _) => *before = format!("exchange {}", number + 1),
                Action::Attend(_) => *before = "launches".to_owned(),
                Action::Wait(_) => {}
            }
        }
        Ok(times)
    }
}

impl Inner {
    fn program(&self) -> &Program {
        self.plan.program()
    }

    /// What comes before a launch: its turn, and the event for its end.
    fn begin(&self, stream: CUstream) -> Result<(MutexGuard<'_, ()>, Event), Error> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        enter(self.lend.context())?;
        if is_capturing(stream)? {
            return Err(Error::Captured);
        }
        if !self.communicator.is_alive() {
            return Err(Error::CommunicatorDead { rank: self.communicator.rank() });
        }
        Ok((turn, Event::new(self.lend.context(), false)?))
    }

    fn stream(&self, lane: Lane, caller: CUstream) -> CUstream {
        match lane {
            Lane::Caller => caller,
            Lane::Second => self.second.raw(),
            Lane::Transfer => self.transfer.raw(),
        }
    }

    /// Enqueues the program.
    ///
    /// # Safety
    /// The stream is the context's; the addresses are those of buffers as the plan of the rank's
    /// own rows describes them, and of a workspace, and stay until the stream has come so far.
    unsafe fn enqueue(
        &self,
        caller: CUstream,
        address: &dyn Fn(&str) -> u64,
        part: Part,
    ) -> Result<(), Error> {
        let addresses = Memory::ALL.map(|memory| address(memory.name()));
        let at = |spot: Spot| addresses[spot.memory as usize] + spot.offset_bytes;
        let wanted = |(_, action): &&(Lane, Action)| match action {
            Action::Exchange(..) => part != Part::Launches,
            Action::Attend(_) => part != Part::Transfers,
            _ => true,
        };
        let mut steps = self.program().steps.iter().filter(wanted);
        // SAFETY: this function's own contract.
        let mut done = steps.try_for_each(|step| unsafe { self.step(step, caller, &at) });
        if done.is_err() {
            // What was enqueued still uses the buffers: the caller's stream waits for it.
            for lane in [Lane::Second, Lane::Transfer] {
                let joined = Event::new(self.lend.context(), false).and_then(|end| {
                    // SAFETY: all streams are the context's.
                    unsafe { end.record(self.stream(lane, caller)).and(end.wait_on(caller)) }
                });
                done = done.and(joined.map_err(Error::from));
            }
        }
        done
    }

    /// # Safety
    /// As for [`enqueue`](Self::enqueue).
    unsafe fn step(
        &self,
        (lane, action): &(Lane, Action),
        caller: CUstream,
        at: &dyn Fn(Spot) -> u64,
    ) -> Result<(), Error> {
        let stream = self.stream(*lane, caller);
        // SAFETY, of all calls: this function's own contract; the program's places lie inside of
        // the buffers that the plan describes, and events order what follows from what.
        match action {
            Action::Copy(it) => {
                // SAFETY: see above.
                unsafe { copy(it, at(it.from), at(it.to), stream) }?;
            }
            Action::Exchange(number, messages) => {
                let message = |it: &Message| ((it.peer, it.sends), (at(it.at), it.bytes));
                let step = || self.named(*number);
                // SAFETY: see above.
                unsafe {
                    let messages = messages.iter().map(message);
                    self.communicator.exchange(stream, messages, &step)
                }?;
            }
            Action::Attend(Attend { request, tensors, lse }) => {
                let [q, k, v, out] = tensors.map(at);
                let mut args = ForwardArgs::<Raw>::new(q, k, v, out);
                if let Some(lse) = lse {
                    args = args.lse(at(*lse));
                }
                // SAFETY: see above.
                unsafe { self.kernels[*request].launch_raw(stream, args) }?;
            }
            // SAFETY: see above.
            Action::Record(event) => unsafe { self.events[*event].record(stream) }?,
            // SAFETY: see above.
            Action::Wait(event) => unsafe { self.events[*event].wait_on(stream) }?,
        }
        Ok(())
    }

    fn named(&self, exchange: usize) -> String {
        format!("exchange {} of {}", exchange + 1, self.program().exchanged.len())
    }

    /// Which exchange is under way.
    fn under_way(&self) -> String {
        let open = |event: &usize| !self.events[*event].is_done().unwrap_or(true);
        let open = self.program().exchanged.iter().position(open);
        open.map_or_else(|| "its own launches".to_owned(), |number| self.named(number))
    }
}

/// A launch under way.
///
/// Nobody has to wait for it: later work on the stream comes after it. But only who waits learns
/// that a peer is lost; without, the stream would be stuck for good.
#[must_use = "only `wait` finds that a peer is lost"]
pub struct Work {
    inner: Arc<Inner>,
    end: Event,
}

impl Work {
    /// Waits until the launch has ended.
    ///
    /// # Errors
    /// [`Error::PeerLost`] if it has not ended after `timeout`, or NCCL finds an error: the
    /// communicator is ended then, by which the stream goes on; the output is undefined.
    /// [`Error::CommunicatorDead`] if that happened before; [`Error::Attention`] if a kernel
    /// failed.
    pub fn wait(&self, timeout: Duration) -> Result<(), Error> {
        let done = || Ok(self.end.is_done()?);
        let step = || self.inner.under_way();
        self.inner.communicator.wait_for(timeout, done, &step)
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// [`Error::Attention`] if a kernel failed.
    pub fn is_done(&self) -> Result<bool, Error> {
        Ok(self.end.is_done()?)
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}
