//! From the compiler's PTX of many entries to one finished PTX text per entry. Pure functions.
//!
//! * [`split`]: cuts a PTX text into its top-level items.
//! * [`finish`]: checks one entry, stamps its launch bounds and parameter alignment, and writes
//!   it as a module of its own.

pub mod finish;
pub mod split;

pub use finish::{Stamp, modules};
