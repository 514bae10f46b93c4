//! The quantiser: 16-bit Q, K and V to what the forward kernels of 8-bit elements read.
//!
//! What comes out and why: [`fulgurite_spec::quantise`]. `D` is the forward kernel's head dim,
//! `UNITS` a 32nd of it. K and V of one batch entry for all have a stride of 0; statistics are then
//! taken once for every entry that the other one has. All sums are taken in an order of their own,
//! which no launch changes.

pub mod entry;
pub mod means;
pub mod rows;
pub mod statistics;
pub mod transpose;
pub mod values;

use fulgurite_gpu::{element::Element, thread};
use fulgurite_spec::Divisor;
use fulgurite_spec::quantise::{QuantiseParams, Source};

/// Which part of which head a block is for.
#[derive(Clone, Copy)]
struct Part {
    /// Index of batch entry and head.
    entry: u32,
    /// The batch entry.
    batch: u32,
    /// The head.
    head: u32,
    /// Which of the head's parts.
    part: u32,
}

impl Part {
    /// The `index`th part of all heads, `parts` of each of `heads` of a batch entry.
    #[inline(always)]
    fn of(index: u32, parts: &Divisor, heads: &Divisor) -> Part {
        let entry = parts.divide(index);
        let batch = heads.divide(entry);
        let (head, part) = (entry - batch * heads.value, index - entry * parts.value);
        Part { entry, batch, head, part }
    }
}

/// Device address of a row of 16-bit elements.
#[inline(always)]
fn row_address(source: &Source, batch: u32, head: u32, row: u32) -> u64 {
    source.address
        + 2 * (u64::from(batch) * source.batch_stride
            + u64::from(head) * source.head_stride
            + u64::from(row) * source.row_stride)
}

/// `value`, or NaN in place of infinity.
#[inline(always)]
fn finite(value: f32) -> f32 {
    if value <= f32::MAX { value } else { f32::NAN }
}

/// The grid of a quantisation: blocks of Q, then of K, then of V, each as far as its result is
/// wanted.
///
/// # Safety
/// Launched with [`fulgurite_spec::quantise::THREADS`], tensors and results as the parameters
/// say; rows have 1 to `D` columns.
#[inline(always)]
pub unsafe fn quantise<T: Element, const D: u32, const UNITS: usize>(params: &QuantiseParams) {
    let blocks_of = |wanted: u64, batch: u32, heads: &Divisor, blocks: &Divisor| match wanted {
        0 => 0,
        _ => batch * heads.value * blocks.value,
    };
    let q = blocks_of(params.q8, params.batch, &params.q_heads, &params.q_blocks);
    let k = blocks_of(params.k8, params.k_batch, &params.kv_heads, &params.k_blocks);
    let block = thread::block();
    // SAFETY: the caller's contract; whole blocks go one way.
    unsafe {
        if block < q {
            let part = Part::of(block, &params.q_blocks, &params.q_heads);
            rows::quantise_q::<T, UNITS>(params, part);
        } else if block - q < k {
            let part = Part::of(block - q, &params.k_blocks, &params.kv_heads);
            rows::quantise_k::<T, UNITS>(params, part);
        } else {
            let part = Part::of(block - q - k, &params.v_blocks, &params.kv_heads);
            values::quantise_v::<T, D>(params, part);
        }
    }
}
