//! What `fulgurite-check` does besides checking and measuring.
//!
//! * [`info`]: what a report of an error should say about the machine.

pub mod info;
