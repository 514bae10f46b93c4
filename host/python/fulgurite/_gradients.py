"""The gradients of a forward call without a framework: what a kernel can walk, plans, launches."""
from __future__ import annotations

import ctypes
from typing import NamedTuple

from . import _interface
from ._errors import RequestError
from ._forward import Prepared, Request, Tensor, layout, needs_copy, request_struct
from ._forward import walkable as walkable_forward
from ._library import BACKWARD_ARGS_BYTES, library, pack_backward_args


class Gradients(NamedTuple):
    """The gradients of a forward call with a log-sum-exp: everything but addresses."""

    forward: Request
    d_out: Tensor
    with_d_lse: bool


def check_rows(name: str, numbers: Tensor, q: Tensor) -> None:
    """Raises `RequestError` unless these are one float32 for each row of q: the library sees no
    more of them than an address."""
    batch, rows, heads, _ = q.shape
    if numbers.dtype != "f32" or numbers.shape != (batch, heads, rows):
        raise RequestError(f"{name} has elements of type {numbers.dtype} and the shape "
                           f"{numbers.shape}: it must be float32 (batch, heads, rows) "
                           f"{(batch, heads, rows)}")


def walkable(request: Gradients) -> tuple[Gradients, tuple[bool, ...]]:
    """The request with contiguous copies for what no kernel can walk, and which of q, k, v, out and
    d_out those are."""
    forward, copied = walkable_forward(request.forward)
    out, d_out = forward.out, request.d_out
    more = needs_copy(out), needs_copy(d_out)
    if more[0]:
        forward = forward._replace(out=Tensor.contiguous(out.dtype, out.shape))
    if more[1]:
        d_out = Tensor.contiguous(d_out.dtype, d_out.shape)
    return Gradients(forward, d_out, request.with_d_lse), copied + more


def _struct(request: Gradients, device: int) -> _interface.BackwardRequest:
    """The request as the C interface takes it, with contiguous gradients."""
    forward = request_struct(request.forward, device)
    dq, dk, dv = (layout(Tensor.contiguous(tensor.dtype, tensor.shape))
                  for tensor in request.forward[:3])
    return _interface.BackwardRequest(
        forward=ctypes.pointer(forward), d_out=layout(request.d_out), dq=dq, dk=dk, dv=dv,
        with_d_lse=int(request.with_d_lse))


class GradientPlan(Prepared):
    """A plan of gradients."""

    __slots__ = ()

    def __init__(self, request: Gradients, device: int) -> None:
        loaded = library()
        plan = loaded.plan_backward(_struct(request, device))
        super().__init__(loaded, plan, loaded.launch_backward)

    def run(self, stream: int, read: tuple[int, ...], written: tuple[int, ...], d_lse: int,
            workspace: int, device: int) -> None:
        """Enqueues the kernels: `read` are the addresses of q, k, v, out, lse and d_out, `written`
        those of dq, dk and dv. The workspace is as that of a forward call."""
        size = self.workspace_bytes
        if size:
            self._check(self._functions.fulgurite_workspace_reset(device, stream, workspace, size))
        status = self.launch(self.handle, stream, pack_backward_args(
            BACKWARD_ARGS_BYTES, *read, *written, d_lse, workspace, size))
        if status:
            self._check(status)
