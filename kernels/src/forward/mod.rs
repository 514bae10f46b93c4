//! The forward kernels, one directory or file for each architecture.

pub mod barriers;
pub mod sm90;
