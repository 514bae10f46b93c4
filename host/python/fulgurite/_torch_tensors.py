"""PyTorch's tensors as plans see them, and what all its operators share."""
from __future__ import annotations

import torch

from . import _counts
from ._errors import RequestError, UnsupportedError
from ._forward import Tensor, check_rank

DTYPES: dict[torch.dtype, str] = {
    torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32",
    torch.float8_e4m3fn: "e4m3", torch.uint8: "u8", torch.int8: "i8", torch.int32: "i32",
    torch.int64: "i64"}
"""The names of element types."""

PLANS_MOST = 4096
"""Kinds of calls whose plans are kept; beyond them the oldest is forgotten."""


def described(name: str, tensor: torch.Tensor, device: torch.device) -> Tensor:
    """A tensor as plans see it."""
    check_rank(name, tensor.shape)
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UnsupportedError(f"{name} has elements of type {tensor.dtype}: convert it to "
                               "torch.bfloat16, torch.float16 or torch.float8_e4m3fn")
    check_device(name, tensor, device)
    return Tensor(dtype, tuple(tensor.shape), tuple(tensor.stride()))


def check_device(name: str, tensor: torch.Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise RequestError(f"{name} is on {tensor.device}, q on {device}: all tensors must be on "
                           f"one device; move {name}")


def contiguous_copies(tensors: tuple[torch.Tensor, ...], wanted: tuple[bool, ...]) -> list[torch.Tensor]:
    """Contiguous copies of those that are wanted, or whose address is no multiple of 16."""
    copies = [tensor.clone(memory_format=torch.contiguous_format)
              if is_wanted or tensor.data_ptr() & 15 else tensor
              for tensor, is_wanted in zip(tensors, wanted)]
    _counts.copies += sum(copy is not tensor for copy, tensor in zip(copies, tensors))
    return copies


# The stream's address, without a Python object around it.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)


def stream_of(device: int) -> int:
    if _raw_stream is not None:
        return int(_raw_stream(device))
    return int(torch.cuda.current_stream(device).cuda_stream)
