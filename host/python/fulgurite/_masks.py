"""Masks: which keys a query row sees."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._errors import ArgumentError, RequestError, not_there, shown


@dataclass(frozen=True, eq=False)
class Mask:
    """Which keys a query row sees. Made by `FULL`, `CAUSAL`, `window`, `chunk`, `prefix`,
    `row_keys`; `name` is how records and the operator `torch.ops.fulgurite.forward` call it."""

    name: str
    left: int | None = None
    right: int | None = None
    tensor: Any = None

    def __repr__(self) -> str:
        return f"fulgurite mask {self.name}"


FULL = Mask("full")
"""Every key."""

CAUSAL = Mask("causal")
"""Keys `col <= row + kv_len - q_len` (aligned bottom right); a row without keys gives 0."""


def window(left: int | None, right: int | None) -> Mask:
    """Keys `row + kv_len - q_len - left <= col <= row + kv_len - q_len + right`, both ends
    included; None: unbounded. 1024 keys, the row's own among them: `window(1023, 0)`.

    Negative numbers are offsets: `window(None, -1)` ends before the row's own key. In 8 bits only
    windows that are as wide as the call's lengths have a kernel.

    Raises `ArgumentError` for ends that are no integers of 32 bits, `RequestError` for a window
    that holds no key.
    """
    for name, end in (("left", left), ("right", right)):
        if end is not None and (isinstance(end, bool) or not isinstance(end, int)):
            raise ArgumentError(f"{name}={end!r} of a window: it must be an integer or None")
        if end is not None and not -(1 << 31) <= end < 1 << 31:
            raise ArgumentError(f"{name}={end!r} of a window: it must fit 32 bits, or be None")
    if left is not None and right is not None and left + right < 0:
        raise RequestError(
            f"a window from {left} keys before a row's position to {right} behind it holds none: "
            "left plus right must be at least 0")
    ends = ["*" if end is None else str(end) for end in (left, right)]
    return Mask("window:" + ":".join(ends), left, right)


def chunk(size: int, causal: bool = True) -> Mask:
    """Keys of the row's own chunk of `size` keys. Not supported by `attention` yet."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise RequestError(f"size={size!r} of a chunk: it must be an integer from 1 on")
    return Mask(f"chunk:{size}" if causal else f"chunk:{size}:full")


def prefix(lengths: Any) -> Mask:
    """A causal mask in which the first `lengths[batch]` keys are seen by all rows. int32, on the
    device. Not supported by `attention` yet."""
    return Mask("prefix", tensor=lengths)


def row_keys(tensor: Any) -> Mask:
    """A range of keys for each row: uint32 of shape (.., 2). Not supported by `attention` yet."""
    return Mask("rows", tensor=tensor)


def kernel_mask(mask: object, q_len: int, kv_len: int) -> str:
    """The simplest mask that sees the same keys for these lengths: "full", "causal" or the
    window by its name.

    Raises `ArgumentError` for what is no mask, `UnsupportedError` for one without a kernel.
    """
    if not isinstance(mask, Mask):
        raise ArgumentError(
            f"mask={shown(mask)}: it must be fulgurite.FULL, fulgurite.CAUSAL or one made by "
            "fulgurite.window and its like")
    if mask.name in ("full", "causal"):
        return mask.name
    if mask.name.startswith("window:"):
        # The last row begins furthest right, the first one ends furthest left.
        unbounded_left = mask.left is None or mask.left >= kv_len - 1
        unbounded_right = mask.right is None or mask.right >= q_len - 1
        if unbounded_left and unbounded_right:
            return "full"
        if unbounded_left and mask.right == 0:
            return "causal"
        return mask.name
    raise not_there("mask", mask, "use FULL, CAUSAL or a window")


def ends_of(name: str) -> tuple[str, int | None, int | None]:
    """The kind of a kernel's mask and the ends of a window, by its name.

    Raises `ArgumentError` for what is no name of such a mask.
    """
    if name in ("full", "causal"):
        return name, None, None
    kind, _, ends = name.partition(":") if isinstance(name, str) else ("", "", "")
    try:
        left, right = (None if end == "*" else int(end) for end in ends.split(":"))
    except ValueError:
        kind = ""
    if kind != "window":
        raise ArgumentError(f"mask={name!r} of the operator: it must be 'full', 'causal' or "
                            "'window:LEFT:RIGHT', * for an end that is unbounded")
    return kind, left, right
