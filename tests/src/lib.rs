//! The CPU reference, the list of cases, the rules of comparison, and what `fulgurite-check` does.
//!
//! * [`oracle`]: attention in float64; [`closed_forms`]: what it must give where that is known.
//! * [`lowprec`]: the rounding that no kernel of this element type avoids.
//! * [`cases`] with [`values`] and [`memory`]: what is computed, on which numbers, laid out how.
//! * [`backend`]: who computes; [`gpu`]: a GPU does; [`mutants`]: someone gets it wrong.
//! * [`check`] runs a case on a backend, [`compare`] judges the answer; [`company`]: a batch entry
//!   alone and among others.
//! * [`probes`]: single primitives, on a GPU and on the emulator.
//! * [`verify`] and [`bench`]: the two commands; [`csv_file`]: what they write.
//! * [`demo`]: the first look: one kernel on the emulator, and what the emulator sees.
//! * [`info`]: what a report of an error should say about the machine.

pub mod backend;
#[cfg(feature = "programs")]
pub mod bench;
pub mod cases;
pub mod check;
#[cfg(feature = "programs")]
pub mod closed_forms;
pub mod company;
pub mod compare;
#[cfg(feature = "programs")]
pub mod csv_file;
pub mod demo;
pub mod emulator;
pub mod gpu;
#[cfg(feature = "programs")]
pub mod info;
pub mod lowprec;
pub mod memory;
pub mod mutants;
pub mod oracle;
pub mod output;
#[cfg(feature = "programs")]
pub mod probes;
#[cfg(feature = "programs")]
pub mod progress;
#[cfg(feature = "programs")]
pub mod tables;
pub mod tensor;
pub mod values;
#[cfg(feature = "programs")]
pub mod verify;
