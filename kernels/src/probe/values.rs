//! Values in registers: rounding, approximate functions, shuffles.

use super::Probe;
use fulgurite_gpu::{
    element::{Bf16, Element, F16},
    math, warp,
};

/// Rounds the thread's floats `a`, `b` to 16 bits, and `a * b + c` once.
///
/// # Safety
/// One part of input and of output.
#[inline(always)]
pub unsafe fn rounding(probe: Probe) {
    let [a, b, c, d] = probe.input(0).map(f32::from_bits);
    let words = [Bf16::pack(a, b), F16::pack(a, b), math::fma(a, b, c).to_bits(), F16::pack(c, d)];
    probe.output(0, words);
}

/// `2^a` and `log2(b)`.
///
/// # Safety
/// As [`rounding`].
#[inline(always)]
pub unsafe fn exponentials(probe: Probe) {
    let [a, b, c, d] = probe.input(0).map(f32::from_bits);
    let exponentials = [math::exp2(a), math::log2(b), math::exp2(c), math::log2(d)];
    probe.output(0, exponentials.map(f32::to_bits));
}

/// Values of other threads of the warp, and what all of them vote.
///
/// # Safety
/// Two parts of output, one of input.
#[inline(always)]
pub unsafe fn shuffles(probe: Probe) {
    let [a, b, c, d] = probe.input(0);
    // SAFETY: all threads come here.
    unsafe {
        let near = [warp::shuffle_xor::<1>(a), warp::shuffle_xor::<2>(b)];
        let far = [warp::shuffle_xor::<16>(c), warp::shuffle_xor::<31>(d)];
        probe.output(0, [near[0], near[1], far[0], far[1]]);
        let first = [warp::broadcast_first(a), warp::broadcast_first(b ^ c)];
        let votes = [warp::ballot(a & 1 == 1), warp::ballot(b > c)];
        probe.output(1, [first[0], first[1], votes[0], votes[1]]);
    }
}
