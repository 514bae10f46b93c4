//! A communicator that waits for nobody longer than it was told to.

use std::ffi::c_int;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fulgurite::FlashAttention;
use fulgurite::cudarc::driver::sys::CUstream;

use crate::Error;
use crate::nccl::{Comm, Config, IN_PROGRESS, Nccl, SUCCESS, UniqueId, name};

/// How long ranks wait for each other to connect, plan and enqueue, if they are not told.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long a communicator that ends waits for what is under way.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// For so long a thread that waits does not sleep.
const SPIN: Duration = Duration::from_micros(100);

/// NCCL's switch for NVLink multicast.
const MULTICAST: &str = "NCCL_NVLS_ENABLE";

/// What all ranks of a communicator have in common: one makes it, and gives its bytes to the others
/// (by a file, a socket, an argument).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id(pub [u8; 128]);

impl Id {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::NoNccl`], [`Error::NcclTooOld`], [`Error::Nccl`].
    pub fn new() -> Result<Id, Error> {
        let nccl = Nccl::get()?;
        let mut id = UniqueId([0; 128]);
        // SAFETY: `id` is writable.
        nccl.check(unsafe { (nccl.get_unique_id)(&raw mut id) }, "ncclGetUniqueId")?;
        Ok(Id(id.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(..)")
    }
}

/// How ranks connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// How long ranks wait for each other to connect, plan and enqueue.
    pub deadline: Duration,
    /// Blocks of NCCL's kernels at most, which take multiprocessors from ours; by default NCCL
    /// chooses.
    pub max_blocks: Option<u32>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions { deadline: DEADLINE, max_blocks: None }
    }
}

impl ConnectOptions {
    /// How long ranks wait for each other to connect, plan and enqueue.
    pub fn deadline(self, deadline: Duration) -> Self {
        ConnectOptions { deadline, ..self }
    }

    /// Blocks of NCCL's kernels at most.
    pub fn max_blocks(self, blocks: u32) -> Self {
        ConnectOptions { max_blocks: Some(blocks), ..self }
    }
}

/// One rank's end of what joins several GPUs. Cheap to clone; may be used by any thread.
///
/// After an error of a peer it is ended, and everything that would use it is refused
/// ([`Error::CommunicatorDead`]).
#[derive(Clone)]
pub struct Communicator {
    inner: Arc<Inner>,
}

struct Inner {
    nccl: &'static Nccl,
    /// `None` once it is ended.
    comm: Mutex<Option<Handle>>,
    rank: usize,
    world: usize,
    deadline: Duration,
    /// Whether it was made here.
    owned: bool,
}

/// A communicator of NCCL's.
#[derive(Clone, Copy)]
struct Handle(Comm);

// SAFETY: NCCL's functions may be called by any thread, one at a time for a communicator, which the
// lock around it sees to.
unsafe impl Send for Handle {}

impl Communicator {
    /// Connects this rank with the others, which do the same at about the same time: each in a
    /// process or a thread of its own, each with a GPU of its own.
    ///
    /// # Errors
    /// [`Error::NoRank`], [`Error::MulticastAllowed`], [`Error::NoNccl`], [`Error::NcclTooOld`],
    /// [`Error::NotConnected`] if the others do not come in time, [`Error::Nccl`],
    /// [`Error::Attention`] if the device fails.
    pub fn connect(
        attention: &FlashAttention,
        id: &Id,
        rank: usize,
        world: usize,
        options: &ConnectOptions,
    ) -> Result<Communicator, Error> {
        let context = attention.context();
        let bound = context.bind_to_thread();
        bound.map_err(|error| {
            fulgurite::driver_failure(error.0, "cuCtxSetCurrent", String::new())
        })?;
        Communicator::of_current_device(id, rank, world, options)
    }

    /// As [`connect`](Self::connect), for the device that is current on this thread.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub fn of_current_device(
        id: &Id,
        rank: usize,
        world: usize,
        options: &ConnectOptions,
    ) -> Result<Communicator, Error> {
        if rank >= world {
            return Err(Error::NoRank { rank, world });
        }
        check_multicast(std::env::var(MULTICAST).ok())?;
        Communicator::of_library(Nccl::get()?, id, rank, world, options)
    }

    fn of_library(
        nccl: &'static Nccl,
        id: &Id,
        rank: usize,
        world: usize,
        options: &ConnectOptions,
    ) -> Result<Communicator, Error> {
        let mut comm: Comm = std::ptr::null_mut();
        let mut config = Config::non_blocking(options.max_blocks);
        let (ranks, number) = (world as c_int, rank as c_int);
        // SAFETY: `comm` and `config` are writable; the id is one.
        let code = unsafe {
            (nccl.init_rank)(&raw mut comm, ranks, UniqueId(id.0), number, &raw mut config)
        };
        nccl.check(code, "ncclCommInitRankConfig")?;
        let deadline = options.deadline;
        let communicator =
            Communicator { inner: Arc::new(Inner::new(nccl, comm, rank, world, deadline, true)) };
        let waited = Instant::now();
        let connected = communicator.inner.settle(Handle(comm), "ncclCommInitRankConfig", deadline);
        match connected {
            Ok(true) => Ok(communicator),
            Ok(false) => {
                communicator.end();
                Err(Error::NotConnected { rank, world, waited: waited.elapsed() })
            }
            Err(error) => {
                communicator.end();
                Err(error)
            }
        }
    }

    /// A communicator that someone else made (PyTorch, a program of its own), and keeps.
    ///
    /// # Safety
    /// `comm` is an `ncclComm_t` of the library that [`Id::new`] finds, which lives as long as the
    /// result and its clones, and no other thread uses it during a call of theirs. Where a peer is
    /// lost it is aborted here, and its owner must not use it any more.
    ///
    /// # Errors
    /// [`Error::NoNccl`], [`Error::NcclTooOld`], [`Error::Nccl`].
    pub unsafe fn from_raw(
        comm: *mut std::ffi::c_void,
        options: &ConnectOptions,
    ) -> Result<Communicator, Error> {
        // SAFETY: this function's own contract.
        unsafe { Communicator::of_raw(Nccl::get()?, comm, options) }
    }

    /// # Safety
    /// As for [`from_raw`](Self::from_raw).
    unsafe fn of_raw(
        nccl: &'static Nccl,
        comm: Comm,
        options: &ConnectOptions,
    ) -> Result<Communicator, Error> {
        let (mut world, mut rank) = (0, 0);
        // SAFETY: the communicator lives, the numbers are writable.
        nccl.check(unsafe { (nccl.count)(comm, &raw mut world) }, "ncclCommCount")?;
        // SAFETY: as above.
        nccl.check(unsafe { (nccl.user_rank)(comm, &raw mut rank) }, "ncclCommUserRank")?;
        let [rank, world] = [rank, world].map(|number| usize::try_from(number).unwrap_or(0));
        let inner = Inner::new(nccl, comm, rank, world, options.deadline, false);
        Ok(Communicator { inner: Arc::new(inner) })
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.inner.rank
    }

    /// How many ranks there are.
    pub fn world(&self) -> usize {
        self.inner.world
    }

    /// How long ranks wait for each other to plan and enqueue.
    pub fn deadline(&self) -> Duration {
        self.inner.deadline
    }

    /// The library's name and its version (`22809`: 2.28.9).
    ///
    /// # Errors
    /// [`Error::Nccl`].
    pub fn nccl_version(&self) -> Result<(String, i32), Error> {
        self.inner.nccl.version()
    }

    /// Whether it can still be used.
    pub fn is_alive(&self) -> bool {
        self.inner.lock().is_some()
    }

    /// Ends it at once, and what is under way with it.
    pub fn end(&self) {
        self.inner.end(&mut self.inner.lock());
    }

    /// Enqueues messages that meet: peer and whether this rank sends, address and bytes.
    ///
    /// # Safety
    /// The stream and the memory are the communicator's device's; the memory stays until the stream
    /// has come so far.
    ///
    /// # Errors
    /// [`Error::CommunicatorDead`], [`Error::PeerLost`], [`Error::Nccl`]; the communicator is ended
    /// then.
    pub(crate) unsafe fn exchange(
        &self,
        stream: CUstream,
        messages: impl Iterator<Item = ((usize, bool), (u64, u64))>,
        step: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        self.inner.call("ncclGroupEnd", step, |nccl, comm| {
            // SAFETY: no precondition; it is ended below.
            let mut code = unsafe { (nccl.group_start)() };
            for (whom, what) in messages {
                if code == SUCCESS || code == IN_PROGRESS {
                    // SAFETY: the communicator lives; the rest is this function's own contract.
                    code = unsafe { nccl.transfer(comm, stream, whom, what) };
                }
            }
            // SAFETY: the group was begun by this thread.
            let end = unsafe { (nccl.group_end)() };
            if code == SUCCESS || code == IN_PROGRESS { end } else { code }
        })
    }

    /// Enqueues that all ranks receive the bytes of all.
    ///
    /// # Safety
    /// As for [`exchange`](Self::exchange); `to` has room for the bytes of all ranks.
    ///
    /// # Errors
    /// As for [`exchange`](Self::exchange).
    pub(crate) unsafe fn gather(
        &self,
        stream: CUstream,
        from: u64,
        to: u64,
        bytes: usize,
        step: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        self.inner.call("ncclAllGather", step, |nccl, comm| {
            // SAFETY: the communicator lives; the rest is this function's own contract.
            unsafe { nccl.gather(comm, stream, from, to, bytes) }
        })
    }

    /// Waits until `done` says so, and ends the communicator if that takes too long or if NCCL
    /// finds an error: that alone ends a transfer that is stuck.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::CommunicatorDead`], and those of `done`.
    pub(crate) fn wait_for(
        &self,
        timeout: Duration,
        mut done: impl FnMut() -> Result<bool, Error>,
        step: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let finished = done()?;
            let mut comm = self.inner.lock();
            let Some(Handle(handle)) = *comm else {
                return Err(Error::CommunicatorDead { rank: self.rank() });
            };
            if finished {
                return Ok(());
            }
            let state = self.inner.state(handle);
            let broken = state != SUCCESS && state != IN_PROGRESS;
            let waited = start.elapsed();
            if broken || waited >= timeout {
                let error = self.inner.lost(waited, step(), state);
                self.inner.end(&mut comm);
                return Err(error);
            }
            drop(comm);
            pause(start);
        }
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Communicator(rank {} of {})", self.rank(), self.world())
    }
}

impl Inner {
    fn new(
        nccl: &'static Nccl,
        comm: Comm,
        rank: usize,
        world: usize,
        deadline: Duration,
        owned: bool,
    ) -> Inner {
        Inner { nccl, comm: Mutex::new(Some(Handle(comm))), rank, world, deadline, owned }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Handle>> {
        self.comm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What NCCL says of the communicator.
    fn state(&self, comm: Comm) -> c_int {
        let mut state = SUCCESS;
        // SAFETY: the communicator lives; `state` is writable.
        let code = unsafe { (self.nccl.async_error)(comm, &raw mut state) };
        if code == SUCCESS { state } else { code }
    }

    /// Waits for what was begun; `false` if that takes too long.
    fn settle(
        &self,
        Handle(comm): Handle,
        call: &'static str,
        limit: Duration,
    ) -> Result<bool, Error> {
        let start = Instant::now();
        loop {
            match self.state(comm) {
                SUCCESS => return Ok(true),
                IN_PROGRESS if start.elapsed() >= limit => return Ok(false),
                IN_PROGRESS => pause(start),
                code => return self.nccl.check(code, call).map(|()| true),
            }
        }
    }

    /// Calls a function that enqueues, and waits until it has done so.
    fn call(
        &self,
        call: &'static str,
        step: &dyn Fn() -> String,
        function: impl FnOnce(&Nccl, Comm) -> c_int,
    ) -> Result<(), Error> {
        let mut comm = self.lock();
        let Some(handle) = *comm else {
            return Err(Error::CommunicatorDead { rank: self.rank });
        };
        let code = function(self.nccl, handle.0);
        let called = self.nccl.check(code, call);
        let error = match called.and_then(|()| self.settle(handle, call, self.deadline)) {
            Ok(true) => return Ok(()),
            Ok(false) => self.lost(self.deadline, step(), IN_PROGRESS),
            Err(error) => error,
        };
        self.end(&mut comm);
        Err(error)
    }

    fn lost(&self, waited: Duration, step: String, state: c_int) -> Error {
        // Of two ranks the other one; of more, nobody says which.
        let peer = (self.world == 2).then(|| 1 - self.rank);
        let nccl = match state {
            SUCCESS | IN_PROGRESS => "NCCL reports no error".to_owned(),
            code => format!("NCCL reports {}", name(code)),
        };
        Error::PeerLost { rank: self.rank, peer, waited, step, nccl }
    }

    fn end(&self, comm: &mut Option<Handle>) {
        if let Some(Handle(comm)) = comm.take() {
            // SAFETY: the communicator lives, and nobody has its handle any more. What it returns
            // changes nothing: it is gone.
            let _ = unsafe { (self.nccl.abort)(comm) };
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut comm = self.lock();
        let Some(handle) = comm.filter(|_| self.owned) else {
            return;
        };
        // SAFETY: the communicator lives.
        let code = unsafe { (self.nccl.finalize)(handle.0) };
        let begun = code == SUCCESS || code == IN_PROGRESS;
        if begun && self.settle(handle, "ncclCommFinalize", END_DEADLINE) == Ok(true) {
            // SAFETY: it is finalised, and nobody has its handle any more.
            let _ = unsafe { (self.nccl.destroy)(handle.0) };
        } else {
            self.end(&mut comm);
        }
    }
}

/// Lets others run, for longer once the wait has become long.
fn pause(start: Instant) {
    if start.elapsed() < SPIN { std::hint::spin_loop() } else { std::thread::sleep(SPIN) }
}

/// NCCL reads the variable when it connects for the first time; it has no other switch.
fn check_multicast(value: Option<String>) -> Result<(), Error> {
    match value {
        Some(value) if value == "0" => Ok(()),
        other => {
            Err(Error::MulticastAllowed { got: other.unwrap_or_else(|| "not set".to_owned()) })
        }
    }
}

#[cfg(test)]
mod tests;
