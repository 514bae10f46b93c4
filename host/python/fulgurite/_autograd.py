"""PyTorch: the operator `torch.ops.fulgurite.backward`, and the function that autograd knows.

The operator is none of autograd's own: one with `register_autograd` costs 3.4 us more a call, also
where no gradient is needed (5.9 against 2.5 us).
"""
from __future__ import annotations

from typing import Any

import torch

from ._errors import DeviceError, DriverError, UnsupportedError, shown
from ._forward import Request, Tensor, check_rank
from ._gradients import GradientPlan, Gradients, check_rows, walkable
from ._torch_tensors import (DTYPES, PLANS_MOST, check_device, contiguous_copies, described,
                             stream_of)

Gradients3 = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Those of q, k and v."""

_plans: dict[tuple[Any, ...], tuple[GradientPlan, tuple[bool, ...]]] = {}


class Attention(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Output and log-sum-exp, both with gradients."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str,
                scale: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = torch.ops.fulgurite.forward.default(q, k, v, mask, scale, "given", True)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.mask, ctx.scale = mask, scale
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        d_out, d_lse = gradients
        q, k, v, out, lse = ctx.saved_tensors
        if d_out is None and d_lse is None:
            return None, None, None, None, None
        if d_out is None:
            d_out = torch.zeros_like(out)
        return (*backward_op(d_out, q, k, v, out, lse, ctx.mask, ctx.scale, d_lse), None, None)


def _empty(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Gradients3:
    """Contiguous tensors for the gradients."""
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def refuse_second(*tensors: torch.Tensor | None) -> None:
    """Raises `UnsupportedError` where gradients would have to flow through gradients."""
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors):
        raise UnsupportedError("gradients of gradients are not supported: leave create_graph at "
                               "False")


def launch(d_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
           out: torch.Tensor, lse: torch.Tensor, mask: str, scale: float | None,
           d_lse: torch.Tensor | None, device: int, stream: int) -> Gradients3:
    """Plans the gradients, if none like them came before, and enqueues their kernels."""
    lse = lse.contiguous()
    d_lse = None if d_lse is None else d_lse.contiguous()
    read = (q, k, v, out, d_out)
    of_rows = {"lse": lse} if d_lse is None else {"lse": lse, "d_lse": d_lse}
    key = (device, mask, scale, *((one.dtype, one.shape, one.stride(), one.device)
                                  for one in (*read, *of_rows.values())))
    known = _plans.get(key)
    if known is None:
        queries, keys, values, result, of_out = (
            described(name, tensor, q.device)
            for name, tensor in zip(("q", "k", "v", "out", "d_out"), read))
        for name, numbers in of_rows.items():
            check_device(name, numbers, q.device)
            dtype = DTYPES.get(numbers.dtype, str(numbers.dtype))
            check_rows(name, Tensor(dtype, tuple(numbers.shape), numbers.stride()), queries)
        forward = Request(queries, keys, values, result, mask, scale, "given", True)
        request, copied = walkable(Gradients(forward, of_out, d_lse is not None))
        known = GradientPlan(request, device), copied
        if len(_plans) >= PLANS_MOST:
            _plans.pop(next(iter(_plans)), None)
        _plans[key] = known
    plan, copied = known
    if any(copied) or any(one.data_ptr() & 15 for one in read):
        copies = contiguous_copies(read, copied)
        if not any(copied):
            # Copies of misaligned tensors may have other strides, and are another kind of call.
            q, k, v, out, d_out = copies
            return launch(d_out, q, k, v, out, lse, mask, scale, d_lse, device, stream)
        q, k, v, out, d_out = copies
    gradients = _empty(q, k, v)
    memory = q.new_empty(max(plan.workspace_bytes, 1), dtype=torch.uint8)
    addresses = [one.data_ptr() for one in (q, k, v, out, lse, d_out)]
    try:
        plan.run(stream, tuple(addresses), tuple(one.data_ptr() for one in gradients),
                 0 if d_lse is None else d_lse.data_ptr(), memory.data_ptr(), device)
    except DriverError:
        # The context may have been reset: the next call plans anew.
        _plans.pop(key, None)
        raise
    return gradients


def _on_cuda(d_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
             out: torch.Tensor, lse: torch.Tensor, mask: str, scale: float | None = None,
             d_lse: torch.Tensor | None = None) -> Gradients3:
    refuse_second(d_out, q, k, v, out, lse, d_lse)
    device = q.get_device()
    return launch(d_out, q, k, v, out, lse, mask, scale, d_lse, device, stream_of(device))


def on_cpu(d_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
           out: torch.Tensor, lse: torch.Tensor, mask: str, scale: float | None,
           d_lse: torch.Tensor | None) -> Gradients3:
    """Refuses tensors that are on no GPU. Tests put a body in its place."""
    raise DeviceError(f"q={shown(q)} is on {q.device}: the kernels run on GPUs only")


def _on_cpu(d_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
            out: torch.Tensor, lse: torch.Tensor, mask: str, scale: float | None = None,
            d_lse: torch.Tensor | None = None) -> Gradients3:
    refuse_second(d_out, q, k, v, out, lse, d_lse)
    return on_cpu(d_out, q, k, v, out, lse, mask, scale, d_lse)


def _fake(d_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
          out: torch.Tensor, lse: torch.Tensor, mask: str, scale: float | None = None,
          d_lse: torch.Tensor | None = None) -> Gradients3:
    check_rank("q", q.shape)
    refuse_second(d_out, q, k, v, out, lse, d_lse)
    return _empty(q, k, v)


def define(library: torch.library.Library, tags: tuple[torch.Tag, ...]) -> None:
    """Defines the operator in the library of the others."""
    library.define("backward(Tensor d_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
                   "str mask, float? scale=None, Tensor? d_lse=None) -> "
                   "(Tensor, Tensor, Tensor)", tags=tags)
    library.impl("backward", _on_cuda, "CUDA")
    library.impl("backward", _on_cpu, "CPU")
    torch.library.register_fake("fulgurite::backward", _fake, lib=library)


def backward_op(*arguments: Any) -> Gradients3:
    """The operator."""
    dq, dk, dv = torch.ops.fulgurite.backward.default(*arguments)
    return dq, dk, dv
