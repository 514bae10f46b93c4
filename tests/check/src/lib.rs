//! Cases, who computes them, and the rules that judge the answers.
//!
//! What every operation shares knows none of them: [`case`], what is checked; [`call`] and
//! [`memory`], the call that it makes and what that reads and writes, [`workspace`], what it works
//! in; [`device`], who computes, as
//! [`gpu`] and [`emulator`] do; [`rules`] and [`report`], what is found and how it is told, with
//! [`csv_file`] and [`progress`]; [`verify`], the command; [`probes`], single primitives on a GPU
//! and the emulator.
//!
//! [`forward`] has the cases of attention, [`backward`] those of its gradients, [`quantise`] those
//! of the quantiser.

pub mod backward;
pub mod call;
pub mod case;
#[cfg(feature = "commands")]
pub mod csv_file;
pub mod device;
pub mod emulator;
pub mod forward;
pub mod gpu;
pub mod memory;
#[cfg(feature = "commands")]
pub mod probes;
#[cfg(feature = "commands")]
pub mod progress;
#[cfg(feature = "commands")]
pub mod quantise;
#[cfg(feature = "commands")]
pub mod report;
pub mod rules;
#[cfg(feature = "commands")]
pub mod verify;
pub mod workspace;
