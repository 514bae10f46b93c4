"""PyTorch: the operators `torch.ops.fulgurite.forward` and `forward_out`, and the registration
with transformers. Importing this module registers the operators."""
from __future__ import annotations

from typing import Any

import torch

from . import _counts
from ._errors import (DeviceError, DriverError, RequestError, UnsupportedError,
                      shown)
from ._forward import Plan, Request, Tensor, check_rank, family, preloaded, walkable
from ._masks import ends_of

DTYPES: dict[torch.dtype, str] = {
    torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32",
    torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2", torch.uint8: "u8", torch.int8: "i8",
    torch.int32: "i32", torch.int64: "i64"}
"""The names of element types."""

# Plans by what a call looks like; the oldest is forgotten beyond this count.
_PLANS_MOST = 4096
_plans: dict[tuple[Any, ...], _Call] = {}


class _Call:
    """What is known about calls of one kind."""

    __slots__ = ("plan", "copies", "is_copied", "out_shape", "is_like_q", "lse_shape", "no_lse")

    def __init__(self, plan: Plan, copied: tuple[bool, ...], q: torch.Tensor) -> None:
        self.plan, self.copies, self.is_copied = plan, copied, any(copied)
        batch, rows, heads, _ = self.out_shape = tuple(q.shape)
        self.lse_shape = (batch, heads, rows)
        # Where q is contiguous, as outputs are, there is a quicker way to allocate one (1.2 against
        # 2.2 us); and a view of a tensor without elements is quicker made than another (0.35
        # against 0.85 us).
        self.is_like_q = q.is_contiguous()
        with torch.inference_mode(False):
            self.no_lse = q.new_empty((0,), dtype=torch.float32)


def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str, scale: float | None,
            precision: str, out: torch.Tensor | None, return_lse: bool) -> Any:
    """`fulgurite.attention` on tensors of PyTorch, after its checks; `mask` is the name of
    a kernel's."""
    if out is None:
        result, lse = _forward_op(q, k, v, mask, scale, precision, return_lse)
    else:
        result, lse = out, _forward_out_op(q, k, v, out, mask, scale, precision, return_lse)
    return (result, lse) if return_lse else result


def padded(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    """The tensor with so many columns of zeros behind its own."""
    return torch.nn.functional.pad(tensor, [0, columns])


def refuse_gradients(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raises `UnsupportedError` where gradients would have to flow through the call.

    Every body does so itself: an operator with `register_autograd` costs 3.4 us more a call, even
    where no gradient is needed (5.9 against 2.5 us).
    """
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        names = [name for name, tensor in zip("qkv", (q, k, v)) if tensor.requires_grad]
        raise UnsupportedError(
            f"backward is not supported yet, but {', '.join(names)} requires gradients: call under "
            "torch.no_grad(), or pass detached tensors")


def _described(name: str, tensor: torch.Tensor, device: torch.device) -> Tensor:
    """A tensor as plans see it."""
    check_rank(name, tensor.shape)
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UnsupportedError(f"{name} has elements of type {tensor.dtype}: convert it to "
                               "torch.bfloat16 or torch.float16")
    if tensor.device != device:
        raise RequestError(f"{name} is on {tensor.device}, q on {device}: all tensors must be on "
                           f"one device; move {name}")
    return Tensor(dtype, tuple(tensor.shape), tuple(tensor.stride()))


def _described_call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None,
                    mask: str, scale: float | None, precision: str, with_lse: bool) -> Request:
    """A call as plans see it. An output that is not given is contiguous."""
    ends_of(mask)
    queries, keys, values = (_described(name, tensor, q.device)
                             for name, tensor in (("q", q), ("k", k), ("v", v)))
    if out is None:
        result = Tensor.contiguous(queries.dtype, queries.shape)
    else:
        result = _described("out", out, q.device)
    return Request(queries, keys, values, result, mask, scale, precision, with_lse)


def _plan(key: tuple[Any, ...], request: Request, q: torch.Tensor, device: int) -> _Call:
    """Makes the plan of a new kind of call and keeps it."""
    request, copied = walkable(request)
    if _is_capturing(device) and family(request, device) not in preloaded:
        raise DriverError(
            "a stream is being captured into a CUDA graph, and no call like this one came before: "
            "the first one loads its kernel, which a capture does not allow; make the call once "
            "before the capture, or fulgurite.preload(...)")
    call = _Call(Plan(request, device), copied, q)
    if len(_plans) >= _PLANS_MOST:
        _plans.pop(next(iter(_plans)), None)
    _plans[key] = call
    return call


def _copied(tensors: tuple[torch.Tensor, ...], wanted: tuple[bool, ...]) -> list[torch.Tensor]:
    """Contiguous copies of those that are wanted, or whose address is no multiple of 16."""
    copies = [tensor.clone(memory_format=torch.contiguous_format)
              if is_wanted or tensor.data_ptr() & 15 else tensor
              for tensor, is_wanted in zip(tensors, wanted)]
    _counts.copies += sum(copy is not tensor for copy, tensor in zip(copies, tensors))
    return copies


def launch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None, mask: str,
           scale: float | None, precision: str, with_lse: bool, device: int,
           stream: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Plans the call, if none like it came before, and enqueues its kernels on the stream. Outputs
    and the workspace come from PyTorch's allocator."""
    key = (q.dtype, q.shape, q.stride(), k.dtype, k.shape, k.stride(), v.dtype, v.shape,
           v.stride(), k.device, v.device, device, mask, scale, precision, with_lse,
           None if out is None else (out.dtype, out.shape, out.stride(), out.device))
    call = _plans.get(key)
    if call is None:
        request = _described_call(q, k, v, out, mask, scale, precision, with_lse)
        call = _plan(key, request, q, device)
    plan = call.plan
    at_q, at_k, at_v = q.data_ptr(), k.data_ptr(), v.data_ptr()
    if (at_q | at_k | at_v) & 15:
        # Their copies may have other strides, and are another kind of call.
        q, k, v = _copied((q, k, v), call.copies)
        return launch(q, k, v, out, mask, scale, precision, with_lse, device, stream)
    if call.is_copied:
        q, k, v = _copied((q, k, v), call.copies)
        at_q, at_k, at_v = q.data_ptr(), k.data_ptr(), v.data_ptr()
    if out is not None:
        result = out
    elif call.is_like_q:
        result = torch.empty_like(q)
    else:
        result = q.new_empty(call.out_shape)
    if with_lse:
        lse = q.new_empty(call.lse_shape, dtype=torch.float32)
        at_lse = lse.data_ptr()
    else:
        lse, at_lse = call.no_lse.detach(), 0
    workspace = 0
    if plan.workspace_bytes:
        # Freed on return: the allocator gives it to later work of this stream only.
        memory = q.new_empty(plan.workspace_bytes, dtype=torch.uint8)
        workspace = memory.data_ptr()
    try:
        plan.run(stream, at_q, at_k, at_v, result.data_ptr(), at_lse, workspace, device)
    except DriverError:
        # The context may have been reset: the next call plans anew.
        _plans.pop(key, None)
        raise
    return result, lse


def _is_capturing(device: int) -> bool:
    """Whether the current stream of a device is being captured."""
    if not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_current_stream_capturing())


# The stream's address, without a Python object around it.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)


def _stream(device: int) -> int:
    if _raw_stream is not None:
        return int(_raw_stream(device))
    return int(torch.cuda.current_stream(device).cuda_stream)


# Of the bodies below the dispatcher leaves out arguments that are equal to the schema's defaults.


def _on_cuda(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str,
             scale: float | None = None, precision: str = "given",
             with_lse: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    refuse_gradients(q, k, v)
    device = q.get_device()
    return launch(q, k, v, None, mask, scale, precision, with_lse, device, _stream(device))


def _out_on_cuda(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, mask: str,
                 scale: float | None = None, precision: str = "given",
                 with_lse: bool = False) -> torch.Tensor:
    refuse_gradients(q, k, v)
    device = q.get_device()
    return launch(q, k, v, out, mask, scale, precision, with_lse, device, _stream(device))[1]


def on_cpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str, scale: float | None,
           precision: str, with_lse: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Refuses tensors that are on no GPU. Tests put a body in its place."""
    raise DeviceError(
        f"q={shown(q)} is on {q.device}: the kernels run on GPUs only; move q, k and v there, or "
        "use torch.nn.functional.scaled_dot_product_attention")


def _on_cpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str,
            scale: float | None = None, precision: str = "given",
            with_lse: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    refuse_gradients(q, k, v)
    return on_cpu(q, k, v, mask, scale, precision, with_lse)


def _out_on_cpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, mask: str,
                scale: float | None = None, precision: str = "given",
                with_lse: bool = False) -> torch.Tensor:
    refuse_gradients(q, k, v)
    result, lse = on_cpu(q, k, v, mask, scale, precision, with_lse)
    out.copy_(result)
    return lse


def _fake_lse(q: torch.Tensor, with_lse: bool) -> torch.Tensor:
    batch, rows, heads, _ = q.shape
    return q.new_empty((batch, heads, rows) if with_lse else (0,), dtype=torch.float32)


def _fake(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str,
          scale: float | None = None, precision: str = "given",
          with_lse: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    check_rank("q", q.shape)
    refuse_gradients(q, k, v)
    return q.new_empty(q.shape), _fake_lse(q, with_lse)


def _fake_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, mask: str,
              scale: float | None = None, precision: str = "given",
              with_lse: bool = False) -> torch.Tensor:
    check_rank("q", q.shape)
    refuse_gradients(q, k, v)
    return _fake_lse(q, with_lse)


def _define() -> torch.library.Library:
    """Defines the operators. They live as long as what this returns."""
    library = torch.library.Library("fulgurite", "DEF")
    options = "str mask, float? scale=None, str precision='given', bool with_lse=False"
    tags = (torch.Tag.needs_fixed_stride_order, torch.Tag.pt2_compliant_tag)
    library.define(f"forward(Tensor q, Tensor k, Tensor v, {options}) -> (Tensor, Tensor)",
                   tags=tags)
    library.define(f"forward_out(Tensor q, Tensor k, Tensor v, Tensor(a!) out, {options}) -> "
                   "Tensor", tags=tags)
    for name, cuda, cpu, fake in (("forward", _on_cuda, _on_cpu, _fake),
                                  ("forward_out", _out_on_cuda, _out_on_cpu, _fake_out)):
        library.impl(name, cuda, "CUDA")
        library.impl(name, cpu, "CPU")
        torch.library.register_fake(f"fulgurite::{name}", fake, lib=library)
    return library


_library = _define()
_forward_op = torch.ops.fulgurite.forward.default
_forward_out_op = torch.ops.fulgurite.forward_out.default


def enable_transformers() -> str:
    """Registers attention with transformers and returns its name, "fulgurite", for
    `model.set_attn_implementation(fulgurite.torch.enable_transformers())`.

    Models then run in bf16 or f16 under `torch.no_grad()`, with batches that need no padding.
    What a model asks for beyond that raises `UnsupportedError` with its name.
    """
    from ._transformers import NAME, register
    register()
    return NAME
