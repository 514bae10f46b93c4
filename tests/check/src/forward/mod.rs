//! Attention: its [`cases`], the [`call`] they make, what [`judge`] expects and how answers are
//! [compared](compare); [`company`]: a batch entry alone and among others; [`model`]: other
//! arithmetic; [`mutants`]: someone gets it wrong. [`input`]: a user's own tensors; [`long`]: rows
//! of very many keys.

pub mod call;
pub mod cases;
pub mod company;
pub mod compare;
#[cfg(feature = "commands")]
pub mod input;
pub mod judge;
#[cfg(feature = "commands")]
pub mod long;
pub mod model;
pub mod mutants;
