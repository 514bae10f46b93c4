//! Element types of the tensors, as the tensor core takes them.

use crate::{frag::Accum, imp};
use fulgurite_spec::Dtype;

/// A 16-bit float that the tensor core multiplies with float32 accumulation.
///
/// # Safety
/// The functions compute in the type that `DTYPE` names.
pub unsafe trait Element: Copy {
    /// The same type as data.
    const DTYPE: Dtype;

    /// Powers of two below 1 at which probabilities best begin, if they may grow by 2^15: as many
    /// as the type has exponents to spare, so that sums of products with any values stay as far
    /// from overflow as if no probability were above 1.
    const HEADROOM: f32;

    /// The bits of infinity; those of every NaN are larger, its sign aside.
    const INFINITY_BITS: u32;

    /// Rounds two floats to nearest even and packs them, `low` into the low half.
    #[track_caller]
    fn pack(low: f32, high: f32) -> u32;

    /// The two numbers of a pair, the low half's first.
    fn unpack(pair: u32) -> [f32; 2];

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

    /// One warp's `sums + A × B`; 16×8×16.
    ///
    /// # Safety
    /// As [`crate::mma::multiply`].
    unsafe fn mma(sums: [f32; 4], a: [u32; 4], b: [u32; 2]) -> [f32; 4];
}

/// The type of a dtype, for code that has a dtype as a constant: `Of<{ dtype as u8 }>`.
pub struct Code<const DTYPE: u8>;

/// What [`Code`] stands for.
pub trait Coded {
    /// The element.
    type Element: Element;
}

/// The element of the dtype with this number.
pub type Of<const DTYPE: u8> = <Code<DTYPE> as Coded>::Element;

macro_rules! element {
    ($(#[$doc:meta])* $name:ident, $headroom:literal, $infinity:literal, $pack:ident, $unpack:ident,
     $ss:ident, $rs:ident, $mma:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name;

        impl Coded for Code<{ Dtype::$name as u8 }> {
            type Element = $name;
        }

        // SAFETY: the instructions named are those of this type.
        unsafe impl Element for $name {
            const DTYPE: Dtype = Dtype::$name;
            const HEADROOM: f32 = $headroom;
            const INFINITY_BITS: u32 = $infinity;

            #[inline(always)]
            #[track_caller]
            fn pack(low: f32, high: f32) -> u32 {
                imp::$pack(low, high)
            }

            #[inline(always)]
            fn unpack(pair: u32) -> [f32; 2] {
                imp::$unpack(pair)
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

            #[inline(always)]
            #[track_caller]
            unsafe fn mma(sums: [f32; 4], a: [u32; 4], b: [u32; 2]) -> [f32; 4] {
                // SAFETY: the caller's contract is the instruction's.
                unsafe { imp::$mma(sums, a, b) }
            }
        }
    };
}

element!(
    /// bfloat16.
    Bf16, 16.0, 0x7f80, pack_bf16, unpack_bf16, wgmma_ss_bf16, wgmma_rs_bf16, mma_bf16
);
element!(
    /// IEEE half: no exponents to spare, and values of at most 2^16.
    F16, 0.0, 0x7c00, pack_f16, unpack_f16, wgmma_ss_f16, wgmma_rs_f16, mma_f16
);
