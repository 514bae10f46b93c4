//! The tables of kernels and what a plan is made of: for tests, benchmarks and those who are
//! curious.
//!
//! **Exempt from semantic versioning**: any version may change, move or remove what is here, since
//! it follows the kernels and their tuning. Programs that need something of it for other reasons
//! should ask for it; until then they pin `fulgurite` to one version (`=`).
//!
//! Other items name these types too ([`Plan::launches`](crate::Plan::launches),
//! [`Plan::variant`](crate::Plan::variant), [`DeviceFacts::check`](crate::DeviceFacts::check) and
//! what is in the packages `fulgurite-spec`, `fulgurite-gpu` and `fulgurite-kernels`): of those the
//! same holds.
//!
//! ```
//! use fulgurite::internals::{Tile, VARIANTS};
//!
//! let row = &VARIANTS[0];
//! println!("{}: {} rows of q in a tile", row.entry, Tile::of(row).q_rows());
//! ```

pub use fulgurite_spec::backward::{BACKWARD, BackwardRow, BackwardTile, DELTA, Part};
pub use fulgurite_spec::{
    Ends, FORWARD as VARIANTS, FORWARD_SM80 as VARIANTS_SM80, FORWARD8 as VARIANTS_8BIT,
    ForwardRow as Variant, Fwd8Params, FwdMmaParams, FwdParams, FwdScalars, JobOrder, KERNELS,
    Kernel, LaunchSpec, MaskClass, SoftmaxKind, TensorMap, Tile,
};

pub use crate::tensor_map::TensorMapSpec;
pub use crate::work::Launch;
