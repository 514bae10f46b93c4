"""What `fulgurite.attention` and its masks refuse before they need PyTorch or a GPU."""
from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

import fulgurite
from conftest import PACKAGE
from fulgurite import _errors, _forward, _masks
from fulgurite._forward import Tensor


@dataclass
class Array:
    """Something with a shape, which is all that is looked at first."""

    shape: tuple[int, ...]


Q, KV = Array((2, 100, 8, 64)), Array((2, 200, 2, 64))


def attend(mask: object = fulgurite.CAUSAL, q: Any = Q, **options: Any) -> Any:
    return fulgurite.attention(q, KV, KV, mask, **options)


@pytest.mark.parametrize("name", ["softcap", "bias", "score", "sinks", "cu_q", "cu_k", "used_q",
                                  "used_k", "first_k"])
def test_what_is_not_there_yet_is_named(name: str) -> None:
    with pytest.raises(fulgurite.UnsupportedError, match=rf"{name}=30\.0 is not supported"):
        attend(**{name: 30.0})
    with pytest.raises(NotImplementedError, match=rf"{name}=Array of shape \(3,\)"):
        attend(**{name: Array((3,))})


@pytest.mark.parametrize("name", ["cached_attention", "write_kv", "merge", "quantise_kv",
                                  "tile_mask"])
def test_functions_that_are_not_there_yet_say_so(name: str) -> None:
    function = getattr(fulgurite, name)
    needed = [one for one in inspect.signature(function).parameters.values()
              if one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty]
    with pytest.raises(NotImplementedError, match=f"fulgurite.{name} is not supported yet"):
        function(*[None] * len(needed))


@pytest.mark.parametrize("mask", [fulgurite.chunk(64), fulgurite.prefix(Array((2,))),
                                  fulgurite.row_keys(Array((2, 2)))])
def test_masks_without_a_kernel_are_named(mask: fulgurite.Mask) -> None:
    with pytest.raises(NotImplementedError, match=f"mask={re.escape(repr(mask))} is not"):
        attend(mask)


@pytest.mark.parametrize("mask", [None, True, "causal"])
def test_what_is_no_mask_is_refused(mask: object) -> None:
    with pytest.raises(fulgurite.ArgumentError, match="it must be fulgurite.FULL"):
        attend(mask)


def test_windows_become_the_simplest_mask_with_the_same_keys() -> None:
    lengths = [(q_len, kv_len) for q_len in range(1, 7) for kv_len in range(7)]
    ends = [None, *range(-3, 9)]
    for q_len, kv_len in lengths:
        for left in ends:
            for right in ends:
                if left is not None and right is not None and left + right < 0:
                    with pytest.raises(fulgurite.RequestError, match="holds none"):
                        fulgurite.window(left, right)
                    continue
                mask = fulgurite.window(left, right)
                kernel = _masks.kernel_mask(mask, q_len, kv_len)
                assert keys(kernel, q_len, kv_len) == keys(mask, q_len, kv_len), mask
    assert _masks.kernel_mask(fulgurite.window(None, None), 5, 9) == "full"
    assert _masks.kernel_mask(fulgurite.window(None, 0), 5, 9) == "causal"
    assert _masks.kernel_mask(fulgurite.window(8, 0), 5, 9) == "causal"
    assert _masks.kernel_mask(fulgurite.window(8, 4), 5, 9) == "full"
    assert _masks.kernel_mask(fulgurite.window(7, 0), 5, 9) == "window:7:0"
    assert _masks.ends_of("window:7:*") == ("window", 7, None)
    assert _masks.ends_of("window:*:-3") == ("window", None, -3)
    assert _masks.ends_of("causal") == ("causal", None, None)
    for name in ("left", "window", "window:1", "window:1:2:3", "window:a:b", ""):
        with pytest.raises(fulgurite.ArgumentError, match="of the operator"):
            _masks.ends_of(name)


def keys(mask: object, q_len: int, kv_len: int) -> list[tuple[int, int]]:
    """All pairs of a row and a key that it sees."""
    def sees(row: int, col: int) -> bool:
        diagonal = row + kv_len - q_len
        if isinstance(mask, fulgurite.Mask):
            left, right = mask.left, mask.right
        else:
            kind, left, right = _masks.ends_of(str(mask))
            right = 0 if kind == "causal" else right
        return (left is None or col >= diagonal - left) and (right is None or col <= diagonal + right)
    return [(row, col) for row in range(q_len) for col in range(kv_len) if sees(row, col)]


def test_masks_are_checked_where_they_are_made() -> None:
    for ends in ((1.5, 0), ("1", None), (True, 0)):
        with pytest.raises(fulgurite.ArgumentError, match="an integer or None"):
            fulgurite.window(*ends)  # type: ignore[arg-type]
    for left in (1 << 31, -(1 << 31) - 1):
        with pytest.raises(fulgurite.ArgumentError, match="must fit 32 bits"):
            fulgurite.window(left, None)
    with pytest.raises(fulgurite.RequestError, match="size=0 of a chunk"):
        fulgurite.chunk(0)


def test_alignment() -> None:
    with pytest.raises(fulgurite.ArgumentError, match="align='left'"):
        attend(align="left")
    with pytest.raises(NotImplementedError, match="align='top_left' is not supported.*100 .*200"):
        attend(align="top_left")
    for mask, q in ((fulgurite.FULL, Q), (fulgurite.CAUSAL, Array((2, 200, 8, 64)))):
        with pytest.raises(fulgurite.ArgumentError, match="tensor of PyTorch"):
            attend(mask, q, align="top_left")


def test_arrays_are_told_what_is_taken() -> None:
    with pytest.raises(fulgurite.RequestError, match=r"q has 3 axes \(5, 8, 64\)"):
        attend(fulgurite.window(None, None), q=Array((5, 8, 64)))
    with pytest.raises(fulgurite.ArgumentError, match="q=Array of shape .*__dlpack__"):
        attend()


def test_importing_needs_no_framework() -> None:
    program = ("import sys, fulgurite; fulgurite.flash_attn; fulgurite.flash_attn_interface; "
               "print([name for name in ('torch', 'numpy', 'jax') if name in sys.modules])")
    said = subprocess.run([sys.executable, "-B", "-c", program], cwd=PACKAGE, check=True,
                          capture_output=True, text=True).stdout
    assert said == "[]\n"


def test_modules_are_imported_when_they_are_named() -> None:
    assert fulgurite.flash_attn.flash_attn_func and fulgurite.flash_attn_interface
    with pytest.raises(AttributeError, match="no attribute 'jax'"):
        fulgurite.jax


def test_each_status_is_the_exception_that_programs_expect() -> None:
    expected = {1: ValueError, 2: ValueError, 3: ValueError, 4: RuntimeError, 5: RuntimeError,
                6: RuntimeError, 7: NotImplementedError, 99: fulgurite.InternalError}
    for status, kind in expected.items():
        error = _errors.of_status(status, "why")
        assert isinstance(error, kind) and isinstance(error, fulgurite.Error)
        assert isinstance(error, RuntimeError) and "why" in str(error)
        assert error.status == (6 if status == 99 else status)


CONTIGUOUS = Tensor.contiguous("bf16", (2, 100, 8, 64))


@pytest.mark.parametrize(("strides", "copied"), [
    (CONTIGUOUS.strides, False),
    ((51200, 64, 6400, 1), False),  # (batch, heads, rows, head_dim) in memory
    ((153600, 1536, 64, 1), False),  # q of a packed qkv
    ((51200, 512, 64, 2), True),
    ((51200, 516, 64, 1), True),
    ((51200, 0, 64, 1), True),
    ((0, 512, 64, 1), True),
    ((1 << 39, 512, 64, 1), True),
    (((1 << 39) - 8, 512, 64, 1), False),
])
def test_what_kernels_cannot_walk_is_copied(strides: tuple[int, ...], copied: bool) -> None:
    assert _forward.needs_copy(CONTIGUOUS._replace(strides=strides)) == copied


def test_tensors_of_8_bits_have_strides_of_16_elements() -> None:
    q = Tensor.contiguous("e4m3", (2, 100, 8, 48))
    assert not _forward.needs_copy(q)
    assert _forward.needs_copy(q._replace(strides=(38400, 392, 48, 1)))
    assert not _forward.needs_copy(q._replace(strides=(38400, 400, 48, 1)))
    assert _forward.needs_copy(q._replace(strides=(1 << 40, 384, 48, 1)))
    assert not _forward.needs_copy(q._replace(strides=((1 << 40) - 16, 384, 48, 1)))


def test_keys_and_values_may_repeat() -> None:
    def repeated(*axes: int) -> Tensor:
        return CONTIGUOUS._replace(strides=tuple(
            0 if axis in axes else stride for axis, stride in enumerate(CONTIGUOUS.strides)))
    q, batch, heads = CONTIGUOUS, repeated(0), repeated(2)
    plain = _forward.Request(q, q, q, q, "full", None, "given", False)

    def copies(*tensors: _forward.Tensor, **more: Any) -> tuple[bool, bool, bool]:
        q, k, v = tensors
        return _forward.copies(plain._replace(q=q, k=k, v=v, **more))

    assert copies(q, batch, q) == (False, False, False)
    assert copies(q, heads, heads) == (False, False, False)
    assert copies(q, heads, q) == (False, True, False)
    assert copies(batch, q, repeated(1)) == (True, False, True)
    # Heads that repeat are one, but not if each is multiplied with a number of its own.
    of_tensor, of_head = _forward.Descale("per_tensor"), _forward.Descale("per_head", (2, 1))
    assert copies(q, heads, heads, descale=(of_tensor,) * 3) == (False, False, False)
    of_all = _forward.Descale("per_head", (2, 0))
    assert copies(q, heads, heads, descale=(of_all, of_tensor, of_tensor)) == (False,) * 3
    assert copies(q, heads, heads, descale=(of_tensor, of_tensor, of_head)) == (False, True, True)


def test_a_copy_may_ask_for_another() -> None:
    heads = CONTIGUOUS._replace(strides=(51200, 512, 0, 1))
    crooked = CONTIGUOUS._replace(strides=(51200, 516, 0, 1))
    request = _forward.Request(CONTIGUOUS, heads, crooked, CONTIGUOUS, "full", None, "given", False)
    changed, copied = _forward.walkable(request)
    assert copied == (False, True, True)
    assert changed == request._replace(k=CONTIGUOUS, v=CONTIGUOUS)
    assert _forward.walkable(changed) == (changed, (False, False, False))


def test_axes_of_one_index_have_no_stride() -> None:
    single = Tensor("f16", (1, 1, 1, 64), (3, 5, 7, 1))
    assert not _forward.needs_copy(single)
    assert Tensor.contiguous("f16", (2, 0, 4, 64)).strides == (256, 256, 64, 1)
