//! The emulator: the kernels on a CPU, thread by thread.

pub(crate) mod block;
pub(crate) mod clock;
mod collective;
mod copy;
mod global;
mod mbarrier;
pub(crate) mod mutation;
mod named;
mod operand;
pub(crate) mod report;
mod run;
mod schedule;
pub(crate) mod shared;
pub(crate) mod tensor_core;
mod tensor_map;

pub use global::Global;
pub use mutation::{Change, Mutation, SyncSite};
pub use report::{Fault, FaultKind, Primitive, Site};
pub use run::{Launch, Outcome, Stats, launch};
pub use schedule::{Actor, Schedule};
pub use tensor_map::{MapFields, Swizzle};
