//! The tensor memory accelerator: bulk copies described by a tensor map.

use crate::{imp, smem::Smem};
use fulgurite_spec::TensorMap;

/// Address of a tensor map in the kernel's parameter, as the copy engine takes it.
#[derive(Clone, Copy)]
pub struct MapAddress(u64);

impl MapAddress {
    /// The map at `address`.
    ///
    /// # Safety
    /// `address` is that of a [`TensorMap`] that `cuTensorMapEncodeTiled` wrote, aligned to 64
    /// bytes, in parameter space and valid as long as the kernel runs.
    #[inline(always)]
    pub unsafe fn new(address: u64) -> MapAddress {
        MapAddress(address)
    }

    /// The map that lies `maps` maps further on.
    ///
    /// # Safety
    /// As [`MapAddress::new`] for the resulting address.
    #[inline(always)]
    pub unsafe fn plus(self, maps: u32) -> MapAddress {
        MapAddress(self.0 + u64::from(maps) * size_of::<TensorMap>() as u64)
    }
}

/// Brings a tensor map into the descriptor cache, so that the first copy does not wait for it.
#[inline(always)]
#[track_caller]
pub fn prefetch(map: MapAddress) {
    // SAFETY: `MapAddress` can only hold the address of a valid map.
    unsafe { imp::tma_prefetch(map.0) }
}

/// How long the L2 cache shall keep what a copy reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Until anything else needs the room: read once.
    Short,
    /// Longer than anything else: read again by other blocks.
    Long,
}

/// Starts the copy of one box into shared memory at `to`; its bytes count towards the phase of
/// `bar`. Elements outside the tensor arrive as zeros.
///
/// `at`: coordinates of the box's first element (column, row, head, batch). They are signed; the
/// column must be a multiple of 16 bytes, or the kernel ends with an illegal instruction.
///
/// # Safety
/// `to` is 1024-byte aligned with room for the map's box, nobody reads or writes that room before
/// `bar` completes the phase, and the phase expects the bytes of this box.
#[inline(always)]
#[track_caller]
pub unsafe fn load(to: Smem, map: MapAddress, bar: Smem, at: [u32; 4], keep: Keep) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::tma_load_4d(to.0, map.0, bar.0, at, keep) }
}

/// Starts the copy of one box from shared memory at `from` to the tensor; it belongs to the next
/// group that this thread closes. Elements outside the tensor are left out, but for those in the 16
/// bytes in which a row of the tensor ends: there the padding is written too.
///
/// `at`: coordinates of the box's first element (column, row, head, batch). The column must be a
/// multiple of 16 bytes and none of them negative, or the kernel ends with an illegal instruction.
///
/// # Safety
/// `from` is 1024-byte aligned and holds the box in the map's swizzle; what threads stored there
/// was made visible by [`crate::fence::proxy_async`] and a barrier. Nobody writes it before
/// [`wait_stores_read`], nobody else writes these elements of the tensor, and nobody reads them
/// before [`wait_stores`].
#[inline(always)]
#[track_caller]
pub unsafe fn store(map: MapAddress, from: Smem, at: [u32; 4]) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::tma_store_4d(map.0, from.0, at) }
}

/// Closes the group of stores that this thread issued since it last closed one.
///
/// # Safety
/// Called by the thread that issued the stores: groups are each thread's own.
#[inline(always)]
#[track_caller]
pub unsafe fn commit_stores() {
    // SAFETY: the instruction has no operands; its place is the caller's contract.
    unsafe { imp::tma_store_commit() }
}

/// Waits until at most `PENDING` of this thread's groups are not complete: what older ones stored
/// is in global memory.
///
/// # Safety
/// As [`commit_stores`].
#[inline(always)]
#[track_caller]
pub unsafe fn wait_stores<const PENDING: u32>() {
    // SAFETY: the instruction has no operands; its place is the caller's contract.
    unsafe { imp::tma_store_wait::<PENDING>() }
}

/// Waits until at most `PENDING` of this thread's groups still read shared memory.
///
/// # Safety
/// As [`commit_stores`].
#[inline(always)]
#[track_caller]
pub unsafe fn wait_stores_read<const PENDING: u32>() {
    // SAFETY: the instruction has no operands; its place is the caller's contract.
    unsafe { imp::tma_store_wait_read::<PENDING>() }
}
