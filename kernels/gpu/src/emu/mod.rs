//! The emulator: the kernels on a CPU, thread by thread.
//!
//! [`launch`] runs a function as every thread of a grid, each a fiber, under a [`Schedule`] that
//! follows from a seed. The primitives of this crate, in builds for the host, act on the running
//! block: barriers count, the copy engine and the tensor core work late and out of order, and
//! every rule that is broken ends the launch with a [`Fault`] that says which, where and by whom.
//! `kernels/EMULATOR.md` says what is modelled, what is not, and how to use it.
//!
//! The files are layers; none uses one above it, and a test sees to that.
//!
//! * The primitives: `body.rs`, `wgmma.rs`, and for arithmetic `altered.rs`; `current`: how they
//!   reach the block that they run in.
//! * `run`: every thread a fiber, in the order of a `schedule`; `ending`: what is said when nobody
//!   can go on, and what may not be left open; `trace`: what the warps did, step by step.
//! * `block`: composes the parts. Each of them owns its state, knows no other part's, and returns
//!   what its operations bring about.
//! * The parts: `mbarrier`, `named` (barriers); `copy` with `store` (the copy engine);
//!   `thread_copy` (copies of threads); `warp_product`; `tensor_core` with `operand`, `format`,
//!   `e4m3` and `accumulator`; `register_file`; `lanes`
//!   with `request` and `pins` (threads, what they ask for together, the registers that they
//!   name); `shuffle`, `matrix` (what a warp exchanges).
//! * Memory and who may touch it: `shared`, `global`, `parameters` with `tensor_map`, `clock`.
//! * `report`: faults; `mutation`: planted errors; `grid`, `stats`: what is launched, what it did.
//!
//! ```
//! use fulgurite_gpu::{barrier, emu, thread};
//!
//! let global = emu::Global::new();
//! let grid = emu::Grid {
//!     blocks: 1,
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
//! let fault = emu::launch(&grid, &kernel).unwrap_err();
//! assert_eq!(fault.kind, emu::FaultKind::Deadlock);
//! assert!(fault.to_string().contains("96 of 128 threads have come"));
//! ```

mod accumulator;
pub(crate) mod block;
mod clock;
mod copy;
pub(crate) mod current;
pub(crate) mod e4m3;
mod ending;
pub(crate) mod format;
mod global;
mod grid;
pub(crate) mod lanes;
mod matrix;
mod mbarrier;
pub(crate) mod mutation;
pub(crate) mod named;
pub(crate) mod operand;
mod parameters;
mod pins;
mod register_file;
pub(crate) mod report;
pub(crate) mod request;
mod run;
mod schedule;
pub(crate) mod shared;
pub(crate) mod shuffle;
mod stats;
mod store;
pub(crate) mod tensor_core;
mod tensor_map;
#[cfg(test)]
mod tests;
mod thread_copy;
mod trace;
pub(crate) mod warp_product;

pub use crate::planted::Rows;
pub use accumulator::Accumulator;
pub use global::Global;
pub use grid::Grid;
pub use mutation::{Change, Mutation, MutationSite};
pub use report::{Fault, FaultKind, Primitive, Site};
pub use run::{Summary, launch};
pub use schedule::{Actor, Schedule};
pub use stats::Stats;
pub use tensor_map::{MapFields, Swizzle};
pub use trace::{Doing, Event};
