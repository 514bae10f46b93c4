//! Cases, who computes them, and the rules that judge the answers.
//!
//! What every operation shares knows none of them:
//! * [`device`]: who computes; [`gpu`] and [`emulator`] do.
//! * [`memory`]: the places of tensors.
//! * [`report`]: what became of all; [`csv_file`]: how it is written.
//! * [`probes`]: single primitives, on a GPU and on the emulator.
//! * [`verify`]: the command.
//!
//! [`forward`] has the cases of attention.

pub mod csv_file;
pub mod device;
pub mod emulator;
pub mod forward;
pub mod gpu;
pub mod memory;
pub mod probes;
pub mod report;
pub mod verify;
