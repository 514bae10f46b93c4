//! What host and device must agree on, computed once.
//!
//! The core, which knows no operation:
//! * [`kernel`]: all kernels, as far as builder, loader and reports need to know them.
//! * [`arch`], [`dtype`], [`smem`], [`params`], [`launch`]: what kernels are described with.
//! * [`divisor`]: division by numbers that only the host knows.
//! * [`order`]: which job a CTA works on next.
//! * [`mask`]: which keys a row sees, as pure geometry.
//!
//! Operations, each with its table of kernels, its tiles and its parameters:
//! * [`forward`] is attention;
//! * [`backward`]: its gradients;
//! * [`quantise`]: what kernels of 8-bit elements need before them;
//! * [`probes`] are the kernels that test single primitives.
//!
//! The crate has no dependencies and no `std`, so that `xtask` and `host` can use it even while
//! a kernel does not compile.
#![no_std]

pub mod arch;
pub mod backward;
pub mod divisor;
pub mod dtype;
pub mod forward;
pub mod kernel;
pub mod launch;
pub mod mask;
pub mod order;
pub mod params;
pub mod probes;
pub mod quantise;
pub mod smem;

pub use arch::Arch;
pub use divisor::Divisor;
pub use dtype::Dtype;
pub use forward::{
    FORWARD, FORWARD_SM80, FORWARD8, ForwardRow, Fwd8Params, FwdMmaParams, FwdParams, FwdScalars,
    QuantScalars, ScaleAddress, SmemPlan, SoftmaxKind, Source, Tile,
};
pub use kernel::{KERNELS, Kernel};
pub use launch::LaunchSpec;
pub use mask::{Ends, Geometry, Mask, MaskClass, geometry};
pub use order::{JobCursor, JobOrder};
pub use params::TensorMap;
pub use probes::{PROBE_KERNELS, PROBES, ProbeParams, ProbeScalars};
