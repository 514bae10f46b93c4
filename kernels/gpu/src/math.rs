//! Arithmetic that Rust's operators do not give in the form the kernels need.

use crate::imp;

/// `2^x` to 2 ulp; subnormal results are 0, `-inf` gives 0 (PTX `ex2.approx.ftz.f32`).
#[inline(always)]
#[track_caller]
pub fn exp2(x: f32) -> f32 {
    imp::ex2(x)
}

/// `log2(x)`; 0 gives `-inf` (PTX `lg2.approx.ftz.f32`).
#[inline(always)]
#[track_caller]
pub fn log2(x: f32) -> f32 {
    imp::lg2(x)
}

/// `a * b + c`, rounded once. Asked for by name, because ptxas may not fuse LLVM's `mul.rn` and
/// `add.rn`.
#[inline(always)]
#[track_caller]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    imp::fma(a, b, c)
}

/// The larger one; NaN if one of them is (PTX `max.NaN.f32`; [`f32::max`] passes NaN over).
#[inline(always)]
pub fn max_nan(a: f32, b: f32) -> f32 {
    imp::max_nan(a, b)
}

/// The nearest integer, of two as near the even one; beyond the 32-bit integers the last one, of
/// NaN 0.
#[inline(always)]
pub fn nearest(x: f32) -> i32 {
    imp::nearest_s32(x)
}
