"""Exceptions: one class for each status of the C interface, all of them `fulgurite.Error`."""
from __future__ import annotations

from typing import Any

from . import _interface


class Error(_interface.Error):
    """What was got, what is allowed, what to do. Nothing was launched or written.

    `status` is the number of the C interface (`fulgurite.h`).
    """

    status: int = 0

    def __init__(self, text: str) -> None:
        RuntimeError.__init__(self, text)


class ArgumentError(Error, ValueError):
    """An argument that stands for nothing: a name, a type, a struct's size."""

    status = 1


class RequestError(Error, ValueError):
    """Shapes, strides, scale: a request that makes no sense."""

    status = 2


class AddressError(Error, ValueError):
    """A buffer whose address is null or misaligned, one missing or too many."""

    status = 3


class DeviceError(Error):
    """No driver, a stub or one too old, no such device, or one that no kernel runs on."""

    status = 4


class DriverError(Error):
    """A call of the driver failed, the context was reset, or the process forked."""

    status = 5


class InternalError(Error):
    """An error of this library, or an installation that lacks a part of it."""

    status = 6


class UnsupportedError(Error, NotImplementedError):
    """A request that makes sense, but that nothing here computes yet."""

    status = 7


CLASSES: tuple[type[Error], ...] = (ArgumentError, RequestError, AddressError, DeviceError,
                                    DriverError, InternalError, UnsupportedError)


def of_status(status: int, text: str) -> Error:
    """The exception of a status that is not OK."""
    for kind in CLASSES:
        if kind.status == status:
            return kind(text)
    return InternalError(f"status {status}, which this package does not know: {text}")


def not_there(name: str, value: object, instead: str = "") -> UnsupportedError:
    """The exception for an argument that nothing here computes yet: names it and its value."""
    hint = f": {instead}" if instead else ": leave it at its default"
    return UnsupportedError(f"{name}={shown(value)} is not supported yet{hint}")


def refuse(**values: Any) -> None:
    """Raises `UnsupportedError` for the first argument that is not None."""
    for name, value in values.items():
        if value is not None:
            raise not_there(name, value)


def shown(value: object) -> str:
    """A value in a text: an array by its type and shape, anything else as Python writes it."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return repr(value)
