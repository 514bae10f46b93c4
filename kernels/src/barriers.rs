//! Barriers in shared memory, as data.

use fulgurite_gpu::{mbarrier, smem::Smem};

/// A family of barriers in shared memory.
pub struct BarrierSpec {
    /// What the emulator's reports call it.
    pub name: &'static str,
    /// Offset of the first one.
    pub offset: u32,
    /// How many there are.
    pub count: u32,
    /// Arrivals that complete a phase.
    pub arrivals: u32,
}

/// Initialises families of barriers; the block meets before anyone uses them.
///
/// # Safety
/// Called by one thread of the block; the offsets, from `smem` on, are reserved for the barriers.
#[inline(always)]
pub unsafe fn start(families: &[BarrierSpec], smem: Smem) {
    let mut family = 0;
    while family < families.len() {
        let spec = &families[family];
        let mut index = 0;
        while index < spec.count {
            let bar = smem.plus(spec.offset + 8 * index);
            mbarrier::name(bar, spec.name, index);
            // SAFETY: the caller's contract.
            unsafe { mbarrier::init(bar, spec.arrivals) }
            index += 1;
        }
        family += 1;
    }
    // SAFETY: this thread initialised the barriers.
    unsafe { mbarrier::fence_init() }
}
