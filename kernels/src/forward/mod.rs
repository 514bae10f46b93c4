//! The forward kernels, one directory or file for each architecture; beside them
//! what those share: the table of barriers, the shape.

pub mod barriers;
pub mod shape;
pub mod sm80;
pub mod sm90;
