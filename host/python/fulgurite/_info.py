"""`info` and `preload`."""
from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from . import _counts, _interface
from ._errors import ArgumentError, Error, RequestError
from ._forward import Descale, Plan, Request, Tensor, family, preloaded
from ._library import library
from ._masks import CAUSAL, FULL, Mask

# Lengths between which kernels change, on both sides of each: powers of two.
_LENGTHS = [0] + [1 << bits for bits in range(6, 25)]


@dataclass(frozen=True)
class Device:
    """A GPU as the driver counts it: its name, and why the library cannot use it, if so."""

    ordinal: int
    name: str
    problem: str | None


@dataclass(frozen=True)
class Info:
    """What a report of an error should say, and what was counted so far. `print` it."""

    version: str
    """Version of this package and of its library."""
    library: str
    """The file of the shared library, or why there is none."""
    driver: str
    """The newest CUDA version of the driver, as "12.4", or why there is no driver."""
    devices: tuple[Device, ...]
    """The GPUs that the driver shows."""
    torch: str | None
    """Version of PyTorch, if it was imported."""
    python: str
    """Version of Python."""
    copies: int
    """Tensors that were copied, because no kernel can walk them as they lie: the last axis not
    contiguous, strides or addresses that are no multiples of 16 bytes."""

    def __str__(self) -> str:
        lines = [("Fulgurite", self.version), ("library", self.library),
                 ("CUDA of the driver", self.driver)]
        for device in self.devices:
            state = device.problem or "supported"
            lines.append((f"GPU {device.ordinal}", f"{device.name}: {state}"))
        lines += [("PyTorch", self.torch or "not imported"), ("Python", self.python),
                  ("copied tensors", str(self.copies))]
        return "\n".join(f"{name:<20} {value}" for name, value in lines)


def info() -> Info:
    """The machine as this package sees it. Makes no CUDA context and never raises for what is
    missing: it says so."""
    try:
        at = str(library().path)
    except Error as error:
        at = f"MISSING: {error}"
    torch = sys.modules.get("torch")
    driver, devices = _driver()
    return Info(version=_interface.VERSION, library=at, driver=driver, devices=devices,
                torch=str(torch.__version__) if torch is not None else None,
                python=sys.version.split()[0], copies=_counts.copies)


def _driver() -> tuple[str, tuple[Device, ...]]:
    """The driver's CUDA version and its GPUs."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"MISSING: {error}", ()
    code = driver.cuInit(0)
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    number = f"{version.value // 1000}.{version.value % 1000 // 10}"
    if code != 0:
        return f"{number}; cuInit fails with code {code}", ()
    driver.cuDeviceGetCount(ctypes.byref(count))
    return number, tuple(_device(driver, ordinal) for ordinal in range(count.value))


def _device(driver: ctypes.CDLL, ordinal: int) -> Device:
    handle, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(handle), ordinal)
    driver.cuDeviceGetName(name, len(name), handle)
    try:
        loaded = library()
        loaded.check(loaded.functions.fulgurite_device_supported(ordinal))
        problem = None
    except Error as error:
        problem = str(error)
    return Device(ordinal, name.value.decode(errors="replace"), problem)


def preload(dtype: object = "bf16", head_dim: int = 128, mask: Mask = CAUSAL, *,
            precision: str = "given", device: int = 0) -> tuple[str, ...]:
    """Loads every kernel that calls with this element type, head dim, mask and precision may take,
    whatever their lengths, and returns their names.

    dtype: "bf16", "f16", "e4m3", or PyTorch's. mask: `FULL` or `CAUSAL`. device: the GPU's ordinal.
    The driver compiles a kernel on its first use on a machine, in 0.3 to 2.7 seconds. After this
    such calls may also be captured into CUDA graphs without a call before the capture.

    Raises what `attention` raises for such a call.
    """
    name = str(dtype).removeprefix("torch.")
    name = {"bfloat16": "bf16", "float16": "f16", "half": "f16",
            "float8_e4m3fn": "e4m3"}.get(name, name)
    if name not in _interface.DTYPES:
        raise ArgumentError(f"dtype={dtype!r}: it must be 'bf16', 'f16' or 'e4m3'")
    if mask is not FULL and mask is not CAUSAL:
        raise ArgumentError(f"mask={mask!r}: it must be fulgurite.FULL or fulgurite.CAUSAL")
    if isinstance(head_dim, bool) or not isinstance(head_dim, int) or head_dim < 1:
        raise RequestError(f"head_dim={head_dim!r}: it must be an integer from 1 on")
    entries: dict[str, None] = {}
    requests = _family(name, head_dim, mask.name, precision)
    for request in requests:
        entry = Plan(request, device).entry()
        if entry:
            entries[entry] = None
    preloaded.add(family(requests[0], device))
    return tuple(entries)


def _family(dtype: str, head_dim: int, mask: str, precision: str) -> list[Request]:
    """Calls of all lengths, with rows that see no key and without. Those of e4m3 without keys are
    computed in the output's type."""
    is_e4m3 = dtype == "e4m3"
    descale = (Descale("one"),) * 3 if is_e4m3 else None
    requests = []
    for kv_len in _LENGTHS:
        for q_len in (max(kv_len, 1), kv_len + 1024):
            q = Tensor.contiguous(dtype, (1, q_len, 1, head_dim))
            kv = Tensor.contiguous(dtype, (1, kv_len, 1, head_dim))
            for out in ("bf16", "f16") if is_e4m3 else (dtype,):
                requests.append(Request(q, kv, kv, q._replace(dtype=out), mask, None, precision,
                                        False, descale))
    return requests
