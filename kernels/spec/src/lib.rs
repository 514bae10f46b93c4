//! What host and device must agree on, computed once.
//!
//! * [`variants`]: the one table of kernels; entry names, dispatch, tests and checks expand it.
//! * [`tile`]: the tile shape of a variant and the shared-memory plan that follows from it.
//! * [`params`]: the `#[repr(C)]` structs a kernel receives.
//! * [`launch`]: block size, register budgets and shared memory of a variant, as data.
//! * [`divisor`]: division by numbers that only the host knows.
//! * [`order`]: which job a CTA works on next.
//! * [`probes`]: the kernels that test single primitives.
//!
//! The crate has no dependencies and no `std`, so that `xtask` and `host` can use it even while
//! a kernel does not compile.
#![no_std]

pub mod divisor;
pub mod launch;
pub mod order;
pub mod params;
pub mod probes;
pub mod tile;
pub mod variants;

pub use divisor::Divisor;
pub use launch::LaunchSpec;
pub use order::{JobCursor, JobOrder};
pub use params::{FwdParams, FwdScalars, TensorMap};
pub use probes::{PROBES, ProbeParams, ProbeScalars};
pub use tile::{SmemPlan, Tile};
pub use variants::{Arch, Dtype, MaskKind, SoftmaxKind, VARIANTS, Variant};
