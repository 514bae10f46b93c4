//! Device primitives: every hardware operation the kernels use, one documented function each.
//!
//! The public modules hold signatures, contracts and, in [`frag`], the only map from lanes and
//! registers to rows and columns. Bodies live behind `imp`: `ptx/` on the GPU, one instruction per
//! `asm!`. Everything is `#[inline(always)]`, because an entry's PTX must be self-contained.
//!
//! Shared memory is reached through [`smem::Smem`], a plain address: Rust references to memory
//! that other threads and the copy engine write would be undefined behaviour.
//!
//! On any other target `imp` is `emu/body.rs`: the same functions, emulated; see [`emu`].
#![cfg_attr(target_arch = "nvptx64", no_std)]
#![cfg_attr(target_arch = "nvptx64", feature(asm_experimental_arch))]

#[cfg(target_arch = "nvptx64")]
#[path = "ptx/mod.rs"]
#[doc(hidden)]
pub mod imp;

#[cfg(not(target_arch = "nvptx64"))]
#[path = "emu/body.rs"]
#[doc(hidden)]
pub mod imp;

#[cfg(not(target_arch = "nvptx64"))]
pub mod emu;

pub mod barrier;
pub mod copy;
pub mod element;
pub mod element8;
pub mod fence;
pub mod frag;
pub mod global;
pub mod math;
pub mod mbarrier;
pub mod mma;
pub mod planted;
pub mod product;
pub mod quad;
pub mod registers;
pub mod smem;
pub mod thread;
pub mod tma;
pub mod warp;
pub mod wgmma;
