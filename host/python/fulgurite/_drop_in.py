"""What the drop-ins for FlashAttention share: their arguments in our words."""
from __future__ import annotations

from typing import Any

from ._attention import torch_door
from ._errors import ArgumentError, RequestError, not_there
from ._forward import check_rank
from ._masks import CAUSAL, FULL, Mask, kernel_mask, window


UNBOUNDED = (-1, -1)
"""The `window_size` that bounds nothing."""


def refuse_scores(softcap: float, dropout_p: float = 0.0, attention_chunk: int = 0) -> None:
    """Raises `UnsupportedError` for what changes scores. 0 switches each off, as does a softcap
    below."""
    if dropout_p != 0.0:
        raise not_there("dropout_p", dropout_p)
    if softcap > 0.0:
        raise not_there("softcap", softcap)
    if attention_chunk != 0:
        raise not_there("attention_chunk", attention_chunk)


def drop_in_mask(causal: bool, window_size: tuple[int, int]) -> Mask:
    """The mask of `causal` and `window_size`, where a negative end is unbounded and causal sets
    the right end to 0."""
    if len(window_size) != 2:
        raise ArgumentError(f"window_size={window_size!r}: it must be (left, right)")
    left, right = (None if end < 0 else int(end) for end in window_size)
    if causal:
        right = 0
    if left is None and right is None:
        return FULL
    # No row has as many keys on one side.
    left, right = (end if end is None or end < 1 << 31 else None for end in (left, right))
    return CAUSAL if left is None and right == 0 else window(left, right)


def kernel_of(q: Any, k: Any, v: Any, causal: bool, window_size: tuple[int, int]) -> str:
    """The mask of the kernel that computes a call.

    Raises `RequestError` for tensors that do not have four axes.
    """
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        check_rank(name, tuple(tensor.shape))
    return kernel_mask(drop_in_mask(causal, window_size), q.shape[1], k.shape[1])


def dense(q: Any, k: Any, v: Any, scale: float | None, causal: bool,
          window_size: tuple[int, int], with_lse: bool,
          descale: tuple[Any, ...] | None = None) -> tuple[Any, Any]:
    """Output and, if wanted, log-sum-exp of q (batch, rows, heads, head_dim) and k, v (batch,
    kv_rows, kv_heads, head_dim), with any head dim up to 256: others than multiples of 16 bytes
    are padded."""
    if window_size == UNBOUNDED:
        kernel = "causal" if causal else "full"
    else:
        kernel = kernel_of(q, k, v, causal, window_size)
    door = torch_door()
    head_dim = q.shape[-1]
    missing = -head_dim % (16 if q.dtype.itemsize == 1 else 8)
    if missing:
        if scale is None and head_dim > 0:
            scale = float(head_dim) ** -0.5
        q, k, v = (door.padded(tensor, missing) for tensor in (q, k, v))
    results = door.forward(q, k, v, kernel, scale, "given", None, with_lse, descale)
    out, lse = results if with_lse else (results, None)
    return (out[..., :head_dim] if missing else out), lse


def has_keyless_rows(q_len: int, kv_len: int, causal: bool,
                     window_size: tuple[int, int]) -> bool:
    """Whether some row of a call that `dense` computes sees no key."""
    return kv_len == 0 or (q_len > kv_len and drop_in_mask(causal, window_size) is not FULL)


def unpack(name: str, packed: Any, count: int) -> tuple[Any, ...]:
    """The `count` tensors of (batch, rows, count, heads, head_dim), without a copy."""
    shape = tuple(packed.shape)
    if len(shape) != 5 or shape[2] != count:
        raise RequestError(
            f"{name} has the shape {shape}: it must be (batch, rows, {count}, heads, head_dim)")
    return tuple(packed[:, :, index] for index in range(count))


def cache_in_use(q: Any, k_cache: Any, v_cache: Any, k: Any, v: Any, cache_seqlens: Any,
                 causal: bool, window_size: tuple[int, int]) -> tuple[Any, Any]:
    """Keys and values of a cache in which all entries have the same length, after `k` and `v`, if
    given, were written behind the first `cache_seqlens` rows.

    Raises `UnsupportedError` for lengths on the device, and what `kernel_of` raises; then nothing
    was written.
    """
    if cache_seqlens is not None and (isinstance(cache_seqlens, bool)
                                      or not isinstance(cache_seqlens, int)):
        raise not_there("cache_seqlens", cache_seqlens, "only an int, one length for all entries")
    if (k is None) != (v is None):
        raise ArgumentError("k and v: give both, or none")
    for name, new, cache in (("k", k, k_cache), ("v", v, v_cache)):
        if new is not None and new.dtype != cache.dtype:
            raise RequestError(f"{name} has elements of type {new.dtype}, its cache of type "
                               f"{cache.dtype}: convert {name}")
    if k is not None and cache_seqlens is None:
        raise ArgumentError("k and v are to be written into the cache: say where, by cache_seqlens")
    new_rows = 0 if k is None else k.shape[1]
    start = k_cache.shape[1] if cache_seqlens is None else cache_seqlens
    end = start + new_rows
    if start < 0 or end > k_cache.shape[1]:
        raise RequestError(f"cache_seqlens={start} and {new_rows} new rows: the cache has "
                           f"{k_cache.shape[1]}")
    keys, values = k_cache[:, :end], v_cache[:, :end]
    kernel_of(q, keys, values, causal, window_size)
    if k is not None:
        k_cache[:, start:end] = k
        v_cache[:, start:end] = v
    return keys, values
