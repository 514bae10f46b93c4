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
    a multiple of kv_heads, head_dim a multiple of 8 up to 256. All are bf16, all f16, or all e4m3
    (torch.float8_e4m3fn; head_dim a multiple of 16). Any strides: what a kernel cannot walk is
    copied, and counted in `fulgurite.info().copies`. PyTorch's tensors, or arrays with
    `__dlpack__` (CuPy, JAX) where PyTorch is installed.

    mask: `FULL`, `CAUSAL` or one made by `window`; there is no default.
    scale: factor of the scores; None: 1 / sqrt(head_dim).
    align: "bottom_right", where the last row's diagonal ends at the last key; "top_left" is taken
    where it means the same: for equal lengths and `FULL`.
    precision: "given", as the tensors are; or faster, with more error: bf16 and f16 tensors
    (head_dim a multiple of 16) are quantised by the launch itself. "s8e4m3": q and k to 8-bit
    integers, v to e4m3; "s8x16": only q and k; "bits8": the better one of the two for the head_dim.
    descale: of e4m3 tensors, and of no others, (q, k, v): what their stored numbers are multiplied
    with. Each is None or 1.0 (they are meant as stored), or a float32 tensor on q's device: of one
    number; (batch, kv_heads), any strides, of q too, whose heads share that of their KV head; or
    for q (batch, heads, rows), contiguous.
    out: where the output goes; q's shape, strides multiples of 8, q's type. Of e4m3 tensors it is
    bf16, or f16 if `out` is.
    return_lse: also return the natural log-sum-exp, float32 (batch, heads, rows), -inf for a row
    without keys.

    Returns the output (contiguous unless `out` is given), or (output, log-sum-exp). Gradients flow
    to q, k and v through both, the same bits on every run; calls with `precision`, `descale` or
    `out` have none, and are refused where inputs require some.

    Raises `RequestError` and `ArgumentError` (both `ValueError`), `UnsupportedError`
    (`NotImplementedError`) for what nothing here computes yet, `DeviceError`, `DriverError`.

    >>> out = fulgurite.attention(q, k, v, fulgurite.CAUSAL)  # doctest: +SKIP
    """
    if not (softcap is bias is score is sinks is cu_q is cu_k is used_q is used_k is first_k
            is None):
        refuse(softcap=softcap, bias=bias, score=score, sinks=sinks, cu_q=cu_q, cu_k=cu_k,
               used_q=used_q, used_k=used_k, first_k=first_k)
    if descale is not None:
        descale = descales(descale)
    if align == "bottom_right" and (mask is CAUSAL or mask is FULL):
        kernel = mask.name
    else:
        kernel = kernel_for(q, k, v, mask, align)
    if not is_torch(q):
        return _through_torch(q, k, v, kernel, scale, precision, out, return_lse, descale)
    return torch_door().forward(q, k, v, kernel, scale, precision, out, return_lse, descale)


def descales(descale: Any) -> tuple[Any, ...]:
    """What q, k and v are multiplied with: arrays, and None for 1.

    Raises `ArgumentError` for what are not three, or neither arrays nor 1.
    """
    if not isinstance(descale, (tuple, list)) or len(descale) != 3:
        raise ArgumentError(f"descale={shown(descale)}: it must be (q, k, v), each None, 1.0 or a "
                            "float32 tensor")
    return tuple(_descale(name, one) for name, one in zip("qkv", descale))


def _descale(name: str, value: Any) -> Any:
    if value is None or hasattr(value, "shape"):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 1:
        return None
    raise ArgumentError(f"the descale of {name} is {shown(value)}: it must be None, 1.0 or a "
                        "float32 tensor; put another number into a tensor on q's device")


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
                   out: Any, return_lse: bool, descale: tuple[Any, ...] | None) -> Any:
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
    if descale is not None:
        descale = tuple(None if one is None else torch.from_dlpack(one) for one in descale)
    results = door.forward(lent_q, lent_k, lent_v, mask, scale, precision, None, return_lse,
                           descale)
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
