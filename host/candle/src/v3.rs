//! The functions of `candle-flash-attn-v3`: those of the crate's root with one argument more.
//!
//! `use_gqa_packing` is a hint there, how grouped heads share a tile; it changes no result. It is
//! accepted and has no effect. Head dims are those of the crate, not 64, 128 and 256 only.

use candle_core::{Result, Tensor};

use crate::op::{dense, mask, mask_of_window};
use crate::{refuse, varlen};

/// [`flash_attn`](crate::flash_attn).
///
/// # Errors
/// Those of the [crate](crate#errors).
pub fn flash_attn(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    softmax_scale: f32,
    causal: bool,
    _use_gqa_packing: bool,
) -> Result<Tensor> {
    dense(q, k, v, softmax_scale, mask(causal))
}

/// [`flash_attn_windowed`](crate::flash_attn_windowed).
///
/// # Errors
/// Those of the [crate](crate#errors).
pub fn flash_attn_windowed(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    softmax_scale: f32,
    window_size_left: Option<usize>,
    window_size_right: Option<usize>,
    _use_gqa_packing: bool,
) -> Result<Tensor> {
    dense(q, k, v, softmax_scale, mask_of_window(window_size_left, window_size_right))
}

/// [`flash_attn_alibi`](crate::flash_attn_alibi).
///
/// # Errors
/// Always: `alibi_slopes` are not supported yet.
pub fn flash_attn_alibi(
    _q: &Tensor,
    _k: &Tensor,
    _v: &Tensor,
    _alibi_slopes: &Tensor,
    _softmax_scale: f32,
    _causal: bool,
    _use_gqa_packing: bool,
) -> Result<Tensor> {
    refuse::alibi("v3::flash_attn_alibi")
}

/// [`flash_attn_alibi_windowed`](crate::flash_attn_alibi_windowed).
///
/// # Errors
/// Always: `alibi_slopes` are not supported yet.
pub fn flash_attn_alibi_windowed(
    _q: &Tensor,
    _k: &Tensor,
    _v: &Tensor,
    _alibi_slopes: &Tensor,
    _softmax_scale: f32,
    _window_size_left: Option<usize>,
    _window_size_right: Option<usize>,
    _use_gqa_packing: bool,
) -> Result<Tensor> {
    refuse::alibi("v3::flash_attn_alibi_windowed")
}

varlen! {
    /// [`flash_attn_varlen`](crate::flash_attn_varlen).
    flash_attn_varlen(
        _seqlens_q: &Tensor, _seqlens_k: &Tensor, _max_seqlen_q: usize, _max_seqlen_k: usize,
        _softmax_scale: f32, _causal: bool, _use_gqa_packing: bool
    );
    /// [`flash_attn_varlen_windowed`](crate::flash_attn_varlen_windowed).
    flash_attn_varlen_windowed(
        _seqlens_q: &Tensor, _seqlens_k: &Tensor, _max_seqlen_q: usize, _max_seqlen_k: usize,
        _softmax_scale: f32, _window_size_left: Option<usize>, _window_size_right: Option<usize>,
        _use_gqa_packing: bool
    );
    /// [`flash_attn_varlen_alibi`](crate::flash_attn_varlen_alibi).
    flash_attn_varlen_alibi(
        _alibi_slopes: &Tensor, _seqlens_q: &Tensor, _seqlens_k: &Tensor, _max_seqlen_q: usize,
        _max_seqlen_k: usize, _softmax_scale: f32, _causal: bool, _use_gqa_packing: bool
    );
    /// [`flash_attn_varlen_alibi_windowed`](crate::flash_attn_varlen_alibi_windowed).
    flash_attn_varlen_alibi_windowed(
        _alibi_slopes: &Tensor, _seqlens_q: &Tensor, _seqlens_k: &Tensor, _max_seqlen_q: usize,
        _max_seqlen_k: usize, _softmax_scale: f32, _window_size_left: Option<usize>,
        _window_size_right: Option<usize>, _use_gqa_packing: bool
    );
}
