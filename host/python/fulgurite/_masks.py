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

    `window(None, None)` is `FULL` and `window(None, 0)` is `CAUSAL`; others are computed where
    the call's lengths make them one of the two, and are otherwise not supported yet.

    Raises `ArgumentError` for ends that are no integers.
    """
    for name, end in (("left", left), ("right", right)):
        if end is not None and (isinstance(end, bool) or not isinstance(end, int)):
            raise ArgumentError(f"{name}={end!r} of a window: it must be an integer or None")
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
    """The mask of a kernel, "full" or "causal", that sees the same keys for these lengths.

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
    raise not_there("mask", mask, "use FULL, CAUSAL, or a window that is as wide as the keys")
