//! Bodies of the primitives on the GPU: one instruction per `asm!`.
//!
//! Contracts are those of the public function of the same purpose; each instruction is described
//! in the PTX ISA under its mnemonic. `options(pure, nomem)` stands only where it is true; all
//! other statements keep their order and act as compiler barriers.
#![allow(missing_docs, clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)]

mod copy;
mod matrix;
mod mma;
mod planted;
mod scalar;
mod sync;
mod wgmma;

pub use copy::*;
pub use matrix::*;
pub use mma::*;
pub use planted::*;
pub use scalar::*;
pub use sync::*;
pub use wgmma::*;

/// Declares the dynamic shared memory in the PTX of the crate that calls it (each crate's PTX is
/// its own module, so a declaration in this crate would not reach the kernels').
#[macro_export]
macro_rules! declare_dynamic_smem {
    () => {
        core::arch::global_asm!(".extern .shared .align 1024 .b8 dynamic_smem[];");
    };
}

/// Generic address of an entry's first parameter, by symbol: a Rust reference to it would be a
/// copy in local memory, which the copy engine cannot read.
#[macro_export]
macro_rules! parameter_address {
    ($entry:ident) => {{
        let address: u64;
        core::arch::asm!(
            concat!("cvta.param.u64 {0}, ", stringify!($entry), "_param_0;"),
            out(reg64) address,
            options(pure, nomem, nostack),
        );
        address
    }};
}
