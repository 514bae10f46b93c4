//! Gradients of attention: their [`cases`], the [`call`] they make, and how answers are
//! [compared](compare).

pub mod call;
pub mod cases;
pub mod compare;
