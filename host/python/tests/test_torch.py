"""The operators in PyTorch, on the CPU with a stand-in body; skipped without PyTorch."""
from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch, which is not installed")

import fulgurite  # noqa: E402
from conftest import REFUSED, Scene  # noqa: E402
from fulgurite import flash_attn, flash_attn_interface  # noqa: E402
from fulgurite import torch as door  # noqa: E402
from reference import NEVER, attend  # noqa: E402


def body(q: Any, k: Any, v: Any, mask: str, scale: float | None, precision: str,
         with_lse: bool, descale: Any = None) -> tuple[Any, Any]:
    """The operator's body in these tests."""
    out, lse = attend(q, k, v, mask, scale, descale)
    return out, lse if with_lse else q.new_empty((0,), dtype=torch.float32)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(door, "on_cpu", body)
    yield


def tensors(q_len: int = 6, kv_len: int = 9, head_dim: int = 16, **options: Any) -> list[Any]:
    options = {"dtype": torch.bfloat16, **options}
    torch.manual_seed(1)
    return [torch.randn(2, rows, heads, head_dim, **options)
            for rows, heads in ((q_len, 4), (kv_len, 2), (kv_len, 2))]


def test_tensors_on_the_cpu_are_refused() -> None:
    with pytest.raises(fulgurite.DeviceError, match="is on cpu.*scaled_dot_product_attention"):
        fulgurite.attention(*tensors(), fulgurite.FULL)


@pytest.mark.usefixtures("stand_in")
def test_attention_returns_what_was_asked_for() -> None:
    q, k, v = tensors()
    out, lse = fulgurite.attention(q, k, v, fulgurite.CAUSAL, return_lse=True)
    want = attend(q, k, v, "causal", None)
    assert torch.equal(out, want[0]) and torch.equal(lse, want[1])
    assert torch.equal(fulgurite.attention(q, k, v, fulgurite.window(None, 0)), out)
    place = torch.empty_like(q)
    given, lse = fulgurite.attention(q, k, v, fulgurite.FULL, scale=0.5, out=place, return_lse=True)
    assert given is place and torch.equal(place, attend(q, k, v, "full", 0.5)[0])
    assert torch.equal(lse, attend(q, k, v, "full", 0.5)[1])


@pytest.mark.usefixtures("stand_in")
def test_arrays_of_another_framework_get_arrays_back() -> None:
    numpy = pytest.importorskip("numpy", minversion="2.1", reason="needs NumPy 2.1 or later")
    q, k, v = tensors(dtype=torch.float16)
    want = attend(q, k, v, "causal", None)
    out, lse = fulgurite.attention(q.numpy(), k.numpy(), v.numpy(), fulgurite.CAUSAL,
                                   return_lse=True)
    assert isinstance(out, numpy.ndarray) and isinstance(lse, numpy.ndarray)
    assert torch.equal(torch.from_numpy(out), want[0])
    assert torch.equal(torch.from_numpy(lse), want[1])
    with pytest.raises(fulgurite.UnsupportedError, match="out=ndarray of shape"):
        fulgurite.attention(q.numpy(), k.numpy(), v.numpy(), fulgurite.CAUSAL, out=out)


@pytest.mark.usefixtures("stand_in")
def test_arrays_of_a_package_that_has_from_dlpack(monkeypatch: pytest.MonkeyPatch) -> None:
    class Array:
        """As CuPy's: DLPack, but no namespace."""

        def __init__(self, tensor: Any) -> None:
            self.tensor, self.shape = tensor, tuple(tensor.shape)

        def __dlpack__(self, **options: Any) -> Any:
            return self.tensor.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.tensor.__dlpack_device__()

    package = types.ModuleType("other")
    package.from_dlpack = lambda lent: Array(torch.from_dlpack(lent))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other", package)
    Array.__module__ = "other.core"
    q, k, v = tensors()
    out = fulgurite.attention(Array(q), Array(k), Array(v), fulgurite.FULL)
    assert isinstance(out, Array) and torch.equal(out.tensor, attend(q, k, v, "full", None)[0])


OPERATORS = [("full", None, "given", True), ("causal", 0.25, "s8e4m3", False)]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("options", OPERATORS)
def test_the_operators_keep_pytorchs_rules(options: tuple[Any, ...]) -> None:
    q, k, v = tensors()
    torch.library.opcheck(torch.ops.fulgurite.forward.default, (q, k, v, *options))
    torch.library.opcheck(torch.ops.fulgurite.forward_out.default,
                          (q, k, v, torch.empty_like(q), *options))


def test_fake_tensors_of_a_gpu_need_none() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode():
        q, k, v = (tensor.transpose(1, 2) for tensor in tensors(device="cuda"))
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        out, lse = fulgurite.attention(q, k, v, fulgurite.CAUSAL, return_lse=True)
        assert (out.shape, out.dtype, out.device.type) == (q.shape, torch.bfloat16, "cuda")
        assert out.is_contiguous() and tuple(lse.shape) == (2, 4, 6)
        assert lse.dtype == torch.float32
        assert torch.ops.fulgurite.forward(q, k, v, "full")[1].numel() == 0


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_programs_compute_the_same(backend: str) -> None:
    def layer(q: Any, k: Any, v: Any) -> Any:
        first, lse = fulgurite.attention(q * 2, k, v, fulgurite.CAUSAL, return_lse=True)
        assert fulgurite.window(None, 0).right == 0
        first = first + fulgurite.attention(q, k, v, fulgurite.window(None, 0))
        second = flash_attn.flash_attn_func(first.transpose(1, 2).contiguous().transpose(1, 2),
                                            k, v, causal=True)
        return second + 1, lse

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for q_len in (6, 9):
        inputs = tensors(q_len=q_len)
        with torch.no_grad():
            wants, gots = layer(*inputs), compiled(*inputs)
        for want, got in zip(wants, gots):
            torch.testing.assert_close(got, want, atol=2e-2, rtol=2e-2)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("head_dim", [16, 20])
def test_flash_attention_returns_theirs(head_dim: int) -> None:
    for (q_len, kv_len), causal in itertools.product(((6, 9), (9, 6), (3, 0)), (False, True)):
        q, k, v = tensors(q_len, kv_len, head_dim)
        mask = "causal" if causal else "full"
        want, want_lse = attend(q, k, v, mask, None)
        empty = (want_lse == NEVER).any().item()
        assert empty == (kv_len == 0 or (causal and q_len > kv_len))
        out, lse, probabilities = flash_attn.flash_attn_func(q, k, v, causal=causal,
                                                             return_attn_probs=True)
        torch.testing.assert_close(out, want)
        torch.testing.assert_close(lse, want_lse.masked_fill(want_lse == NEVER, float("inf")))
        assert probabilities.numel() == 0 and probabilities.dtype == q.dtype
        out, lse = flash_attn_interface.flash_attn_func(q, k, v, causal=causal,
                                                        return_attn_probs=True)
        torch.testing.assert_close(out, want)
        torch.testing.assert_close(lse, want_lse)
        for function in (flash_attn.flash_attn_func, flash_attn_interface.flash_attn_func):
            torch.testing.assert_close(function(q, k, v, causal=causal, window_size=(-1, -1)), want)


@pytest.mark.usefixtures("stand_in")
def test_packed_tensors_are_views_of_their_parts() -> None:
    q, k, v = tensors(9, 9)
    keys, values = (tensor.repeat_interleave(2, 2) for tensor in (k, v))
    want = flash_attn.flash_attn_func(q, keys, values, causal=True)
    qkv, kv = torch.stack([q, keys, values], 2), torch.stack([k, v], 2)
    assert torch.equal(flash_attn.flash_attn_qkvpacked_func(qkv, causal=True), want)
    assert torch.equal(flash_attn_interface.flash_attn_qkvpacked_func(qkv, causal=True), want)
    want = flash_attn.flash_attn_func(q, k, v)
    assert torch.equal(flash_attn.flash_attn_kvpacked_func(q, kv), want)
    heads = torch.cat([q, k, v], 2)
    assert torch.equal(flash_attn_interface.flash_attn_qkvpacked_func(heads, num_heads_q=4), want)


@pytest.mark.usefixtures("stand_in")
def test_caches_of_one_length() -> None:
    q, k, v = tensors(2, 2)
    _, k_cache, v_cache = tensors(2, 12)
    grown = [torch.cat([cache[:, :5], new], 1) for cache, new in ((k_cache, k), (v_cache, v))]
    want, want_lse = attend(q, *grown, "causal", None)
    for module in (flash_attn, flash_attn_interface):
        caches = k_cache.clone(), v_cache.clone()
        out, lse, *rest = module.flash_attn_with_kvcache(
            q, *caches, k, v, cache_seqlens=5, causal=True, return_softmax_lse=True)
        assert torch.equal(out, want) and torch.equal(lse, want_lse)
        assert torch.equal(caches[0][:, :7], grown[0]) and torch.equal(caches[1][:, :7], grown[1])
        assert torch.equal(caches[0][:, 7:], k_cache[:, 7:])
        assert [one.numel() for one in rest] == ([0, 0] if module is flash_attn_interface else [])
        used = module.flash_attn_with_kvcache(q, *caches, cache_seqlens=7, causal=True)
        assert torch.equal(used, want)


def test_a_first_call_in_a_capture_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_is_capturing", lambda device: True)
    with pytest.raises(fulgurite.DriverError, match="before the capture, or fulgurite.preload"):
        door.launch(*tensors(), None, "causal", None, "given", False, 0, 0)


LAUNCHES = """
import sys, torch, fulgurite
from fulgurite import _counts, torch as door

# PyTorch itself needs more of a driver than the fake one has.
door._is_capturing = lambda device: False

def call(q, k, v, out=None, mask="causal", precision="given", with_lse=True):
    return door.launch(q, k, v, out, mask, None, precision, with_lse, 0, 0)

def tensor(*shape):
    return torch.zeros(*shape, dtype=torch.bfloat16)

q, kv = tensor(2, 100, 8, 64), tensor(2, 200, 2, 64)
"""


def test_launches_reach_the_driver(scene: Scene) -> None:
    said = scene.run(LAUNCHES + """
for _ in range(3):
    out, lse = call(q, kv, kv)
assert out.shape == q.shape and lse.shape == (2, 8, 100) and len(door._plans) == 1
out, lse = call(q, kv, kv, with_lse=False)
assert lse.numel() == 0 and _counts.copies == 0
place = torch.empty(2, 8, 100, 64, dtype=torch.bfloat16).transpose(1, 2)
assert call(q, kv, kv, place)[0] is place
print("first", flush=True)
# What no kernel can walk is copied, once a call, and counted.
call(q.mT.contiguous().mT, kv, kv)
assert _counts.copies == 1
call(q, tensor(2, 200, 1, 64).expand(2, 200, 2, 64), kv)
assert _counts.copies == 2
call(q, tensor(1, 200, 2, 64).expand(2, 200, 2, 64), kv)
assert _counts.copies == 2
odd = tensor(2 * 200 * 2 * 64 + 1)[1:].view(2, 200, 2, 64)
assert odd.data_ptr() % 16 == 2
call(q, odd, kv)
call(q, odd, kv)
assert fulgurite.info().copies == 4
""")
    assert said.count("compile fwd_sm90_bf16_d64_causal_short") == 1
    assert said.count("launch fwd_sm90_bf16_d64_causal_short") == 10


def test_what_calls_get_wrong_is_told(scene: Scene) -> None:
    scene.run(LAUNCHES + REFUSED + """
refused(fulgurite.RequestError, "k has batch 3", q, tensor(3, 200, 2, 64), kv)
refused(fulgurite.RequestError, "v is on meta, q on cpu", q, kv, kv.to("meta"))
refused(fulgurite.RequestError, "k has 3 axes", q, kv[0], kv)
refused(fulgurite.RequestError, "k has elements of type f16", q, kv.half(), kv)
refused(fulgurite.UnsupportedError, "torch.float64", q.double(), kv, kv)
refused(fulgurite.UnsupportedError, "f32 asked", q.float(), kv.float(), kv.float())
refused(fulgurite.ArgumentError, "precision='exact'", q, kv, kv, precision="exact")
refused(fulgurite.ArgumentError, "mask='left'", q, kv, kv, mask="left")
refused(fulgurite.RequestError, "head_dim stride of out is 2", q, kv, kv,
        torch.empty(2, 100, 8, 128, dtype=torch.bfloat16)[..., ::2])
# Nothing is copied for a call that is refused.
refused(fulgurite.RequestError, "k has batch 3", q.mT.contiguous().mT, tensor(3, 200, 2, 64), kv)
assert not door._plans and fulgurite.info().copies == 0
""")


def test_a_capture_after_preload_needs_no_call_before(scene: Scene) -> None:
    said = scene.run(LAUNCHES + """
door._is_capturing = lambda device: True
try:
    call(q, kv, kv)
except fulgurite.DriverError as error:
    assert "captured into a CUDA graph" in str(error)
else:
    raise AssertionError
fulgurite.preload("bf16", 64, fulgurite.CAUSAL)
print("captured", flush=True)
call(q, kv, kv)
""")
    assert "compile" not in said[said.index("captured\n"):]


def test_after_a_reset_the_next_call_plans_anew(scene: Scene) -> None:
    scene.run(LAUNCHES + """
import ctypes
call(q, kv, kv)
ctypes.CDLL("libcuda.so").cuDevicePrimaryCtxReset_v2(0)
try:
    call(q, kv, kv)
except fulgurite.DriverError as error:
    assert "reset" in str(error)
else:
    raise AssertionError
call(q, kv, kv)
""")
