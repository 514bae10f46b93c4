//! [Fulgurite](fulgurite)'s attention for [candle](candle_core), with the functions and signatures
//! of `candle-flash-attn` and, in [`v3`], of `candle-flash-attn-v3`.
//!
//! A program changes one line of `Cargo.toml` and one `use`:
//!
//! ```toml
//! fulgurite-candle = "0.1"    # was: candle-flash-attn = "0.11"
//! ```
//!
//! ```no_run
//! use candle_core::{DType, Device, Tensor};
//! use fulgurite_candle::flash_attn; // was: use candle_flash_attn::flash_attn
//!
//! # fn main() -> candle_core::Result<()> {
//! let device = Device::new_cuda(0)?;
//! // (batch, rows, heads, head_dim); k and v may have fewer heads than q.
//! let q = Tensor::randn(0f32, 1.0, (2, 4096, 16, 128), &device)?.to_dtype(DType::BF16)?;
//! let k = Tensor::randn(0f32, 1.0, (2, 4096, 4, 128), &device)?.to_dtype(DType::BF16)?;
//! let v = k.clone();
//! let out = flash_attn(&q, &k, &v, 128f32.powf(-0.5), /* causal */ true)?;
//! assert_eq!(out.dims(), q.dims());
//! # Ok(()) }
//! ```
//!
//! # What is computed
//! `softmax(softmax_scale · q kᵀ + mask) v`, as the documentation of [`fulgurite`] says it, in its
//! types, with its guarantees. q and the result are `(batch, rows, heads, head_dim)`, k and v
//! `(batch, keys, kv_heads, head_dim)`, bf16 or f16, all of one type; head_dim is a multiple of 8
//! up to 256; heads are a multiple of kv_heads. Causal masks are aligned bottom right.
//!
//! * **Strides** are free. A tensor that the kernel cannot walk (a stride that is no multiple of 8
//!   elements, the last one not 1, an expanded axis other than the batch of k and v, an offset that
//!   is no multiple of 8) is made contiguous first.
//! * **On a CPU** the same functions compute in f32 by plain loops, up to [`CPU_LIMIT`], so that
//!   the tests of a model run without a GPU; f32 tensors are taken there too, and give f32.
//! * **Gradients**: `backward()` flows through a result to q, k and v, with the same bits on every
//!   run; where one of them is a variable, or made from one, the log-sum-exp is kept for it.
//! * **Order**: kernels run on the stream of candle's device, after what is on it; cudarc's events
//!   order other streams of the context. The first call of each kind of request compiles a kernel,
//!   which takes about a second. A program that captures graphs makes such a call before, and turns
//!   the events off
//!   ([`disable_event_tracking`](candle_core::CudaDevice::disable_event_tracking)).
//!
//! # What is refused
//! ALiBi slopes, softcap, sequences of different lengths and paged caches are not there yet: such
//! calls return an error that names the function and the argument, before anything is launched.
//!
//! # Errors
//! Refusals of arguments are [`Error::Msg`](candle_core::Error::Msg). What the library refuses
//! (shapes, head dims, types, devices) or the driver reports is
//! [`Error::Cuda`](candle_core::Error::Cuda) with a [`fulgurite::Error`] inside, which can be
//! downcast; shapes are refused in the same way on a CPU. Candle wraps both in
//! [`Error::WithBacktrace`](candle_core::Error::WithBacktrace) where `RUST_BACKTRACE` is set.
//!
//! # Build
//! Candle's own kernels need nvcc. It has to be in `PATH`, or `CUDARC_CUDA_VERSION` set: without
//! either, cudarc binds to the newest CUDA it knows, which the driver's library may not have. A
//! program with candle links that library and does not start without it.

// The signatures are those of candle-flash-attn.
#![expect(clippy::too_many_arguments, reason = "the signatures of candle-flash-attn")]

mod cpu;
mod cuda;
mod op;
mod refuse;
pub mod v3;

use candle_core::{Result, Tensor};

pub use crate::cpu::CPU_LIMIT;
use crate::op::{dense, dense_with_lse, mask, mask_of_window};

/// Attention over all keys, or over those up to the row's own.
///
/// # Arguments
/// * `q`: `(batch, rows, heads, head_dim)`.
/// * `k`, `v`: `(batch, keys, kv_heads, head_dim)`.
/// * `softmax_scale`: factor of the scores, positive, as a rule `1 / sqrt(head_dim)`.
/// * `causal`: row `r` sees the keys `c <= r + keys - rows`.
///
/// The result has the shape and type of `q`.
///
/// # Errors
/// Those of the [crate](crate#errors).
///
/// ```
/// use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// // Queries of 0 weigh all keys alike: each row is the mean of the values, which are 0 to 3.
/// let q = Tensor::zeros((1, 2, 1, 8), candle_core::DType::F32, &Device::Cpu)?;
/// let v = Tensor::arange(0f32, 4.0, &Device::Cpu)?.reshape((1, 4, 1, 1))?.repeat((1, 1, 1, 8))?;
/// let out = fulgurite_candle::flash_attn(&q, &v, &v, 1.0, false)?;
/// assert_eq!(out.flatten_all()?.to_vec1::<f32>()?, [1.5; 16]);
/// # Ok(()) }
/// ```
pub fn flash_attn(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    softmax_scale: f32,
    causal: bool,
) -> Result<Tensor> {
    dense(q, k, v, softmax_scale, mask(causal))
}

/// As [`flash_attn`], with the natural logarithm of each row's sum of exponentials:
/// `f32 (batch, heads, rows)`, −∞ for a row that sees no key. It has no gradient.
///
/// # Errors
/// Those of the [crate](crate#errors).
pub fn flash_attn_with_lse(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    softmax_scale: f32,
    causal: bool,
) -> Result<(Tensor, Tensor)> {
    dense_with_lse(q, k, v, softmax_scale, mask(causal))
}

/// As [`flash_attn`], over keys at most so far before and behind the row's own (bottom right).
///
/// Row `r` sees the keys from `r + keys - rows - window_size_left` to
/// `r + keys - rows + window_size_right`; `None` is unbounded.
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
) -> Result<Tensor> {
    dense(q, k, v, softmax_scale, mask_of_window(window_size_left, window_size_right))
}

/// As [`flash_attn`], with ALiBi's bias, `f32 (heads)`.
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
) -> Result<Tensor> {
    refuse::alibi("flash_attn_alibi")
}

/// As [`flash_attn_windowed`], with ALiBi's bias, `f32 (heads)`.
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
) -> Result<Tensor> {
    refuse::alibi("flash_attn_alibi_windowed")
}

/// As [`flash_attn_windowed`], with ALiBi's bias if there is one, and with scores that `softcap`
/// limits (`softcap · tanh(score / softcap)`); 0 is none.
///
/// # Errors
/// `alibi_slopes` that are not `None`, a `softcap` that is not 0: not supported yet; and those of
/// [`flash_attn_windowed`].
pub fn flash_attn_alibi_windowed_softcap(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    alibi_slopes: Option<&Tensor>,
    softmax_scale: f32,
    window_size_left: Option<usize>,
    window_size_right: Option<usize>,
    softcap: f32,
) -> Result<Tensor> {
    const NAME: &str = "flash_attn_alibi_windowed_softcap";
    if alibi_slopes.is_some() {
        return refuse::alibi(NAME);
    }
    if softcap != 0.0 {
        return refuse::softcap(NAME, softcap);
    }
    dense(q, k, v, softmax_scale, mask_of_window(window_size_left, window_size_right))
}

macro_rules! varlen {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*);)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// Always: sequences of different lengths are not supported yet.
        pub fn $name(
            _q: &Tensor,
            _k: &Tensor,
            _v: &Tensor,
            $($argument: $type),*
        ) -> Result<Tensor> {
            refuse::varlen(stringify!($name))
        })*
    };
}
pub(crate) use varlen;

varlen! {
    /// Attention of sequences that lie behind each other: q is `(tokens, heads, head_dim)`,
    /// `seqlens_q` and `seqlens_k` say where each sequence begins, and where the last one ends.
    flash_attn_varlen(
        _seqlens_q: &Tensor, _seqlens_k: &Tensor, _max_seqlen_q: usize, _max_seqlen_k: usize,
        _softmax_scale: f32, _causal: bool
    );
    /// As [`flash_attn_varlen`], with the window of [`flash_attn_windowed`].
    flash_attn_varlen_windowed(
        _seqlens_q: &Tensor, _seqlens_k: &Tensor, _max_seqlen_q: usize, _max_seqlen_k: usize,
        _softmax_scale: f32, _window_size_left: Option<usize>, _window_size_right: Option<usize>
    );
    /// As [`flash_attn_varlen_windowed`], with keys and values in pages.
    flash_attn_varlen_paged_windowed(
        _seqlens_q: &Tensor, _seqlens_k: &Tensor, _block_table: &Tensor,
        _mm_prefix_ranges: Option<&Tensor>, _max_seqlen_q: usize, _max_seqlen_k: usize,
        _softmax_scale: f32, _window_size_left: Option<usize>, _window_size_right: Option<usize>,
        _page_block_size: usize, _softcap: Option<f32>
    );
    /// As [`flash_attn_varlen`], with ALiBi's bias.
    flash_attn_varlen_alibi(
        _alibi_slopes: &Tensor, _seqlens_q: &Tensor, _seqlens_k: &Tensor, _max_seqlen_q: usize,
        _max_seqlen_k: usize, _softmax_scale: f32, _causal: bool
    );
    /// As [`flash_attn_varlen_windowed`], with ALiBi's bias.
    flash_attn_varlen_alibi_windowed(
        _alibi_slopes: &Tensor, _seqlens_q: &Tensor, _seqlens_k: &Tensor, _max_seqlen_q: usize,
        _max_seqlen_k: usize, _softmax_scale: f32, _window_size_left: Option<usize>,
        _window_size_right: Option<usize>
    );
    /// As [`flash_attn_varlen_alibi_windowed`], the bias if there is one, with scores that
    /// `softcap` limits.
    flash_attn_varlen_alibi_windowed_softcap(
        _alibi_slopes: Option<&Tensor>, _seqlens_q: &Tensor, _seqlens_k: &Tensor,
        _max_seqlen_q: usize, _max_seqlen_k: usize, _softmax_scale: f32,
        _window_size_left: Option<usize>, _window_size_right: Option<usize>, _softcap: f32
    );
}
