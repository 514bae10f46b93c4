//! Device primitives: every hardware operation the kernels use, one documented function each.
//!
//! The public modules hold signatures, contracts and, in [`frag`], the only map from lanes and
//! registers to rows and columns. Bodies live behind `imp`: `ptx/` on the GPU, one instruction per
//! `asm!`. Everything is `#[inline(always)]`, because an entry's PTX must be self-contained.
//!
//! Shared memory is reached through [`smem::Smem`], a plain address: Rust references to memory
//! that other threads and the copy engine write would be undefined behaviour.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(asm_experimental_arch))]

#[cfg(target_arch = "nvptx64")]
#[path = "ptx/mod.rs"]
#[doc(hidden)]
pub mod imp;

#[cfg(target_arch = "nvptx64")]
pub mod barrier;
#[cfg(target_arch = "nvptx64")]
pub mod element;
#[cfg(target_arch = "nvptx64")]
pub mod frag;
#[cfg(target_arch = "nvptx64")]
pub mod global;
#[cfg(target_arch = "nvptx64")]
pub mod math;
#[cfg(target_arch = "nvptx64")]
pub mod mbarrier;
#[cfg(target_arch = "nvptx64")]
pub mod registers;
#[cfg(target_arch = "nvptx64")]
pub mod thread;
#[cfg(target_arch = "nvptx64")]
pub mod tma;
#[cfg(target_arch = "nvptx64")]
pub mod wgmma;

pub mod smem;
