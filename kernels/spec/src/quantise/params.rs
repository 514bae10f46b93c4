//! What the kernels of the quantiser receive.

use core::mem::size_of;

use crate::divisor::Divisor;
pub use crate::params::Source;

/// Parameters of all kernels of the quantiser; each reads what it needs. Addresses are device
/// addresses; of results that are not wanted they are 0. `D` is the kernel's head dim.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantiseParams {
    /// Queries.
    pub q: Source,
    /// Keys.
    pub k: Source,
    /// Values.
    pub v: Source,
    /// `i8[batch, query head, q_len, D]`, rotated.
    pub q8: u64,
    /// `f32[batch, query head, q_len]`.
    pub q_scale: u64,
    /// `f32[batch, query head, q_len]`: `scale · q·k_shift`.
    pub q_shift: u64,
    /// `i8[batch of k, KV head, kv_len, D]`, less `k_shift`, rotated.
    pub k8: u64,
    /// `f32[batch of k, KV head, KV tiles]`.
    pub k_scale: u64,
    /// `f32[batch of k, KV head, D]`, not rotated; 0: nothing is subtracted.
    pub k_shift: u64,
    /// e4m3 `[batch of v, KV head, D, kv_pad]`, less `v_shift`; keys permuted, zeros from `kv_len`
    /// on. 0: V stays as it is.
    pub v8: u64,
    /// `f32[batch of v, KV head]`.
    pub v_scale: u64,
    /// `f32[batch of v, KV head, D]`.
    pub v_shift: u64,
    /// `f32[batch, KV head, chunk, 3, D]`: sums of K, sums of V, largest sizes in V.
    pub partials: u64,
    /// Query heads of a batch entry.
    pub q_heads: Divisor,
    /// KV heads of a batch entry.
    pub kv_heads: Divisor,
    /// Query heads that share a KV head.
    pub group_size: Divisor,
    /// Blocks of [`Step::Quantise`](super::Step::Quantise) for one head of Q, of K and of V.
    pub q_blocks: Divisor,
    /// See `q_blocks`.
    pub k_blocks: Divisor,
    /// See `q_blocks`.
    pub v_blocks: Divisor,
    /// Chunks of [`Step::Statistics`](super::Step::Statistics) in a head.
    pub chunks: Divisor,
    /// Columns of the tensors, at most `D`.
    pub head_dim: u32,
    /// Query rows.
    pub q_len: u32,
    /// Key rows.
    pub kv_len: u32,
    /// Keys of a row of `v8`: `kv_len` rounded up to 128.
    pub kv_pad: u32,
    /// Keys that share a scale: the forward kernel's KV tile.
    pub kv_rows: u32,
    /// Batch entries of q; those of k and v are as many or 1.
    pub batch: u32,
    /// Batch entries of k.
    pub k_batch: u32,
    /// Batch entries of v.
    pub v_batch: u32,
    /// The softmax scale.
    pub scale: f32,
    /// 0: the struct has no padding, and the alignment of every kernel's parameter.
    pub reserved: [u32; 2],
}

impl QuantiseParams {
    /// Parameters of which no kernel reads any, or writes by them.
    pub const NOTHING: QuantiseParams = {
        let source = Source { address: 0, batch_stride: 0, head_stride: 0, row_stride: 0 };
        let one = Divisor::new(1);
        QuantiseParams {
            q: source,
            k: source,
            v: source,
            q8: 0,
            q_scale: 0,
            q_shift: 0,
            k8: 0,
            k_scale: 0,
            k_shift: 0,
            v8: 0,
            v_scale: 0,
            v_shift: 0,
            partials: 0,
            q_heads: one,
            kv_heads: one,
            group_size: one,
            q_blocks: one,
            k_blocks: one,
            v_blocks: one,
            chunks: one,
            head_dim: 0,
            q_len: 0,
            kv_len: 0,
            kv_pad: 0,
            kv_rows: 0,
            batch: 0,
            k_batch: 0,
            v_batch: 0,
            scale: 0.0,
            reserved: [0; 2],
        }
    };
}

// Without padding.
const _: () = assert!(size_of::<QuantiseParams>() == 3 * 32 + 10 * 8 + 7 * 12 + 11 * 4);
