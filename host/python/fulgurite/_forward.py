"""The forward call without a framework: what a kernel can walk, plans, launches.

Tensors are described by their element type's name, shape and strides in elements, in the order
(batch, rows, heads, head_dim); addresses and streams are integers.
"""
from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from . import _interface
from ._errors import ArgumentError, RequestError
from ._library import ARGS_BYTES, Library, library, pack_args
from ._masks import ends_of


class Tensor(NamedTuple):
    """A tensor without its address."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def contiguous(cls, dtype: str, shape: tuple[int, ...]) -> Tensor:
        """One whose axes lie in memory as they are named."""
        strides = [1] * len(shape)
        for axis in range(len(shape) - 1, 0, -1):
            strides[axis - 1] = strides[axis] * max(shape[axis], 1)
        return cls(dtype, tuple(shape), tuple(strides))


class Descale(NamedTuple):
    """What the stored numbers of a tensor are multiplied with, without its address: a kind of the
    C interface, and of one per head the numbers from batch entry to batch entry, head to head."""

    kind: str
    strides: tuple[int, ...] = (0, 0)


class Request(NamedTuple):
    """A forward call: everything but addresses."""

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    mask: str
    scale: float | None
    precision: str
    with_lse: bool
    descale: tuple[Descale, Descale, Descale] | None = None


# Strides at which tensor maps end, in bytes.
_STRIDE_LIMIT_BYTES = 1 << 40
_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "e4m3": 1, "e5m2": 1, "u8": 1, "i8": 1, "i32": 4, "i64": 8}


def needs_copy(tensor: Tensor, may_repeat: tuple[int, ...] = ()) -> bool:
    """Whether kernels cannot walk a tensor as it lies: the last axis is not contiguous, a stride
    is no multiple of 16 bytes, 0 along an axis that is not in `may_repeat`, or too large."""
    unit, size_bytes = 16 // min(_BYTES[tensor.dtype], 2), _BYTES[tensor.dtype]
    if tensor.shape[3] > 1 and tensor.strides[3] != 1:
        return True
    for axis in range(3):
        stride = tensor.strides[axis]
        if tensor.shape[axis] <= 1:
            continue
        if stride == 0 and axis not in may_repeat:
            return True
        if stride % unit != 0 or stride * size_bytes >= _STRIDE_LIMIT_BYTES:
            return True
    return False


def copies(request: Request) -> tuple[bool, bool, bool]:
    """Which of q, k and v must be copied before a kernel can walk them. Batch entries of k and v
    may repeat (stride 0), and so may their heads, if those of both do and no head's numbers are
    multiplied with others than another's."""
    q, k, v = request[:3]
    differ = any(one.kind == "per_head" and one.strides[1] != 0 for one in request.descale or ())
    heads_repeat = k.strides[2] == 0 and v.strides[2] == 0 and not differ
    may_repeat = (0, 2) if heads_repeat else (0,)
    return (needs_copy(q), needs_copy(k, may_repeat), needs_copy(v, may_repeat))


def walkable(request: Request) -> tuple[Request, tuple[bool, ...]]:
    """The request with contiguous copies for what no kernel can walk, and which of q, k and v those
    are. A copy of k's heads, or of v's, may leave those of the other alone in repeating."""
    copied = (False, False, False)
    while any(more := copies(request)):
        q, k, v = (Tensor.contiguous(tensor.dtype, tensor.shape) if wanted else tensor
                   for tensor, wanted in zip(request[:3], more))
        request = request._replace(q=q, k=k, v=v)
        copied = (copied[0] or more[0], copied[1] or more[1], copied[2] or more[2])
    return request, copied


def layout(tensor: Tensor) -> _interface.Layout:
    """The layout, whose axes are (batch, heads, rows, head_dim)."""
    order = (0, 2, 1, 3)
    shape, strides = ([numbers[axis] for axis in order]
                      for numbers in (tensor.shape, tensor.strides))
    layout: _interface.Layout = _interface.Layout.batched(tensor.dtype, shape, strides)
    return layout


def _scale(scale: float | None) -> float:
    """The scale as the C interface takes it, where 0 means 1 / sqrt(head_dim)."""
    if scale is None:
        return 0.0
    value = float(scale)
    if not math.isfinite(value) or ctypes.c_float(value).value <= 0.0:
        raise RequestError(
            f"scale={scale!r}: it must be a positive number that float32 can hold; None is "
            "1/sqrt(head_dim)")
    return value


def check_rank(name: str, shape: tuple[int, ...]) -> None:
    """Raises `RequestError` unless a tensor has four axes."""
    if len(shape) != 4:
        raise RequestError(
            f"{name} has {len(shape)} axes {tuple(shape)}: it must have four, (batch, rows, heads, "
            "head_dim)")


def descale_of(name: str, numbers: Tensor | None, q: Tensor, k: Tensor) -> Descale:
    """What the stored numbers of q, k or v are multiplied with, by the shape of what is given.

    Raises `RequestError` for other elements than float32, and for other shapes than one number,
    (batch, KV heads) and, of q, (batch, heads, rows), which must be contiguous.
    """
    if numbers is None:
        return Descale("one")
    shape = tuple(numbers.shape)
    if numbers.dtype != "f32":
        raise RequestError(f"the descale of {name} has elements of type {numbers.dtype}: they must "
                           "be float32")
    if math.prod(shape) == 1:
        return Descale("per_tensor")
    batch, rows, heads, _ = q.shape
    by_head, by_row = (batch, k.shape[2]), (batch, heads, rows)
    if shape == by_head:
        return Descale("per_head", tuple(numbers.strides))
    if name != "q" or shape != by_row:
        also = f", or (batch, heads, rows) {by_row}" if name == "q" else ""
        raise RequestError(f"the descale of {name} has the shape {shape}: it must be one number, "
                           f"or (batch, KV heads) {by_head}{also}")
    contiguous = Tensor.contiguous("f32", shape).strides
    if 0 not in shape and any(size > 1 and got != want for size, got, want
                              in zip(shape, numbers.strides, contiguous)):
        raise RequestError(f"the descale of q, one for each row, has the strides "
                           f"{tuple(numbers.strides)}: it must be contiguous")
    return Descale("per_row")


def precision_number(precision: object) -> int:
    """The header's number of a precision. Raises `ArgumentError` for a name that is none."""
    if isinstance(precision, str) and precision in _interface.PRECISIONS:
        return int(_interface.PRECISIONS[precision])
    names = ", ".join(repr(name) for name in _interface.PRECISIONS)
    raise ArgumentError(f"precision={precision!r}: it must be one of {names}")


preloaded: set[tuple[Any, ...]] = set()
"""Families of calls all of whose kernels are loaded: `fulgurite.preload` fills it."""


def family(request: Request, device: int) -> tuple[Any, ...]:
    """What decides, apart from lengths, which kernels a call may take."""
    mask = ends_of(request.mask)[0]
    return (device, request.q.dtype, request.q.shape[3], mask, request.precision)


def request_struct(request: Request, device: int) -> _interface.ForwardRequest:
    """The request as the C interface takes it."""
    mask, left, right = ends_of(request.mask)
    ends = ("left", left), ("right", right)
    struct = _interface.ForwardRequest(
        device=device, mask=_interface.MASKS[mask], window_left=left or 0,
        window_right=right or 0, window_ends=sum(
            _interface.WINDOW_ENDS[name] for name, end in ends if end is not None),
        with_lse=int(request.with_lse),
        scale=_scale(request.scale), precision=precision_number(request.precision),
        q=layout(request.q), k=layout(request.k), v=layout(request.v),
        out=layout(request.out))
    if request.descale is not None:
        struct.descale_q, struct.descale_k, struct.descale_v = (
            _interface.Descale(_interface.DESCALES[one.kind], 0, one.strides)
            for one in request.descale)
    return struct


class Prepared:
    """A checked request with its kernels loaded; serves any number of launches and threads."""

    __slots__ = ("_plan", "_functions", "_check", "handle", "launch", "workspace_bytes")

    def __init__(self, loaded: Library, plan: Any, launch: Any) -> None:
        self._plan: Any = plan
        self._functions, self._check = loaded.functions, loaded.check
        self.handle: Any = plan.handle
        self.launch: Any = launch
        self.workspace_bytes: int = plan.workspace_bytes()

    def __del__(self, is_ending: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of a process what `destroy` needs may be gone already.
        plan = getattr(self, "_plan", None)
        if plan is not None and not is_ending():
            plan.destroy()

    def entry(self) -> str:
        """The name of the kernel, of the last one if there are several, "" if there is none."""
        return str(self._plan.entry())

    def describe(self) -> str:
        """All that was decided, in some lines."""
        return str(self._plan.describe())


class Plan(Prepared):
    """That of a forward call."""

    __slots__ = ()

    def __init__(self, request: Request, device: int) -> None:
        loaded = library()
        plan = loaded.plan_forward(request_struct(request, device))
        super().__init__(loaded, plan, loaded.launch_forward)

    def run(self, stream: int, q: int, k: int, v: int, out: int, lse: int = 0, workspace: int = 0,
            device: int = 0, descale_q: int = 0, descale_k: int = 0, descale_v: int = 0) -> None:
        """Enqueues the kernels. The workspace, if the plan needs one, has `workspace_bytes` bytes
        at a multiple of 256; what it held before does not matter."""
        size = self.workspace_bytes
        if size:
            self._check(self._functions.fulgurite_workspace_reset(device, stream, workspace, size))
        status = self.launch(self.handle, stream,
                             pack_args(ARGS_BYTES, q, k, v, out, lse, workspace, size, descale_q,
                                       descale_k, descale_v))
        if status:
            self._check(status)

