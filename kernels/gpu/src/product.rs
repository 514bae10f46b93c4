//! The two products of attention by the types of their operands: scores `Q Kᵀ` and values `P V`.

use crate::element::{Bf16, Element, F16};
use crate::element8::{E4m3, S8};
use crate::frag::{Accum, IntegerAccum, Packed, PackedBytes, Shifts};
use crate::smem::Smem;
use crate::wgmma::{self, Operand, PanelWidth};
use fulgurite_spec::{Dtype, forward::STEP_BYTES};

/// Element type of Q and K, both K-major in shared memory; a step along K is 32 bytes.
///
/// # Safety
/// The functions compute in the type that implements it.
pub unsafe trait Scores: Copy {
    /// Whether rows of scores have factors of their own.
    const OWN_FACTORS: bool;

    /// Whether that differs from tile to tile.
    const TILE_FACTORS: bool;

    /// What holds the sums of products while they are in flight.
    type Sums<const N: u32>;

    /// All zeros.
    fn zero<const N: u32>() -> Self::Sums<N>;

    /// Opens products.
    ///
    /// # Safety
    /// As [`wgmma::begin`].
    unsafe fn begin<const N: u32>(sums: &mut Self::Sums<N>);

    /// Issues `sums (+)= A × Bᵀ` over one step.
    ///
    /// # Safety
    /// As [`wgmma::issue_ss`].
    unsafe fn issue<const N: u32, const ADD: bool>(
        sums: &mut Self::Sums<N>,
        a: Operand,
        b: Operand,
    );

    /// Waits until at most `PENDING` groups are in flight.
    ///
    /// # Safety
    /// As [`wgmma::wait`].
    unsafe fn wait<const PENDING: u32, const N: u32>(sums: &mut Self::Sums<N>);

    /// The sums as floats.
    fn floats<const N: u32>(sums: &Self::Sums<N>) -> Accum<N>;

    /// Puts floats that nobody needs any more into the registers of the next product. An
    /// instruction names what it overwrites as if it read it; so left as they are, the sums would
    /// stay alive beside the floats that came of them.
    fn leave<const N: u32>(sums: &mut Self::Sums<N>, floats: &Accum<N>);
}

/// Element type of P, from registers, and V, in shared memory; a step along the keys is 32 bytes.
///
/// # Safety
/// The functions compute in the type that implements it.
pub unsafe trait Values: Copy {
    /// Powers of two below 1 at which probabilities best begin, if they may grow by 2^`GROWTH`:
    /// as many as the type has exponents to spare.
    const HEADROOM: f32;

    /// Powers of two by which a thread's part of a tile's sum may exceed one key at the anchor.
    const GROWTH: f32;

    /// What that limit is multiplied with: the mantissa of the type's largest number, if that is
    /// where the limit comes from.
    const LIMIT_MANTISSA: f32;

    /// Keys whose products the accumulator may hold before it is emptied, in kernels that park
    /// their output: sums of more fall behind by too much, since the tensor core truncates them.
    const PARKED_KEYS: u32;

    /// Probabilities as the product takes them.
    type Probs<const N: u32>;

    /// All zeros.
    fn zero<const N: u32>() -> Self::Probs<N>;

    /// Rounds to nearest even.
    fn pack<const N: u32>(probs: &Accum<N>) -> Self::Probs<N>;

    /// Opens products.
    ///
    /// # Safety
    /// As [`wgmma::begin_rs`].
    unsafe fn begin<const K: u32, const N: u32>(probs: &mut Self::Probs<K>, out: &mut Accum<N>);

    /// V in shared memory, its panels so many bytes apart and their rows so wide.
    fn operand(at: Smem, panel_bytes: u32, row_bytes: u32) -> Operand;

    /// V `step` steps of keys further on.
    fn advance(v: Operand, step: u32, panel_bytes: u32, row_bytes: u32) -> Operand;

    /// Issues `out += probs V` over the keys of one step.
    ///
    /// # Safety
    /// As [`wgmma::issue_rs`].
    unsafe fn issue<const K: u32, const N: u32>(
        out: &mut Accum<N>,
        probs: &Self::Probs<K>,
        step: u32,
        v: Operand,
    );

    /// Scales the output's rows by a factor, rounds it to 16 bits and stores it; `is_f16` says
    /// which type the output has, where the type of V does not.
    ///
    /// # Safety
    /// As [`Packed::store_rows`].
    unsafe fn store_rows<const N: u32>(
        out: &mut Accum<N>,
        is_f16: bool,
        factor: [f32; 2],
        column_count: u32,
        stored: [bool; 2],
        row_address: [u64; 2],
    );

    /// The same with a shift for each column.
    ///
    /// # Safety
    /// As [`Accum::store_shifted`].
    unsafe fn store_shifted<const N: u32>(
        out: &Accum<N>,
        is_f16: bool,
        shifts: &Shifts,
        column_count: u32,
        stored: [bool; 2],
        row_address: [u64; 2],
    );

    /// The bits of infinity in the output.
    fn infinity_bits(is_f16: bool) -> u32;
}

/// What types of scores share whose sums of products are floats: all but the product.
macro_rules! float_sums {
    () => {
        type Sums<const N: u32> = Accum<N>;

        #[inline(always)]
        fn zero<const N: u32>() -> Accum<N> {
            Accum::zero()
        }

        #[inline(always)]
        #[track_caller]
        unsafe fn begin<const N: u32>(sums: &mut Accum<N>) {
            // SAFETY: the caller's contract.
            unsafe { wgmma::begin(sums) }
        }

        #[inline(always)]
        #[track_caller]
        unsafe fn wait<const PENDING: u32, const N: u32>(sums: &mut Accum<N>) {
            // SAFETY: the caller's contract.
            unsafe { wgmma::wait::<PENDING, N>(sums) }
        }

        #[inline(always)]
        fn floats<const N: u32>(sums: &Accum<N>) -> Accum<N> {
            Accum { registers: sums.registers }
        }

        #[inline(always)]
        fn leave<const N: u32>(sums: &mut Accum<N>, floats: &Accum<N>) {
            sums.registers = floats.registers;
        }
    };
}

// SAFETY: the functions are those of the element.
unsafe impl<T: Element> Scores for T {
    const OWN_FACTORS: bool = false;
    const TILE_FACTORS: bool = false;

    float_sums!();

    #[inline(always)]
    #[track_caller]
    unsafe fn issue<const N: u32, const ADD: bool>(sums: &mut Accum<N>, a: Operand, b: Operand) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::issue_ss::<T, N, ADD>(sums, a, b) }
    }
}

// SAFETY: the functions are those of the element.
unsafe impl Scores for E4m3 {
    const OWN_FACTORS: bool = true;
    const TILE_FACTORS: bool = false;

    float_sums!();

    #[inline(always)]
    #[track_caller]
    unsafe fn issue<const N: u32, const ADD: bool>(sums: &mut Accum<N>, a: Operand, b: Operand) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::issue_ss_bytes::<E4m3, N, ADD>(sums, a, b) }
    }
}

// SAFETY: the functions are those of the element.
unsafe impl Scores for S8 {
    const OWN_FACTORS: bool = true;
    const TILE_FACTORS: bool = true;

    type Sums<const N: u32> = IntegerAccum<N>;

    #[inline(always)]
    fn zero<const N: u32>() -> IntegerAccum<N> {
        IntegerAccum::zero()
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn begin<const N: u32>(sums: &mut IntegerAccum<N>) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::begin_integers(sums) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn issue<const N: u32, const ADD: bool>(
        sums: &mut IntegerAccum<N>,
        a: Operand,
        b: Operand,
    ) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::issue_ss_bytes::<S8, N, ADD>(sums, a, b) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn wait<const PENDING: u32, const N: u32>(sums: &mut IntegerAccum<N>) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::wait_integers::<PENDING, N>(sums) }
    }

    #[inline(always)]
    fn floats<const N: u32>(sums: &IntegerAccum<N>) -> Accum<N> {
        sums.to_floats()
    }

    #[inline(always)]
    fn leave<const N: u32>(sums: &mut IntegerAccum<N>, floats: &Accum<N>) {
        sums.registers = floats.registers.map(|float| float.to_bits() as i32);
    }
}

// SAFETY: the functions are those of the element.
unsafe impl<T: Element> Values for T {
    const HEADROOM: f32 = <T as Element>::HEADROOM;
    const GROWTH: f32 = 15.0;
    const LIMIT_MANTISSA: f32 = 1.0;
    /// With values of mean 1 and 2^20 keys the error in f16 is 2.7e-4 then (one H100, head dim 64
    /// to 128; 4.9e-3 without parking), with exact sums 2.0e-4; with 2^16 keys it would be 3.8e-4
    /// (simulated). The emulator adds exactly; there more frequent parking lets small cases go
    /// through the code.
    const PARKED_KEYS: u32 = if cfg!(target_arch = "nvptx64") { 1 << 15 } else { 1 << 8 };

    type Probs<const N: u32> = Packed<N>;

    #[inline(always)]
    fn zero<const N: u32>() -> Packed<N> {
        Packed::zero()
    }

    #[inline(always)]
    #[track_caller]
    fn pack<const N: u32>(probs: &Accum<N>) -> Packed<N> {
        probs.pack::<T>()
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn begin<const K: u32, const N: u32>(probs: &mut Packed<K>, out: &mut Accum<N>) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::begin_rs(probs, out) }
    }

    #[inline(always)]
    fn operand(at: Smem, panel_bytes: u32, _: u32) -> Operand {
        Operand::n_major(at, panel_bytes)
    }

    #[inline(always)]
    fn advance(v: Operand, step: u32, _: u32, row_bytes: u32) -> Operand {
        v.plus(step * (STEP_BYTES / 2) * row_bytes)
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn issue<const K: u32, const N: u32>(
        out: &mut Accum<N>,
        probs: &Packed<K>,
        step: u32,
        v: Operand,
    ) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::issue_rs::<T, N>(out, probs.operand(step), v) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn store_rows<const N: u32>(
        out: &mut Accum<N>,
        _: bool,
        factor: [f32; 2],
        column_count: u32,
        stored: [bool; 2],
        row_address: [u64; 2],
    ) {
        out.scale_rows(factor);
        // SAFETY: the caller's contract.
        unsafe { out.pack::<T>().store_rows(column_count, stored, row_address) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn store_shifted<const N: u32>(
        out: &Accum<N>,
        _: bool,
        shifts: &Shifts,
        column_count: u32,
        stored: [bool; 2],
        row_address: [u64; 2],
    ) {
        // SAFETY: the caller's contract.
        unsafe { out.store_shifted::<T>(shifts, column_count, stored, row_address) }
    }

    #[inline(always)]
    fn infinity_bits(_: bool) -> u32 {
        T::INFINITY_BITS
    }
}

// SAFETY: the functions are those of the element.
unsafe impl Values for E4m3 {
    /// A key at the anchor weighs 2^3: of the type's exponents, 9 with full precision lie below and
    /// nearly 6 above, into which a row's later keys may grow.
    const HEADROOM: f32 = -3.0;
    /// With the mantissa: 448, the largest number, beyond which a probability would be cut off.
    const GROWTH: f32 = 5.0;
    const LIMIT_MANTISSA: f32 = 1.75;
    /// Sums keep 13 bits: with values of mean 1 the output is too small by 0.6 % then, by 3 % with
    /// 2048 keys and by 22 % with 2^14 (simulated).
    const PARKED_KEYS: u32 = 1 << 9;

    type Probs<const N: u32> = PackedBytes<N>;

    #[inline(always)]
    fn zero<const N: u32>() -> PackedBytes<N> {
        PackedBytes::zero()
    }

    #[inline(always)]
    #[track_caller]
    fn pack<const N: u32>(probs: &Accum<N>) -> PackedBytes<N> {
        probs.pack_e4m3()
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn begin<const K: u32, const N: u32>(probs: &mut PackedBytes<K>, out: &mut Accum<N>) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::begin_rs_bytes(probs, out) }
    }

    #[inline(always)]
    fn operand(at: Smem, _: u32, row_bytes: u32) -> Operand {
        Operand::k_major_in(at, PanelWidth::of(row_bytes))
    }

    #[inline(always)]
    fn advance(v: Operand, step: u32, panel_bytes: u32, row_bytes: u32) -> Operand {
        let at = step * STEP_BYTES;
        v.plus(at / row_bytes * panel_bytes + at % row_bytes)
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn issue<const K: u32, const N: u32>(
        out: &mut Accum<N>,
        probs: &PackedBytes<K>,
        step: u32,
        v: Operand,
    ) {
        // SAFETY: the caller's contract.
        unsafe { wgmma::issue_rs_e4m3::<N>(out, probs.operand(step), v, true) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn store_rows<const N: u32>(
        out: &mut Accum<N>,
        is_f16: bool,
        factor: [f32; 2],
        column_count: u32,
        stored: [bool; 2],
        row_address: [u64; 2],
    ) {
        out.scale_rows(factor);
        // SAFETY: the caller's contract.
        unsafe {
            if is_f16 {
                out.pack::<F16>().store_rows(column_count, stored, row_address);
            } else {
                out.pack::<Bf16>().store_rows(column_count, stored, row_address);
            }
        }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn store_shifted<const N: u32>(
        out: &Accum<N>,
        is_f16: bool,
        shifts: &Shifts,
        column_count: u32,
        stored: [bool; 2],
        row_address: [u64; 2],
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            if is_f16 {
                out.store_shifted::<F16>(shifts, column_count, stored, row_address);
            } else {
                out.store_shifted::<Bf16>(shifts, column_count, stored, row_address);
            }
        }
    }

    #[inline(always)]
    fn infinity_bits(is_f16: bool) -> u32 {
        if is_f16 { F16::INFINITY_BITS } else { Bf16::INFINITY_BITS }
    }
}

/// The types of a dtype, for code that has a dtype as a constant.
pub struct Code<const DTYPE: u8>;

/// What [`Code`] stands for as the type of Q and K.
pub trait CodedScores {
    /// The type.
    type Scores: Scores;
}

/// What [`Code`] stands for as the type of V.
pub trait CodedValues {
    /// The type.
    type Values: Values;
}

/// The type of Q and K of the dtype with this number.
pub type ScoresOf<const DTYPE: u8> = <Code<DTYPE> as CodedScores>::Scores;

/// The type of V of the dtype with this number.
pub type ValuesOf<const DTYPE: u8> = <Code<DTYPE> as CodedValues>::Values;

macro_rules! coded {
    ($trait:ident, $name:ident: $($dtype:ident $type:ident),*) => {
        $(impl $trait for Code<{ Dtype::$dtype as u8 }> {
            type $name = $type;
        })*
    };
}
coded!(CodedScores, Scores: Bf16 Bf16, F16 F16, E4m3 E4m3, I8 S8);
coded!(CodedValues, Values: Bf16 Bf16, F16 F16, E4m3 E4m3);
