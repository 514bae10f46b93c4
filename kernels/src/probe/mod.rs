//! Probes: every primitive on its own, so that GPU and emulator can be compared bit for bit.
//!
//! A probe is one block of [`PROBE_THREADS`]. It reads its input and leaves what it sees in its
//! output or in a tensor; `tests/check/src/probes` says what that must be.

pub mod barriers;
pub mod bytes;
pub mod copies;
pub mod entry;
pub mod memory;
pub mod products;
pub mod values;
pub mod warps;

use fulgurite_gpu::{barrier, global, mbarrier, smem::Smem, thread, tma::MapAddress};
use fulgurite_spec::ProbeScalars;
use fulgurite_spec::probes::{PROBE_DATA_BYTES, PROBE_THREADS};

/// What a probe is given.
#[derive(Clone, Copy)]
pub struct Probe {
    /// The tensor to load from.
    pub source: MapAddress,
    /// The tensor to store to.
    pub target: MapAddress,
    /// Where input and output are, and which box is meant.
    pub scalars: ProbeScalars,
}

impl Probe {
    /// The thread's 16 bytes of the input's part `part`.
    #[inline(always)]
    #[track_caller]
    fn input(&self, part: u32) -> [u32; 4] {
        let unit = part * PROBE_THREADS + thread::index();
        // SAFETY: the launch gives an input with room for all parts, which nobody writes.
        unsafe { global::load_16(self.scalars.input + u64::from(unit) * 16) }
    }

    /// Writes the thread's 16 bytes of the output's part `part`.
    #[inline(always)]
    #[track_caller]
    fn output(&self, part: u32, words: [u32; 4]) {
        let unit = part * PROBE_THREADS + thread::index();
        // SAFETY: the launch gives an output with room for all parts; the place is the thread's.
        unsafe { global::store_16(self.scalars.out + u64::from(unit) * 16, words) }
    }
}

/// The mbarrier with this index.
#[inline(always)]
fn mbarrier_at(index: u32) -> Smem {
    Smem::base().plus(PROBE_DATA_BYTES + 8 * index)
}

/// Initialises the first mbarriers, for so many arrivals each, and lets everyone see them.
///
/// # Safety
/// All threads call it, once.
#[inline(always)]
#[track_caller]
unsafe fn start<const COUNT: usize>(arrivals: [u32; COUNT]) {
    // SAFETY: one thread initialises; all meet at the block's barrier.
    unsafe {
        if thread::index() == 0 {
            let mut index = 0;
            while index < COUNT {
                mbarrier::init(mbarrier_at(index as u32), arrivals[index]);
                index += 1;
            }
            mbarrier::fence_init();
        }
        barrier::sync_all();
    }
}
