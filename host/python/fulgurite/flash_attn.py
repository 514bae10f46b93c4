"""FlashAttention-2's functions: its names, argument order and return values.

    from fulgurite.flash_attn import flash_attn_func

Tensors are bf16 or f16, (batch, rows, heads, head_dim), with any head dim up to 256. As there, the
log-sum-exp of a row that sees no key is +inf, and `return_attn_probs` returns three values, the
last one without elements. What nothing here computes yet raises `fulgurite.UnsupportedError`, a
`NotImplementedError`, that names the argument; `deterministic` and `num_splits` are accepted,
since results never depend on them.
"""
from __future__ import annotations

from typing import Any

from ._drop_in import UNBOUNDED, cache_in_use, dense, has_keyless_rows, refuse_scores, unpack
from ._errors import not_there, refuse


def _attend(q: Any, k: Any, v: Any, softmax_scale: float | None, causal: bool,
            window_size: tuple[int, int], with_lse: bool) -> tuple[Any, Any]:
    """Output and, if wanted, the log-sum-exp with +inf for rows without keys."""
    out, lse = dense(q, k, v, softmax_scale, causal, window_size, with_lse)
    if with_lse and has_keyless_rows(q.shape[1], k.shape[1], causal, window_size):
        lse = lse.masked_fill(lse == float("-inf"), float("inf"))
    return out, lse


def flash_attn_func(q: Any, k: Any, v: Any, dropout_p: float = 0.0,
                    softmax_scale: float | None = None, causal: bool = False,
                    window_size: tuple[int, int] = UNBOUNDED, softcap: float = 0.0,
                    alibi_slopes: Any = None, deterministic: bool = False,
                    return_attn_probs: bool = False) -> Any:
    """Attention of q (batch, rows, heads, head_dim) over k, v (batch, kv_rows, kv_heads, head_dim).

    Returns the output, or (output, log-sum-exp float32 (batch, heads, rows), an empty tensor).
    Raises `UnsupportedError` for `dropout_p`, `softcap` and `alibi_slopes`.
    """
    if dropout_p or softcap or alibi_slopes is not None:
        refuse_scores(softcap, dropout_p)
        refuse(alibi_slopes=alibi_slopes)
    out, lse = _attend(q, k, v, softmax_scale, causal, window_size, return_attn_probs)
    return (out, lse, q.new_empty(0)) if return_attn_probs else out


def flash_attn_kvpacked_func(q: Any, kv: Any, dropout_p: float = 0.0,
                             softmax_scale: float | None = None, causal: bool = False,
                             window_size: tuple[int, int] = UNBOUNDED, softcap: float = 0.0,
                             alibi_slopes: Any = None, deterministic: bool = False,
                             return_attn_probs: bool = False) -> Any:
    """`flash_attn_func` with k and v in one tensor (batch, kv_rows, 2, kv_heads, head_dim)."""
    k, v = unpack("kv", kv, 2)
    return flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap,
                           alibi_slopes, deterministic, return_attn_probs)


def flash_attn_qkvpacked_func(qkv: Any, dropout_p: float = 0.0,
                              softmax_scale: float | None = None, causal: bool = False,
                              window_size: tuple[int, int] = UNBOUNDED, softcap: float = 0.0,
                              alibi_slopes: Any = None, deterministic: bool = False,
                              return_attn_probs: bool = False) -> Any:
    """`flash_attn_func` with q, k and v in one tensor (batch, rows, 3, heads, head_dim)."""
    q, k, v = unpack("qkv", qkv, 3)
    return flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap,
                           alibi_slopes, deterministic, return_attn_probs)


def flash_attn_varlen_func(q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any,
                           max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0,
                           softmax_scale: float | None = None, causal: bool = False,
                           window_size: tuple[int, int] = UNBOUNDED, softcap: float = 0.0,
                           alibi_slopes: Any = None, deterministic: bool = False,
                           return_attn_probs: bool = False, block_table: Any = None) -> Any:
    """Sequences of different lengths. Not there yet: raises `UnsupportedError`."""
    raise not_there("cu_seqlens_q", cu_seqlens_q, "call flash_attn_func for each sequence")


def flash_attn_varlen_kvpacked_func(q: Any, kv: Any, cu_seqlens_q: Any, cu_seqlens_k: Any,
                                    max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0,
                                    softmax_scale: float | None = None, causal: bool = False,
                                    window_size: tuple[int, int] = UNBOUNDED,
                                    softcap: float = 0.0, alibi_slopes: Any = None,
                                    deterministic: bool = False,
                                    return_attn_probs: bool = False) -> Any:
    """Sequences of different lengths. Not there yet: raises `UnsupportedError`."""
    raise not_there("cu_seqlens_q", cu_seqlens_q,
                    "call flash_attn_kvpacked_func for each sequence")


def flash_attn_varlen_qkvpacked_func(qkv: Any, cu_seqlens: Any, max_seqlen: int,
                                     dropout_p: float = 0.0, softmax_scale: float | None = None,
                                     causal: bool = False,
                                     window_size: tuple[int, int] = UNBOUNDED,
                                     softcap: float = 0.0, alibi_slopes: Any = None,
                                     deterministic: bool = False,
                                     return_attn_probs: bool = False) -> Any:
    """Sequences of different lengths. Not there yet: raises `UnsupportedError`."""
    raise not_there("cu_seqlens", cu_seqlens, "call flash_attn_qkvpacked_func for each sequence")


def flash_attn_with_kvcache(q: Any, k_cache: Any, v_cache: Any, k: Any = None, v: Any = None,
                            rotary_cos: Any = None, rotary_sin: Any = None,
                            cache_seqlens: Any = None, cache_batch_idx: Any = None,
                            cache_leftpad: Any = None, block_table: Any = None,
                            softmax_scale: float | None = None, causal: bool = False,
                            window_size: tuple[int, int] = UNBOUNDED, softcap: float = 0.0,
                            rotary_interleaved: bool = True, alibi_slopes: Any = None,
                            num_splits: int = 0, return_softmax_lse: bool = False) -> Any:
    """Attention over a cache (batch, capacity, kv_heads, head_dim) of which all entries use the
    first `cache_seqlens` rows (an int; None: all). `k` and `v`, if given, are first written behind
    those rows, in place.

    Returns the output, or (output, log-sum-exp). Raises `UnsupportedError` for lengths, indices
    and tables on the device, for rotary embedding, and for what `flash_attn_func` refuses.
    """
    refuse_scores(softcap)
    refuse(rotary_cos=rotary_cos, rotary_sin=rotary_sin, cache_batch_idx=cache_batch_idx,
           cache_leftpad=cache_leftpad, block_table=block_table, alibi_slopes=alibi_slopes)
    keys, values = cache_in_use(q, k_cache, v_cache, k, v, cache_seqlens, causal, window_size)
    out, lse = _attend(q, keys, values, softmax_scale, causal, window_size, return_softmax_lse)
    return (out, lse) if return_softmax_lse else out
