"""The shared library: where it is, and the one instance of it.

The structs and functions are those of `_interface`, the mirror of `fulgurite.h`.
"""
from __future__ import annotations

import ctypes
import os
import struct
import threading
from pathlib import Path

from . import _errors, _interface

VARIABLE = "FULGURITE_LIBRARY"
"""The environment variable that names the shared library."""

NAMES = ("libfulgurite.so", "libfulgurite_c.so")
"""Its names, as installed and as cargo builds it."""


def find() -> Path:
    """The file of the library: the one that FULGURITE_LIBRARY names, else one in the package's
    folder `lib`, else one beside the package's modules.

    Raises `InternalError` if there is none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if Path(named).is_file():
            return Path(named)
        raise _errors.InternalError(
            f"{VARIABLE} is {named!r}, which is no file: name libfulgurite.so, or unset it")
    package = Path(__file__).resolve().parent
    places = [folder / name for folder in (package / "lib", package) for name in NAMES]
    for place in places:
        if place.is_file():
            return place
    raise _errors.InternalError(
        f"no libfulgurite.so in {package / 'lib'}: install the wheel (`pip install fulgurite`), "
        f"or set {VARIABLE} to one that `cargo xtask dist` made")


pack_args = struct.Struct("11Q").pack
"""`fulgurite_forward_args` from its fields in their order: as bytes they are made in 0.13 us, as a
struct of ctypes in 0.9 us, by name in 3.1 us."""

ARGS_BYTES = 88
"""How many bytes those are."""


pack_backward_args = struct.Struct("13Q").pack
"""`fulgurite_backward_args` likewise."""

BACKWARD_ARGS_BYTES = 104
"""How many bytes those are."""


class Library(_interface.Library):
    """The shared library. What it refuses is one of the classes of `_errors`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(str(path))
        # By index, functions of their own: those by name take structs.
        self.launch_forward = self.functions["fulgurite_launch_forward"]
        self.launch_backward = self.functions["fulgurite_launch_backward"]
        for function in (self.launch_forward, self.launch_backward):
            function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
            function.restype = ctypes.c_int32

    def check(self, status: int) -> None:
        """Raises what the last call had to say, if `status`, which it returned, is not OK."""
        if status != _interface.OK:
            text = self.functions.fulgurite_last_error().decode(errors="replace")
            raise _errors.of_status(status, text)


_loaded: Library | None = None
_loading = threading.Lock()


def library() -> Library:
    """The library, loaded on first use.

    Raises `InternalError` if there is none or if it is of another version than this package.
    """
    global _loaded
    if _loaded is None:
        with _loading:
            if _loaded is None:
                _loaded = _load(find())
    return _loaded


def _load(path: Path) -> Library:
    try:
        return Library(path)
    except OSError as error:
        raise _errors.InternalError(f"{path} cannot be loaded: {error}") from error
    except _errors.Error:
        raise
    except (AttributeError, RuntimeError) as error:
        raise _errors.InternalError(
            f"{path} does not belong to this package: {error}") from error
