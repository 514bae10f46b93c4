//! The emulator: the kernels on a CPU, thread by thread.
//!
//! [`launch`] runs a function as every thread of a grid, each a fiber, under a [`Schedule`] that
//! follows from a seed. The primitives of this crate, in builds for the host, act on the running
//! block: barriers count, the copy engine and the tensor core work late and out of order, and
//! every rule that is broken ends the launch with a [`Fault`] that says which, where and by whom.
//! `kernels/EMULATOR.md` says what is modelled, what is not, and how to use it.
//!
//! * `block`: state, and how a thread reaches it; `run`, `schedule`: who runs; `body.rs` and
//!   `wgmma.rs`: the primitives.
//! * `mbarrier`, `named`, `collective`, `matrix`: what threads do together.
//! * `copy` and `store` with `tensor_map`, `tensor_core` with `operand`: the engines.
//! * `shared` with `clock`, `global`: memory, and who may touch it.
//! * `accumulator`: how the tensor core adds.
//! * `report`: faults; `mutation`: planted errors, `altered.rs`: those of arithmetic;
//!   `trace`: what the warps did, step by step.
//!
//! ```
//! use fulgurite_gpu::{barrier, emu, thread};
//!
//! let global = emu::Global::new();
//! let launch = emu::Launch {
//!     grid: 1,
//!     threads: 128,
//!     smem_bytes: 1024,
//!     parameters: (0, 0),
//!     global: &global,
//!     seed: 7,
//!     mutation: None,
//!     record: false,
//!     accumulator: emu::Accumulator::default(),
//! };
//! // One warp does not come.
//! let kernel = || {
//!     if thread::index() >= 32 {
//!         unsafe { barrier::sync_all() }
//!     }
//! };
//! let fault = emu::launch(&launch, &kernel).unwrap_err();
//! assert_eq!(fault.kind, emu::FaultKind::Deadlock);
//! assert!(fault.to_string().contains("96 of 128 threads have come"));
//! ```

mod accumulator;
pub(crate) mod block;
pub(crate) mod clock;
mod collective;
mod copy;
mod global;
mod matrix;
mod mbarrier;
pub(crate) mod mutation;
pub(crate) mod named;
mod operand;
pub(crate) mod report;
mod run;
mod schedule;
pub(crate) mod shared;
mod store;
pub(crate) mod tensor_core;
mod tensor_map;
#[cfg(test)]
mod tests;
mod trace;

pub use crate::planted::Rows;
pub use accumulator::Accumulator;
pub use global::Global;
pub use mutation::{Change, Mutation, MutationSite};
pub use report::{Fault, FaultKind, Primitive, Site};
pub use run::{Launch, Outcome, Stats, launch};
pub use schedule::{Actor, Schedule};
pub use tensor_map::{MapFields, Swizzle};
pub use trace::{Doing, Event};
