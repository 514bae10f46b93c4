//! The gradients of attention, in three launches.
//!
//! With `P = 2^(S·scale − lse)` of the forward's log-sum-exp, `dP = dO Vᵀ` and `delta` the sum of
//! `dO ∘ O` over a row's columns, gradients of scores are `dS = P ∘ (dP − delta)`, and of the rest
//! `dV = Pᵀ dO`, `dK = scale · dSᵀ Q`, `dQ = scale · dS K`. [`delta`] takes what belongs to rows;
//! [`sm90`] has the two kernels that compute P and dS again and sum one side's gradients each, in
//! registers: no atomics, and no sum whose order depends on anything but the call's shape.

pub mod delta;
pub mod entry;
pub mod job;
pub mod shape;
pub mod sm90;
