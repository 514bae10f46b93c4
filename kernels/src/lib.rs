//! The device programs.
//!
//! Rules of this crate: leaves are shared, control flow is not (one straight-line kernel per
//! architecture); no `asm!` and no lane arithmetic (both live in `fulgurite-gpu`); barriers and
//! roles are tables.
//!
//! * `entry`: one PTX entry per row of the operations' tables.
//! * `forward`: the forward kernels; `jobs`, `softmax`, `barriers`, `ring`, `epilogue`: their
//!   parts.
//! * `backward`: the gradients of attention.
//! * `quantise`: what makes the 8-bit elements that some of these read.
//! * `probe`: kernels that use one primitive each, to compare GPU and emulator.
#![cfg_attr(target_arch = "nvptx64", no_std)]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]

pub mod backward;
pub mod barriers;
pub mod entry;
pub mod epilogue;
pub mod forward;
pub mod jobs;
pub mod probe;
pub mod quantise;
pub mod ring;
pub mod softmax;

#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
