"""PyTorch: the operators `torch.ops.fulgurite.forward`, `forward_out` and `backward`, and the
registration with transformers. Importing this module registers the operators.

They take what `fulgurite.attention` takes, the mask as "full" or "causal", and always return a
log-sum-exp, without elements if none was asked for. Its `descale` is `descale_q`, `descale_k` and
`descale_v` there; those left out are 1 if another is given, or if `with_descale` says so.
"""
from __future__ import annotations

from typing import Any

import torch

from . import _autograd
from ._errors import ArgumentError, DeviceError, DriverError, UnsupportedError, shown
from ._forward import (Descale, Plan, Request, Tensor, check_rank, descale_of, family, preloaded,
                       walkable)
from ._masks import ends_of
from ._torch_tensors import (DTYPES, PLANS_MOST, check_device, contiguous_copies, described,
                             stream_of)

__all__ = ["DTYPES", "enable_transformers"]

Descales = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""What the stored numbers of q, k and v are multiplied with; None: 1."""

# Plans by what a call looks like.
_plans: dict[tuple[Any, ...], _Call] = {}


class _Call:
    """What is known about calls of one kind."""

    __slots__ = ("plan", "copies", "is_copied", "out_shape", "out_dtype", "is_like_q", "lse_shape",
                 "no_lse")

    def __init__(self, plan: Plan, copied: tuple[bool, ...], q: torch.Tensor) -> None:
        self.plan, self.copies, self.is_copied = plan, copied, any(copied)
        batch, rows, heads, _ = self.out_shape = tuple(q.shape)
        self.lse_shape = (batch, heads, rows)
        self.out_dtype = out_dtype(q.dtype)
        # Where q is contiguous, as outputs are, there is a quicker way to allocate one (1.2 against
        # 2.2 us); and a view of a tensor without elements is quicker made than another (0.35
        # against 0.85 us).
        self.is_like_q = q.is_contiguous() and q.dtype == self.out_dtype
        with torch.inference_mode(False):
            self.no_lse = q.new_empty((0,), dtype=torch.float32)


def out_dtype(dtype: torch.dtype) -> torch.dtype:
    """The element type of an output that is not given, by that of q."""
    return torch.bfloat16 if dtype == torch.float8_e4m3fn else dtype


def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str, scale: float | None,
            precision: str, out: torch.Tensor | None, return_lse: bool,
            descale: tuple[Any, ...] | None = None) -> Any:
    """`fulgurite.attention` on tensors of PyTorch, after its checks; `mask` is the name of
    a kernel's."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        result, lse = _with_gradients(q, k, v, mask, scale, precision, out, descale)
        return (result, lse) if return_lse else result
    # To unpack no arguments, here and in `launch`, costs 0.35 us.
    if descale is not None:
        said = (mask, scale, precision, return_lse, *_tensors(descale), True)
        if out is None:
            result, lse = _forward_op(q, k, v, *said)
        else:
            result, lse = out, _forward_out_op(q, k, v, out, *said)
    elif out is None:
        result, lse = _forward_op(q, k, v, mask, scale, precision, return_lse)
    else:
        result, lse = out, _forward_out_op(q, k, v, out, mask, scale, precision, return_lse)
    return (result, lse) if return_lse else result


def _with_gradients(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str,
                    scale: float | None, precision: str, out: torch.Tensor | None,
                    descale: tuple[Any, ...] | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and log-sum-exp, through which gradients flow.

    Raises `UnsupportedError` for calls that have none.
    """
    given = {"precision": None if precision == "given" else precision, "descale": descale,
             "out": out}
    for name, value in given.items():
        if value is not None:
            raise UnsupportedError(
                f"gradients of a call with {name}={shown(value)} are not supported: leave it at "
                "its default, call under torch.no_grad(), or pass detached tensors")
    result, lse = _autograd.Attention.apply(q, k, v, mask, scale)
    return result, lse


def check_descale(q: torch.Tensor, k: torch.Tensor, descale: tuple[Any, ...]) -> None:
    """Raises what a call of q and k with these descales would raise of them."""
    queries, keys = described("q", q, q.device), described("k", k, q.device)
    described_descale(queries, keys, q.device, _tensors(descale))


def _tensors(descale: tuple[Any, ...]) -> Descales:
    """Descales that are tensors of PyTorch, or None.

    Raises `ArgumentError` for arrays of other frameworks.
    """
    for name, one in zip("qkv", descale):
        if not (one is None or isinstance(one, torch.Tensor)):
            raise ArgumentError(f"the descale of {name} is {shown(one)}: beside a q of PyTorch it "
                                "must be a tensor of PyTorch")
    of_q, of_k, of_v = descale
    return of_q, of_k, of_v


def padded(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    """The tensor with so many columns of zeros behind its own."""
    return torch.nn.functional.pad(tensor, [0, columns])


def refuse_gradients(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
                     descale: Descales | None = None) -> None:
    """Raises `UnsupportedError` where gradients would have to flow through an operator, which has
    none of its own: see `_autograd`."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        names = [name for name, tensor in zip("qkv", (q, k, v)) if tensor.requires_grad]
        raise UnsupportedError(
            f"the operator has no gradients, but {', '.join(names)} requires some: call "
            "fulgurite.attention, which has, or call under torch.no_grad()")
    if descale is not None and torch.is_grad_enabled():
        for name, one in zip("qkv", descale):
            if one is not None and one.requires_grad:
                raise UnsupportedError(f"there is no gradient of a descale, but that of {name} "
                                       "requires one: pass a detached tensor")


def described_descale(q: Tensor, k: Tensor, device: torch.device,
                      descale: Descales) -> tuple[Descale, Descale, Descale]:
    """What the tensors' stored numbers are multiplied with, as plans see it.

    Raises `RequestError` for numbers on another device, and what `descale_of` raises.
    """
    def described(name: str, one: torch.Tensor | None) -> Descale:
        if one is None:
            return descale_of(name, None, q, k)
        check_device(f"the descale of {name}", one, device)
        dtype = DTYPES.get(one.dtype, str(one.dtype))
        return descale_of(name, Tensor(dtype, tuple(one.shape), tuple(one.stride())), q, k)

    return described("q", descale[0]), described("k", descale[1]), described("v", descale[2])


def _described_call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None,
                    mask: str, scale: float | None, precision: str, with_lse: bool,
                    descale: Descales | None) -> Request:
    """A call as plans see it. An output that is not given is contiguous."""
    ends_of(mask)
    queries, keys, values = (described(name, tensor, q.device)
                             for name, tensor in (("q", q), ("k", k), ("v", v)))
    if out is None:
        result = Tensor.contiguous(DTYPES[out_dtype(q.dtype)], queries.shape)
    else:
        result = described("out", out, q.device)
    numbers = None if descale is None else described_descale(queries, keys, q.device, descale)
    return Request(queries, keys, values, result, mask, scale, precision, with_lse, numbers)


def _plan(key: tuple[Any, ...], request: Request, q: torch.Tensor, device: int) -> _Call:
    """Makes the plan of a new kind of call and keeps it."""
    request, copied = walkable(request)
    if _is_capturing(device) and family(request, device) not in preloaded:
        raise DriverError(
            "a stream is being captured into a CUDA graph, and no call like this one came before: "
            "the first one loads its kernel, which a capture does not allow; make the call once "
            "before the capture, or fulgurite.preload(...)")
    call = _Call(Plan(request, device), copied, q)
    if len(_plans) >= PLANS_MOST:
        _plans.pop(next(iter(_plans)), None)
    _plans[key] = call
    return call


def launch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None, mask: str,
           scale: float | None, precision: str, with_lse: bool, device: int, stream: int,
           descale: Descales | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Plans the call, if none like it came before, and enqueues its kernels on the stream. Outputs
    and the workspace come from PyTorch's allocator."""
    key = (q.dtype, q.shape, q.stride(), k.dtype, k.shape, k.stride(), v.dtype, v.shape,
           v.stride(), k.device, v.device, device, mask, scale, precision, with_lse,
           None if out is None else (out.dtype, out.shape, out.stride(), out.device),
           None if descale is None else tuple(map(_likeness, descale)))
    call = _plans.get(key)
    if call is None:
        request = _described_call(q, k, v, out, mask, scale, precision, with_lse, descale)
        call = _plan(key, request, q, device)
    plan = call.plan
    at_q, at_k, at_v = q.data_ptr(), k.data_ptr(), v.data_ptr()
    if (at_q | at_k | at_v) & 15:
        # Their copies may have other strides, and are another kind of call.
        q, k, v = contiguous_copies((q, k, v), call.copies)
        return launch(q, k, v, out, mask, scale, precision, with_lse, device, stream, descale)
    if call.is_copied:
        q, k, v = contiguous_copies((q, k, v), call.copies)
        at_q, at_k, at_v = q.data_ptr(), k.data_ptr(), v.data_ptr()
    if out is not None:
        result = out
    elif call.is_like_q:
        result = torch.empty_like(q)
    else:
        result = q.new_empty(call.out_shape, dtype=call.out_dtype)
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
        if descale is None:
            plan.run(stream, at_q, at_k, at_v, result.data_ptr(), at_lse, workspace, device)
        else:
            plan.run(stream, at_q, at_k, at_v, result.data_ptr(), at_lse, workspace, device,
                     *map(_address, descale))
    except DriverError:
        # The context may have been reset: the next call plans anew.
        _plans.pop(key, None)
        raise
    return result, lse


def _likeness(numbers: torch.Tensor | None) -> tuple[Any, ...] | None:
    """What of a descale decides its plan."""
    if numbers is None:
        return None
    return (numbers.dtype, numbers.shape, numbers.stride(), numbers.device)


def _address(numbers: torch.Tensor | None) -> int:
    return 0 if numbers is None else numbers.data_ptr()


def _is_capturing(device: int) -> bool:
    """Whether the current stream of a device is being captured."""
    if not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_current_stream_capturing())


# Of the bodies below the dispatcher leaves out arguments that are equal to the schema's defaults.
# `numbers` are the schema's last arguments, those of `_said`.


def _said(descale_q: torch.Tensor | None = None, descale_k: torch.Tensor | None = None,
          descale_v: torch.Tensor | None = None, with_descale: bool = False) -> Descales | None:
    """The descales of a call; None if nothing is said of any. `with_descale` says that those which
    are left out are 1, which one that is given says of the others too."""
    if with_descale or not (descale_q is descale_k is descale_v is None):
        return descale_q, descale_k, descale_v
    return None


def _on_cuda(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str,
             scale: float | None = None, precision: str = "given",
             with_lse: bool = False, *numbers: Any) -> tuple[torch.Tensor, torch.Tensor]:
    descale = _said(*numbers) if numbers else None
    refuse_gradients(q, k, v, descale)
    device = q.get_device()
    return launch(q, k, v, None, mask, scale, precision, with_lse, device, stream_of(device),
                  descale)


def _out_on_cuda(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, mask: str,
                 scale: float | None = None, precision: str = "given",
                 with_lse: bool = False, *numbers: Any) -> torch.Tensor:
    descale = _said(*numbers) if numbers else None
    refuse_gradients(q, k, v, descale)
    device = q.get_device()
    return launch(q, k, v, out, mask, scale, precision, with_lse, device, stream_of(device),
                  descale)[1]


def on_cpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str, scale: float | None,
           precision: str, with_lse: bool,
           descale: Descales | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Refuses tensors that are on no GPU. Tests put a body in its place."""
    raise DeviceError(
        f"q={shown(q)} is on {q.device}: the kernels run on GPUs only; move q, k and v there, or "
        "use torch.nn.functional.scaled_dot_product_attention")


def _on_cpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str,
            scale: float | None = None, precision: str = "given",
            with_lse: bool = False, *numbers: Any) -> tuple[torch.Tensor, torch.Tensor]:
    descale = _said(*numbers) if numbers else None
    refuse_gradients(q, k, v, descale)
    return on_cpu(q, k, v, mask, scale, precision, with_lse, descale)


def _out_on_cpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, mask: str,
                scale: float | None = None, precision: str = "given",
                with_lse: bool = False, *numbers: Any) -> torch.Tensor:
    descale = _said(*numbers) if numbers else None
    refuse_gradients(q, k, v, descale)
    result, lse = on_cpu(q, k, v, mask, scale, precision, with_lse, descale)
    out.copy_(result)
    return lse


def _fake_lse(q: torch.Tensor, with_lse: bool) -> torch.Tensor:
    batch, rows, heads, _ = q.shape
    return q.new_empty((batch, heads, rows) if with_lse else (0,), dtype=torch.float32)


def _fake(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: str,
          scale: float | None = None, precision: str = "given",
          with_lse: bool = False, *numbers: Any) -> tuple[torch.Tensor, torch.Tensor]:
    check_rank("q", q.shape)
    descale = _said(*numbers) if numbers else None
    refuse_gradients(q, k, v, descale)
    return q.new_empty(q.shape, dtype=out_dtype(q.dtype)), _fake_lse(q, with_lse)


def _fake_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, mask: str,
              scale: float | None = None, precision: str = "given",
              with_lse: bool = False, *numbers: Any) -> torch.Tensor:
    check_rank("q", q.shape)
    descale = _said(*numbers) if numbers else None
    refuse_gradients(q, k, v, descale)
    return _fake_lse(q, with_lse)


def _define() -> torch.library.Library:
    """Defines the operators. They live as long as what this returns."""
    library = torch.library.Library("fulgurite", "DEF")
    options = "str mask, float? scale=None, str precision='given', bool with_lse=False, " \
        "Tensor? descale_q=None, Tensor? descale_k=None, Tensor? descale_v=None, " \
        "bool with_descale=False"
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
    _autograd.define(library, tags)
    return library


_library = _define()
_forward_op = torch.ops.fulgurite.forward.default
_forward_out_op = torch.ops.fulgurite.forward_out.default


def enable_transformers() -> str:
    """Registers attention with transformers and returns its name, "fulgurite", for
    `model.set_attn_implementation(fulgurite.torch.enable_transformers())`.

    Models then run and train in bf16 or f16, with batches that need no padding.
    What a model asks for beyond that raises `UnsupportedError` with its name.
    """
    from ._transformers import NAME, register
    register()
    return NAME
