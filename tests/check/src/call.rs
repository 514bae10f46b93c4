//! Calls of the host crate, so that any device can make them.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use fulgurite::{DeviceFacts, Plan, Pointers};

use crate::gpu::{Gpu, OnGpu};
use crate::memory::Memory;

/// One call of an operation. What an operation says here is all that devices know of it.
pub trait Call: Any + Debug + Send + Sync {
    /// The plan for a device.
    ///
    /// # Errors
    /// What the host crate refuses.
    fn plan(&self, facts: &DeviceFacts) -> Result<Plan, fulgurite::Error>;

    /// What a launch takes, by the addresses of tensors and numbers of these names; none for what
    /// was not laid out.
    fn pointers(&self, address: &dyn Fn(&str) -> Option<u64>) -> Pointers;

    /// Enqueues the call on a GPU's stream, through the safe door of the host crate.
    ///
    /// # Errors
    /// A message: what the host crate refuses, or the driver.
    fn launch(&self, gpu: &Gpu, memory: &OnGpu<'_>) -> Result<(), String>;

    /// Computes what a right kernel would give, and leaves it where that would.
    fn model(&self, memory: &mut Memory);

    /// Multiplications of one of its products: what it costs to emulate.
    fn products(&self) -> usize;

    /// Query tiles × KV tiles, or what else a plan's kernel repeats.
    fn tiles(&self, plan: &Plan) -> u64;
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
