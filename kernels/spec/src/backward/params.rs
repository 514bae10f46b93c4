//! What the kernels of the backward receive.

use core::mem::{offset_of, size_of};

use crate::divisor::Divisor;
use crate::mask::Ends;
use crate::params::{Source, TensorMap};

/// Parameters of the first kernel. Addresses are device addresses.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaParams {
    /// The output, as the forward stored it.
    pub out: Source,
    /// Its gradient.
    pub d_out: Source,
    /// The log-sum-exp `f32[batch, head, q_len]`, contiguous.
    pub lse: u64,
    /// The gradient of the log-sum-exp, of the same shape; 0: none.
    pub d_lse: u64,
    /// Where the log-sum-exp in base 2 goes, `f32[batch, head, q_pad]`: +∞ for rows without keys
    /// and for padding, so that their probabilities are 0.
    pub lse2: u64,
    /// Where each row's sum of `d_out · out`, less the gradient of its log-sum-exp, goes; of the
    /// same shape.
    pub delta: u64,
    /// Query heads of a batch entry.
    pub heads: Divisor,
    /// Blocks of a head.
    pub blocks: Divisor,
    /// Query rows.
    pub q_len: u32,
    /// The same with padding.
    pub q_pad: u32,
    /// Columns of the tensors.
    pub head_dim: u32,
    /// 0: the struct has no padding.
    pub reserved: [u32; 3],
}

/// Parameters of the second and third kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BwdParams {
    /// Q as a 4-D tensor (head dim, row, head, batch); box: one panel of rows, 64 where they are
    /// held, else those of a step.
    pub q: TensorMap,
    /// K, likewise.
    pub k: TensorMap,
    /// V, likewise.
    pub v: TensorMap,
    /// dO, like Q.
    pub d_out: TensorMap,
    /// Everything that is not read by TMA.
    pub scalars: BwdScalars,
}

/// A gradient that a kernel writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient {
    /// Device address, 16-byte aligned.
    pub address: u64,
    /// Elements from one batch entry to the next.
    pub batch_stride: u64,
    /// Elements from one head to the next.
    pub head_stride: u64,
    /// Elements from one row to the next.
    pub row_stride: u64,
}

/// The part of [`BwdParams`] that threads read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BwdScalars {
    /// Gradient of q, or of k.
    pub first: Gradient,
    /// Gradient of v; not looked at for that of q.
    pub second: Gradient,
    /// See [`DeltaParams::lse2`].
    pub lse2: u64,
    /// See [`DeltaParams::delta`].
    pub delta: u64,
    /// Query rows.
    pub q_len: u32,
    /// Floats of a head in `lse2` and in `delta`.
    pub q_pad: u32,
    /// Key rows.
    pub kv_len: u32,
    /// Columns of the tensors; the rest of the tile's head dim is padding.
    pub head_dim: u32,
    /// Query heads of a batch entry.
    pub heads: Divisor,
    /// KV heads of a batch entry.
    pub kv_heads: Divisor,
    /// Query heads that share one KV head.
    pub group_size: Divisor,
    /// Blocks of a head.
    pub tiles: Divisor,
    /// Softmax scale × log₂ e: scores become exponents of two.
    pub scale_log2: f32,
    /// Softmax scale, which the gradients of q and k are multiplied with at last.
    pub scale: f32,
    /// For K and V: ANDed with the batch entry's index to find its coordinate. All bits, or none if
    /// all batch entries share one.
    pub kv_batch_masks: [u32; 2],
    /// The same for the KV head's index.
    pub kv_head_masks: [u32; 2],
    /// The mask's numbers.
    pub ends: Ends,
}

const _: () = {
    crate::params::assert_maps(&[
        offset_of!(BwdParams, q),
        offset_of!(BwdParams, k),
        offset_of!(BwdParams, v),
        offset_of!(BwdParams, d_out),
    ]);
    // Without padding.
    assert!(offset_of!(BwdParams, scalars) == 512);
    assert!(size_of::<BwdScalars>() == 2 * 32 + 2 * 8 + 4 * 4 + 4 * 12 + 2 * 4 + 4 * 4 + 8);
    assert!(size_of::<BwdParams>() == 512 + size_of::<BwdScalars>());
    assert!(size_of::<DeltaParams>() == 2 * 32 + 4 * 8 + 2 * 12 + 6 * 4);
};
