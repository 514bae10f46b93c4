"""FlashAttention-3's functions: its names, argument order and return values.

    from fulgurite.flash_attn_interface import flash_attn_func

Tensors are bf16, f16 or e4m3, (batch, rows, heads, head_dim), with any head dim up to 256. The
stored numbers of e4m3 are multiplied with `q_descale`, `k_descale` and `v_descale`, float32 (batch,
kv_heads), 1 where they are None, and the output is bf16. As there, the log-sum-exp of a row that
sees no key is -inf, and `return_attn_probs` returns two values, output and log-sum-exp. What
nothing here computes yet raises `fulgurite.UnsupportedError`, a `NotImplementedError`, that names
the argument; `num_splits`, `pack_gqa`, `sm_margin`, `deterministic` and `scheduler_metadata` are
accepted, since results never depend on them.
"""
from __future__ import annotations

from typing import Any

from ._attention import descales, torch_door
from ._drop_in import UNBOUNDED, cache_in_use, dense, refuse_scores, unpack
from ._errors import ArgumentError, RequestError, UnsupportedError, not_there, refuse, shown


def _descale(q: Any, q_descale: Any, k_descale: Any, v_descale: Any) -> tuple[Any, ...] | None:
    """What tensors of 8 bits are multiplied with; None for tensors of 16 bits.

    Raises `RequestError` for numbers that come with tensors of 16 bits, `ArgumentError` for what
    are no numbers.
    """
    if q.dtype.itemsize == 1:
        return descales((q_descale, k_descale, v_descale))
    for name, one in (("q", q_descale), ("k", k_descale), ("v", v_descale)):
        if one is not None:
            raise RequestError(f"{name}_descale={shown(one)}, but q has elements of type "
                               f"{q.dtype}, which are meant as they are stored: leave it out, it "
                               "is for torch.float8_e4m3fn")
    return None


def flash_attn_func(q: Any, k: Any, v: Any, softmax_scale: float | None = None,
                    causal: bool = False, qv: Any = None, q_descale: Any = None,
                    k_descale: Any = None, v_descale: Any = None,
                    window_size: tuple[int, int] = UNBOUNDED, attention_chunk: int = 0,
                    softcap: float = 0.0, num_splits: int = 1, pack_gqa: bool | None = None,
                    deterministic: bool = False, sm_margin: int = 0,
                    return_attn_probs: bool = False) -> Any:
    """Attention of q (batch, rows, heads, head_dim) over k, v (batch, kv_rows, kv_heads, head_dim).

    Returns the output, or (output, log-sum-exp float32 (batch, heads, rows)). Raises
    `UnsupportedError` for `qv`, `attention_chunk`, `softcap`, e5m2, windows in 8 bits, and
    gradients of calls with descales.
    """
    if softcap or attention_chunk or qv is not None:
        refuse_scores(softcap, attention_chunk=attention_chunk)
        refuse(qv=qv)
    descale = _descale(q, q_descale, k_descale, v_descale)
    out, lse = dense(q, k, v, softmax_scale, causal, window_size, return_attn_probs, descale)
    return (out, lse) if return_attn_probs else out


def flash_attn_qkvpacked_func(qkv: Any, softmax_scale: float | None = None, causal: bool = False,
                              q_descale: Any = None, k_descale: Any = None, v_descale: Any = None,
                              window_size: tuple[int, int] = UNBOUNDED, attention_chunk: int = 0,
                              softcap: float = 0.0, deterministic: bool = False,
                              num_heads_q: int | None = None, sm_margin: int = 0,
                              return_attn_probs: bool = False) -> Any:
    """`flash_attn_func` with q, k and v in one tensor: (batch, rows, 3, heads, head_dim), or
    (batch, rows, num_heads_q + 2 kv_heads, head_dim) with `num_heads_q`."""
    if len(qkv.shape) == 4:
        kv_heads, odd = divmod(qkv.shape[2] - (num_heads_q or 0), 2)
        if num_heads_q is None or num_heads_q < 1 or odd or kv_heads < 1:
            raise ArgumentError(f"num_heads_q={num_heads_q!r}: of {qkv.shape[2]} heads it must "
                                "leave as many for k as for v")
        ends = (num_heads_q, num_heads_q + kv_heads)
        q, k, v = (qkv[:, :, :ends[0]], qkv[:, :, ends[0]:ends[1]], qkv[:, :, ends[1]:])
    else:
        q, k, v = unpack("qkv", qkv, 3)
    return flash_attn_func(q, k, v, softmax_scale, causal, None, q_descale, k_descale, v_descale,
                           window_size, attention_chunk, softcap,
                           return_attn_probs=return_attn_probs)


def flash_attn_varlen_func(q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any,
                           max_seqlen_q: int, max_seqlen_k: int, seqused_q: Any = None,
                           seqused_k: Any = None, softmax_scale: float | None = None,
                           causal: bool = False, qv: Any = None, q_descale: Any = None,
                           k_descale: Any = None, v_descale: Any = None,
                           window_size: tuple[int, int] = UNBOUNDED, attention_chunk: int = 0,
                           softcap: float = 0.0, num_splits: int = 1,
                           pack_gqa: bool | None = None, deterministic: bool = False,
                           sm_margin: int = 0, return_attn_probs: bool = False) -> Any:
    """Sequences of different lengths. Not there yet: raises `UnsupportedError`."""
    raise not_there("cu_seqlens_q", cu_seqlens_q, "call flash_attn_func for each sequence")


def flash_attn_combine(out_partial: Any, lse_partial: Any, out: Any = None,
                       out_dtype: Any = None) -> Any:
    """Joins outputs over parts of the keys. Not there yet: raises `UnsupportedError`."""
    raise UnsupportedError("flash_attn_combine is not supported yet")


def flash_attn_with_kvcache(q: Any, k_cache: Any, v_cache: Any, k: Any = None, v: Any = None,
                            qv: Any = None, rotary_cos: Any = None, rotary_sin: Any = None,
                            cache_seqlens: Any = None, cache_batch_idx: Any = None,
                            cache_leftpad: Any = None, page_table: Any = None,
                            cu_seqlens_q: Any = None, cu_seqlens_k_new: Any = None,
                            max_seqlen_q: int | None = None, rotary_seqlens: Any = None,
                            q_descale: Any = None, k_descale: Any = None, v_descale: Any = None,
                            softmax_scale: float | None = None, causal: bool = False,
                            window_size: tuple[int, int] = UNBOUNDED, attention_chunk: int = 0,
                            softcap: float = 0.0, rotary_interleaved: bool = True,
                            scheduler_metadata: Any = None, num_splits: int = 0,
                            pack_gqa: bool | None = None, sm_margin: int = 0,
                            return_softmax_lse: bool = False) -> Any:
    """Attention over a cache (batch, capacity, kv_heads, head_dim) of which all entries use the
    first `cache_seqlens` rows (an int; None: all). `k` and `v`, if given, are first written behind
    those rows, in place.

    Returns the output, or (output, log-sum-exp, and two tensors without elements, where there
    parts of split keys are). Raises `UnsupportedError` for lengths, indices and tables on the
    device, for rotary embedding, and for what `flash_attn_func` refuses.
    """
    refuse_scores(softcap, attention_chunk=attention_chunk)
    refuse(qv=qv, rotary_cos=rotary_cos, rotary_sin=rotary_sin, cache_batch_idx=cache_batch_idx,
           cache_leftpad=cache_leftpad, page_table=page_table, cu_seqlens_q=cu_seqlens_q,
           cu_seqlens_k_new=cu_seqlens_k_new, rotary_seqlens=rotary_seqlens)
    descale = _descale(q, q_descale, k_descale, v_descale)
    if descale is not None:
        # Before the cache is written.
        torch_door().check_descale(q, k_cache, descale)
    keys, values = cache_in_use(q, k_cache, v_cache, k, v, cache_seqlens, causal, window_size)
    out, lse = dense(q, keys, values, softmax_scale, causal, window_size, return_softmax_lse,
                     descale)
    return (out, lse, lse.new_empty(0), lse.new_empty(0)) if return_softmax_lse else out


def get_scheduler_metadata(*arguments: Any, **options: Any) -> Any:
    """Plans work on the device. Not there: raises `UnsupportedError`."""
    raise UnsupportedError(
        "get_scheduler_metadata is not supported: calls need none, leave scheduler_metadata out")
