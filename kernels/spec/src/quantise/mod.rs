//! The quantiser: its kernels, what they receive, and where they leave what the forward kernels of
//! 8-bit elements read.
//!
//! K less its mean and Q are rotated ([`rotation`]) and stored as signed integers of 8 bits, each
//! row of Q and each KV tile of K with a scale of its own. V less its mean is stored as e4m3,
//! transposed, the keys of each 16 in the order of [`KEY_ORDER`], with one scale a head. Softmax
//! does not change when all keys are shifted, and the rows of its weights sum to 1: so the mean of
//! V is added to the output, and only the log-sum-exp must get back what K's mean took.

mod params;
mod region;
pub mod rotation;
mod table;

use core::mem::size_of;

use crate::arch::Arch;
use crate::dtype::Dtype;
use crate::kernel::Kernel;
use crate::launch::LaunchSpec;

pub use params::{QuantiseParams, Source};
pub use region::{KvRegion, PartialsRegion, QRegion, padded_keys, transposed_bytes};

/// Threads of a block of each of these kernels.
pub const THREADS: u32 = 256;

/// Rows whose sums one block of the statistics takes.
pub const CHUNK_ROWS: u32 = 512;

/// Rows of Q, or keys of V, that one block quantises; of K it is a KV tile.
pub const BLOCK_ROWS: u32 = 128;

/// Largest number that e4m3 has.
pub const E4M3_MAX: f32 = 448.0;

/// Largest size of a quantised integer.
pub const S8_MAX: f32 = 127.0;

/// Which key of 16 lies at each position: the order in which a lane holds the columns of scores,
/// so that probabilities need no shuffle.
pub const KEY_ORDER: [u8; 16] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];

/// What a kernel of the quantiser does. Launched in this order, as far as they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Sums of the columns of K and V, and the largest sizes in V's, of each [`CHUNK_ROWS`] rows.
    Statistics,
    /// Means of K and V and the scale of V from these.
    Means,
    /// Q, K and V to 8 bits.
    Quantise,
    /// V of e4m3 as the caller has it, transposed.
    Transpose,
}

/// One kernel of the quantiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantiseRow {
    /// The PTX symbol, also the name of the PTX file.
    pub entry: &'static str,
    /// What it does.
    pub step: Step,
    /// Element type of the tensors that it reads.
    pub dtype: Dtype,
    /// Head dim of the forward kernel that reads what it writes; columns beyond the tensor's own
    /// are zeros.
    pub head_dim: u32,
    /// Dynamic shared memory of a block in bytes.
    pub smem_bytes: u32,
}

impl QuantiseRow {
    /// Its launch.
    pub const fn launch(&self) -> LaunchSpec {
        LaunchSpec {
            threads: THREADS,
            // Two: loads of one wait while the other computes. The longest rows take all registers.
            blocks_per_sm: if self.head_dim > 192 { 1 } else { 2 },
            smem_bytes: self.smem_bytes,
            producer_registers: 0,
            consumer_registers: 0,
        }
    }

    /// What builder, loader and reports know of it.
    pub const fn kernel(&self) -> Kernel {
        Kernel {
            entry: self.entry,
            arch: Arch::Sm90,
            family: "quantise",
            param_bytes: size_of::<QuantiseParams>() as u32,
            launch: self.launch(),
        }
    }
}

pub use table::QUANTISE;
