"""Exact attention for NVIDIA Hopper GPUs, with kernels written in Rust.

`attention` computes `softmax(scale * q k^T + mask) v`. `fulgurite.flash_attn` and
`fulgurite.flash_attn_interface` have the names of FlashAttention-2 and FlashAttention-3;
`fulgurite.torch` has the operators and the registration with transformers.
"""
import importlib
from typing import Any

from ._attention import (attention, cached_attention, merge, quantise_kv, tile_mask, write_kv)
from ._errors import (AddressError, ArgumentError, DeviceError, DriverError, Error, InternalError,
                      RequestError, UnsupportedError)
from ._info import Device, Info, info, preload
from ._interface import VERSION as __version__
from ._masks import CAUSAL, FULL, Mask, chunk, prefix, row_keys, window

__all__ = [
    "AddressError", "ArgumentError", "CAUSAL", "Device", "DeviceError", "DriverError", "Error",
    "FULL", "Info", "InternalError", "Mask", "RequestError", "UnsupportedError", "__version__",
    "attention", "cached_attention", "chunk", "info", "merge", "prefix", "preload", "quantise_kv",
    "row_keys", "tile_mask", "window", "write_kv",
]


def __getattr__(name: str) -> Any:
    """The modules that are imported when they are first named: one of them needs PyTorch."""
    if name in ("flash_attn", "flash_attn_interface", "torch"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
