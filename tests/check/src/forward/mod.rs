//! Attention: its [`cases`], what [`judge`] expects of them and how it is [compared](compare);
//! [`company`]: a batch entry alone and among others; [`mutants`]: someone gets it wrong.

pub mod cases;
pub mod company;
pub mod compare;
pub mod judge;
pub mod mutants;
