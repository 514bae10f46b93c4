//! What a forward kernel receives.

use core::mem::{offset_of, size_of};

use crate::{divisor::Divisor, order::JobOrder, params::TensorMap};

/// Parameters of the forward kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FwdParams {
    /// Q as a 4-D tensor (head dim, row, head, batch); box: one panel of one warpgroup's rows.
    pub q: TensorMap,
    /// K as a 4-D tensor (head dim, row, KV head, batch); box: one panel of `kv_rows` rows.
    pub k: TensorMap,
    /// V, like K.
    pub v: TensorMap,
    /// Everything that is not read by TMA.
    pub scalars: FwdScalars,
}

/// The part of [`FwdParams`] that threads read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FwdScalars {
    /// Device address of the output, 16-byte aligned.
    pub out: u64,
    /// Elements from one output row (query) to the next.
    pub out_row_stride: u64,
    /// Elements from one output head to the next.
    pub out_head_stride: u64,
    /// Elements from one batch entry's output to the next.
    pub out_batch_stride: u64,
    /// Device address of the log-sum-exp `f32[batch, head, q_len]`, contiguous; 0: not wanted.
    pub lse: u64,
    /// Query rows.
    pub q_len: u32,
    /// Key rows; 0: no query tile has keys, so that there are no jobs.
    pub kv_len: u32,
    /// Columns of the tensors; the rest of the tile's head dim is padding.
    pub head_dim: u32,
    /// Query heads.
    pub head_count: Divisor,
    /// Query heads that share one KV head.
    pub group_size: Divisor,
    /// Softmax scale × log₂ e: scores become exponents of two.
    pub scale_log2: f32,
    /// The order of the jobs.
    pub order: JobOrder,
    /// For K and V: ANDed with the batch entry's index to find its coordinate. All bits, or none if
    /// all batch entries share one.
    pub kv_batch_masks: [u32; 2],
}

const _: () = {
    crate::params::assert_maps(&[
        offset_of!(FwdParams, q),
        offset_of!(FwdParams, k),
        offset_of!(FwdParams, v),
    ]);
    assert!(offset_of!(FwdParams, scalars) == 384);
    assert!(offset_of!(FwdScalars, lse) == 32);
    assert!(offset_of!(FwdScalars, q_len) == 40);
    assert!(offset_of!(FwdScalars, order) == 80);
    assert!(offset_of!(FwdScalars, kv_batch_masks) == 128);
    assert!(size_of::<FwdScalars>() == 136);
    assert!(size_of::<FwdParams>() == 528);
};
