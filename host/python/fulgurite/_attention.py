"""`attention`: what it takes, and what it cannot do yet."""
from __future__ import annotations

import sys
from typing import Any

from ._errors import ArgumentError, UnsupportedError, not_there, refuse, shown
from ._forward import check_rank
from ._masks import CAUSAL, FULL, Mask, kernel_mask


def attention(q: Any, k: Any, v: Any, mask: Mask, *, scale: float | None = None,
              softcap: float | None = None, bias: Any = None, score: Any = None, sinks: Any = None,
              align: str = "bottom_right", precision: str = "given", descale: Any = None,
              cu_q: Any = None, cu_k: Any = None, used_q: Any = None, used_k: Any = None,
              first_k: Any = None, out: Any = None, return_lse: bool = False) -> Any:
    """`softmax(scale * q k^T + mask) v`, on the GPU of q, on its current stream.

    q is (batch, rows, heads, head_dim), k and v are (batch, kv_rows, kv_heads, head_dim); heads is
    a multiple of kv_heads, head_dim a multiple of 8 up to 256. All are bf16 or all f16. Any
    strides: what a kernel cannot walk is copied, and counted in `fulgurite.info().copies`.
    PyTorch's tensors, or arrays with `__dlpack__` (CuPy, JAX) where PyTorch is installed.

    mask: `FULL`, `CAUSAL` or one made by `window`; there is no default.
    scale: factor of the scores; None: 1 / sqrt(head_dim).
    align: "bottom_right", where the last row's diagonal ends at the last key; "top_left" is taken
    where it means the same: for equal lengths and `FULL`.
    precision: "given", or "s8e4m3": q and k are quantised to 8-bit integers, v to e4m3, by the
    launch itself (head_dim a multiple of 16). Faster, with more error.
    out: where the output goes; q's shape and type, strides multiples of 8.
    return_lse: also return the natural log-sum-exp, float32 (batch, heads, rows), -inf for a row
    without keys.

    Returns the output (contiguous unless `out` is given), or (output, log-sum-exp). There is no
    backward yet: inputs that require gradients are refused, except under `torch.no_grad()`.

    Raises `RequestError` and `ArgumentError` (both `ValueError`), `UnsupportedError`
    (`NotImplementedError`) for what nothing here computes yet, `DeviceError`, `DriverError`.

    >>> out = fulgurite.attention(q, k, v, fulgurite.CAUSAL)  # doctest: +SKIP
    """
    if not (softcap is bias is score is sinks is descale is cu_q is cu_k is used_q is used_k
            is first_k is None):
        refuse(softcap=softcap, bias=bias, score=score, sinks=sinks, descale=descale, cu_q=cu_q,
               cu_k=cu_k, used_q=used_q, used_k=used_k, first_k=first_k)
    if align == "bottom_right" and (mask is CAUSAL or mask is FULL):
        kernel = mask.name
    else:
        kernel = kernel_for(q, k, v, mask, align)
    if not is_torch(q):
        return _through_torch(q, k, v, kernel, scale, precision, out, return_lse)
    return torch_door().forward(q, k, v, kernel, scale, precision, out, return_lse)


_door: Any = None


def torch_door() -> Any:
    """The module `fulgurite.torch`, imported on first use (each import statement costs 0.5 us)."""
    global _door
    if _door is None:
        from . import torch as door
        _door = door
    return _door


def kernel_for(q: Any, k: Any, v: Any, mask: object, align: str) -> str:
    """The mask of the kernel that computes a call.

    Raises `RequestError` for arrays that do not have four axes, and what `kernel_mask` and
    `aligned` raise.
    """
    for name, array in (("q", q), ("k", k), ("v", v)):
        check_rank(name, tuple(array.shape))
    q_len, kv_len = q.shape[1], k.shape[1]
    return aligned(kernel_mask(mask, q_len, kv_len), align, q_len, kv_len)


def aligned(mask: str, align: str, q_len: int, kv_len: int) -> str:
    """The mask, whose alignment is one that a kernel has.

    Raises `ArgumentError` for what is no alignment, `UnsupportedError` for the top left one where
    lengths differ.
    """
    if align not in ("bottom_right", "top_left"):
        raise ArgumentError(f"align={align!r}: it must be 'bottom_right' or 'top_left'")
    if align == "top_left" and mask != "full" and q_len != kv_len:
        raise not_there("align", align, f"q has {q_len} rows and k {kv_len}; only where the two "
                        "are equal does it mean the same as 'bottom_right'")
    return mask


def is_torch(array: object) -> bool:
    """Whether an array is a tensor of PyTorch, which need not be installed."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def _through_torch(q: Any, k: Any, v: Any, mask: str, scale: float | None, precision: str,
                   out: Any, return_lse: bool) -> Any:
    """The call on arrays of another framework, which lend their memory by DLPack; the results are
    arrays of that framework."""
    back = _from_dlpack(q)
    if not hasattr(q, "__dlpack__") or back is None:
        raise ArgumentError(f"q={shown(q)}: it must be a tensor of PyTorch, or an array with "
                            "__dlpack__ whose framework has from_dlpack (CuPy, JAX)")
    if out is not None:
        raise not_there("out", out, "only tensors of PyTorch are written to")
    try:
        import torch

        door = torch_door()
    except ImportError as error:
        raise UnsupportedError(f"q={shown(q)}: arrays of other frameworks are read through "
                               f"PyTorch, which is not installed ({error})") from error
    lent_q, lent_k, lent_v = (torch.from_dlpack(array) for array in (q, k, v))
    results = door.forward(lent_q, lent_k, lent_v, mask, scale, precision, None, return_lse)
    return tuple(back(one) for one in results) if return_lse else back(results)


def _from_dlpack(array: Any) -> Any:
    """How the framework of an array takes one by DLPack: as the array API standard says, else by
    the function of its package; None if it cannot."""
    namespace = getattr(array, "__array_namespace__", None)
    package = sys.modules.get(type(array).__module__.partition(".")[0])
    return getattr(namespace() if namespace is not None else package, "from_dlpack", None)


def _refused(name: str) -> UnsupportedError:
    return UnsupportedError(f"fulgurite.{name} is not supported yet")


def cached_attention(q: Any, k_cache: Any, v_cache: Any, used_k: Any, mask: object,
                     **options: Any) -> Any:
    """Attention over a cache whose lengths the device knows. Not there yet: raises
    `UnsupportedError`."""
    raise _refused("cached_attention")


def write_kv(k: Any, v: Any, k_cache: Any, v_cache: Any, **options: Any) -> None:
    """Writes keys and values into a cache. Not there yet: raises `UnsupportedError`."""
    raise _refused("write_kv")


def merge(parts: Any) -> Any:
    """Joins [(out, lse), ...] over parts of the keys. Not there yet: raises
    `UnsupportedError`."""
    raise _refused("merge")


def quantise_kv(k: Any, v: Any, **options: Any) -> Any:
    """Keys and values of 8 bits, kept. Not there yet: raises `UnsupportedError`; attention with
    precision="s8e4m3" quantises in each call."""
    raise _refused("quantise_kv")


def tile_mask(source: Any, q: Any, k: Any) -> Any:
    """A mask of one's own, classified by tiles. Not there yet: raises `UnsupportedError`."""
    raise _refused("tile_mask")
