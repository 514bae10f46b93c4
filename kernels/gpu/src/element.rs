//! Element types of the tensors, as the tensor core takes them.

use crate::{frag::Accum, imp};
use fulgurite_spec::Dtype;

/// A 16-bit float that `wgmma` multiplies with float32 accumulation.
///
/// # Safety
/// The functions compute in the type that `DTYPE` names.
pub unsafe trait Element: Copy {
    /// The same type as data.
    const DTYPE: Dtype;

    /// Rounds two floats to nearest even and packs them, `low` into the low half.
    fn pack(low: f32, high: f32) -> u32;

    /// Issues `acc (+)= A × Bᵀ`, both operands in shared memory, K-major; 64×N×16.
    ///
    /// # Safety
    /// As [`crate::wgmma::issue_ss`].
    unsafe fn wgmma_ss<const N: u32, const ADD: bool>(acc: &mut Accum<N>, a: u64, b: u64);

    /// Issues `acc += A × B` with A from registers and B in shared memory, N-major; 64×N×16.
    ///
    /// # Safety
    /// As [`crate::wgmma::issue_rs`].
    unsafe fn wgmma_rs<const N: u32>(acc: &mut Accum<N>, a: [u32; 4], b: u64);
}

macro_rules! element {
    ($(#[$doc:meta])* $name:ident, $pack:ident, $ss:ident, $rs:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name;

        // SAFETY: the three instructions named are those of this type.
        unsafe impl Element for $name {
            const DTYPE: Dtype = Dtype::$name;

            #[inline(always)]
            fn pack(low: f32, high: f32) -> u32 {
                imp::$pack(low, high)
            }

            #[inline(always)]
            #[track_caller]
            unsafe fn wgmma_ss<const N: u32, const ADD: bool>(
                acc: &mut Accum<N>,
                a: u64,
                b: u64,
            ) {
                // SAFETY: the caller's contract is the instruction's.
                unsafe { imp::$ss::<N, ADD>(&mut acc.registers, a, b) }
            }

            #[inline(always)]
            #[track_caller]
            unsafe fn wgmma_rs<const N: u32>(acc: &mut Accum<N>, a: [u32; 4], b: u64) {
                // SAFETY: the caller's contract is the instruction's.
                unsafe { imp::$rs::<N>(&mut acc.registers, a, b) }
            }
        }
    };
}

element!(
    /// bfloat16.
    Bf16, pack_bf16, wgmma_ss_bf16, wgmma_rs_bf16
);
element!(
    /// IEEE half.
    F16, pack_f16, wgmma_ss_f16, wgmma_rs_f16
);
