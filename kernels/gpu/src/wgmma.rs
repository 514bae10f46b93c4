//! Warpgroup matrix products (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions").
//!
//! Order of use: [`begin`], any number of issues, [`commit`], then [`wait`] before an accumulator
//! is read. `begin` and `wait` name the registers in flight as operands, so that the compiler
//! cannot move their computation below the fence or their use above the wait.

use crate::{
    element::Element,
    element8::Element8,
    frag::{Accum, IntegerAccum, Packed, PackedBytes},
    imp,
    smem::Smem,
};

/// A shared-memory operand: address and strides in the tensor core's encoding, with a swizzle.
#[derive(Clone, Copy)]
pub struct Operand(u64);

/// Bytes of a row of a panel, and of the swizzle that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelWidth {
    /// 128 bytes.
    Bytes128,
    /// 64 bytes.
    Bytes64,
    /// 32 bytes: one step along K.
    Bytes32,
}

impl PanelWidth {
    /// The width of so many bytes.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub const fn of(bytes: u32) -> PanelWidth {
        match bytes {
            128 => PanelWidth::Bytes128,
            64 => PanelWidth::Bytes64,
            32 => PanelWidth::Bytes32,
            _ => panic!("a swizzle spans 128, 64 or 32 bytes"),
        }
    }

    /// Bytes of a row.
    #[inline(always)]
    pub const fn bytes(self) -> u32 {
        match self {
            PanelWidth::Bytes128 => 128,
            PanelWidth::Bytes64 => 64,
            PanelWidth::Bytes32 => 32,
        }
    }

    /// The layout type of a descriptor.
    #[inline(always)]
    const fn layout(self) -> u64 {
        match self {
            PanelWidth::Bytes128 => 1,
            PanelWidth::Bytes64 => 2,
            PanelWidth::Bytes32 => 3,
        }
    }
}

impl Operand {
    /// K-major panels of 128 bytes (rows of the operand are rows in memory): Q and K.
    #[inline(always)]
    pub const fn k_major(at: Smem) -> Operand {
        Operand::k_major_in(at, PanelWidth::Bytes128)
    }

    /// K-major panels of this width, each from a multiple of eight rows' bytes on.
    #[inline(always)]
    pub const fn k_major_in(at: Smem, width: PanelWidth) -> Operand {
        Operand::encode(at, 16, width)
    }

    /// N-major panels of 128 bytes (rows of the operand are columns in memory): V. `panel_bytes`:
    /// distance of two panels of 64 columns.
    #[inline(always)]
    pub const fn n_major(at: Smem, panel_bytes: u32) -> Operand {
        Operand::encode(at, panel_bytes, PanelWidth::Bytes128)
    }

    #[inline(always)]
    const fn encode(at: Smem, leading_bytes: u32, width: PanelWidth) -> Operand {
        // Eight rows: one swizzle atom.
        let stride = ((8 * width.bytes()) >> 4) as u64;
        let address = ((at.0 & 0x3ffff) >> 4) as u64;
        let leading = ((leading_bytes >> 4) as u64) << 16;
        Operand(address | leading | (stride << 32) | (width.layout() << 62))
    }

    /// The operand `bytes` further on.
    #[inline(always)]
    pub const fn plus(self, bytes: u32) -> Operand {
        Operand(self.0 + (bytes >> 4) as u64)
    }
}

/// Opens products into `acc`: orders earlier register writes before the tensor core's reads.
///
/// Needed before the first product and after every branch: left out behind a barrier's wait loop,
/// ptxas inserts it by itself (note C7519), and if it cannot prove the path uniform it then
/// serialises all products (note C7520).
///
/// # Safety
/// All threads of the warpgroup call it; no product into `acc` is in flight.
#[inline(always)]
#[track_caller]
pub unsafe fn begin<const N: u32>(acc: &mut Accum<N>) {
    imp::pin_f32::<N>(&mut acc.registers);
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::wgmma_fence() }
}

/// As [`begin`], for products that also read `a` from registers.
///
/// # Safety
/// As [`begin`].
#[inline(always)]
#[track_caller]
pub unsafe fn begin_rs<const K: u32, const N: u32>(a: &mut Packed<K>, acc: &mut Accum<N>) {
    imp::pin_u32::<K>(&mut a.registers);
    // SAFETY: the caller's contract.
    unsafe { begin(acc) }
}

/// As [`begin`], for sums of integers.
///
/// # Safety
/// As [`begin`].
#[inline(always)]
#[track_caller]
pub unsafe fn begin_integers<const N: u32>(sums: &mut IntegerAccum<N>) {
    imp::pin_s32::<N>(&mut sums.registers);
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::wgmma_fence() }
}

/// As [`begin_rs`], for a fragment of 8-bit elements.
///
/// # Safety
/// As [`begin`].
#[inline(always)]
#[track_caller]
pub unsafe fn begin_rs_bytes<const K: u32, const N: u32>(
    a: &mut PackedBytes<K>,
    acc: &mut Accum<N>,
) {
    imp::pin_bytes::<K>(&mut a.registers);
    // SAFETY: the caller's contract.
    unsafe { begin(acc) }
}

/// Issues `acc = A × Bᵀ` or, with `ADD`, `acc += A × Bᵀ`: 64×N×16, operands in shared memory.
///
/// # Safety
/// All threads of the warpgroup call it after [`begin`]; the operands lie in initialised shared
/// memory that nobody writes before the product is waited for.
#[inline(always)]
#[track_caller]
pub unsafe fn issue_ss<T: Element, const N: u32, const ADD: bool>(
    acc: &mut Accum<N>,
    a: Operand,
    b: Operand,
) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { T::wgmma_ss::<N, ADD>(acc, a.0, b.0) }
}

/// Issues `acc += A × B`: 64×N×16, A from registers, B N-major in shared memory.
///
/// # Safety
/// As [`issue_ss`]; the registers of `a` are not written before the product is waited for.
#[inline(always)]
#[track_caller]
pub unsafe fn issue_rs<T: Element, const N: u32>(acc: &mut Accum<N>, a: [u32; 4], b: Operand) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { T::wgmma_rs::<N>(acc, a, b.0) }
}

/// Issues `sums = A × Bᵀ` or, with `ADD`, `sums += A × Bᵀ`: 64×N×32 of 8-bit elements, operands
/// K-major in shared memory.
///
/// # Safety
/// As [`issue_ss`].
#[inline(always)]
#[track_caller]
pub unsafe fn issue_ss_bytes<T: Element8, const N: u32, const ADD: bool>(
    sums: &mut T::Sums<N>,
    a: Operand,
    b: Operand,
) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { T::wgmma_ss::<N, ADD>(sums, a.0, b.0) }
}

/// Issues `acc = A × Bᵀ` or, if `add`, `acc += A × Bᵀ`: 64×N×32 of e4m3, A from registers, B
/// K-major in shared memory.
///
/// # Safety
/// As [`issue_rs`]; `add` is the same in all threads.
#[inline(always)]
#[track_caller]
pub unsafe fn issue_rs_e4m3<const N: u32>(acc: &mut Accum<N>, a: [u32; 4], b: Operand, add: bool) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::wgmma_rs_e4m3::<N>(&mut acc.registers, a, b.0, add) }
}

/// Closes the group of products issued since the last commit.
///
/// # Safety
/// All threads of the warpgroup call it.
#[inline(always)]
#[track_caller]
pub unsafe fn commit() {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::wgmma_commit() }
}

/// Waits until at most `PENDING` groups are in flight; `acc` may be read if its group is older.
///
/// # Safety
/// All threads of the warpgroup call it.
#[inline(always)]
#[track_caller]
pub unsafe fn wait<const PENDING: u32, const N: u32>(acc: &mut Accum<N>) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::wgmma_wait::<PENDING, N>(&mut acc.registers) }
}

/// As [`wait`], for sums of integers.
///
/// # Safety
/// All threads of the warpgroup call it.
#[inline(always)]
#[track_caller]
pub unsafe fn wait_integers<const PENDING: u32, const N: u32>(sums: &mut IntegerAccum<N>) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::wgmma_wait_s32::<PENDING, N>(&mut sums.registers) }
}
