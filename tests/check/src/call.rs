//! Calls of the host crate, so that any device can make them.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use fulgurite::DeviceFacts;
use fulgurite::emulator::{Emulator, Fault, Global, Summary};

use crate::gpu::{Gpu, OnGpu};
use crate::memory::Memory;
use crate::workspace;

/// What was decided for a call, as far as reports tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The first kernel of a launch; none if there is no work.
    pub entry: Option<&'static str>,
    /// Query tiles × KV tiles, or what else that kernel repeats.
    pub tiles: u64,
}

/// What came of a call on the emulator: what was decided, and what the kernel did or which rule it
/// broke.
pub type Emulated = Result<(Decided, Result<Summary, Box<Fault>>), fulgurite::Error>;

/// One call of an operation. What an operation says here is all that devices know of it.
pub trait Call: Any + Debug + Send + Sync {
    /// The plan for a device.
    ///
    /// # Errors
    /// What the host crate refuses.
    fn plan(&self, facts: &DeviceFacts) -> Result<Decided, fulgurite::Error>;

    /// Runs the call on an emulator with these facts. `address` knows where tensors and numbers of
    /// a name lie in `global`; none for what was not laid out. The workspace is mapped as well.
    ///
    /// # Errors
    /// What the host crate refuses.
    fn emulate<'a>(
        &self,
        facts: &DeviceFacts,
        emulator: &Emulator,
        address: &dyn Fn(&str) -> Option<u64>,
        global: &mut Global<'a>,
        workspace: &'a mut workspace::Emulated,
    ) -> Emulated;

    /// Enqueues the call on a GPU's stream, through the safe door of the host crate.
    ///
    /// # Errors
    /// A message: what the host crate refuses, or the driver.
    fn launch(&self, gpu: &Gpu, memory: &OnGpu<'_>) -> Result<(), String>;

    /// Computes what a right kernel would give, and leaves it where that would.
    fn model(&self, memory: &mut Memory);

    /// Multiplications of one of its products: what it costs to emulate.
    fn products(&self) -> usize;
}

/// A call, and the memory that it reads and writes.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The call.
    pub call: Arc<dyn Call>,
    /// Memory before it; a device leaves there what it holds after it.
    pub memory: Memory,
}

impl Launch {
    /// The call, if it is of this operation.
    pub fn call_of<C: Call>(&self) -> Option<&C> {
        let call: &dyn Any = &*self.call;
        call.downcast_ref()
    }
}
