"""Gradients in PyTorch, on the CPU with stand-in bodies; skipped without PyTorch."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch, which is not installed")

import fulgurite  # noqa: E402
from conftest import REFUSED, Scene  # noqa: E402
from fulgurite import _autograd, flash_attn, flash_attn_interface  # noqa: E402
from fulgurite import torch as door  # noqa: E402
from reference import attend, gradients  # noqa: E402


def forward_body(q: Any, k: Any, v: Any, mask: str, scale: float | None, precision: str,
                 with_lse: bool, descale: Any = None) -> tuple[Any, Any]:
    out, lse = attend(q, k, v, mask, scale, descale)
    return out, lse if with_lse else q.new_empty((0,), dtype=torch.float32)


def backward_body(d_out: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, mask: str,
                  scale: float | None, d_lse: Any) -> tuple[Any, ...]:
    want, want_lse = attend(q, k, v, mask, scale)
    assert torch.equal(out, want) and torch.equal(lse, want_lse)
    return tuple(one.to(q.dtype) for one in gradients(q, k, v, mask, scale, d_out, d_lse))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(door, "on_cpu", forward_body)
    monkeypatch.setattr(_autograd, "on_cpu", backward_body)
    yield


def tensors(q_len: int = 6, kv_len: int = 9, head_dim: int = 16) -> list[Any]:
    torch.manual_seed(1)
    return [torch.randn(2, rows, heads, head_dim, dtype=torch.bfloat16)
            for rows, heads in ((q_len, 4), (kv_len, 2), (kv_len, 2))]


def leaves(*inputs: Any) -> list[Any]:
    return [one.detach().clone().requires_grad_() for one in inputs]


def test_tensors_on_the_cpu_are_refused() -> None:
    with pytest.raises(fulgurite.DeviceError, match="is on cpu"):
        fulgurite.attention(*leaves(*tensors()), fulgurite.FULL)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("mask", [fulgurite.FULL, fulgurite.CAUSAL, fulgurite.window(2, 1)])
def test_gradients_of_output_and_log_sum_exp(mask: Any) -> None:
    inputs = tensors()
    name = mask.name if mask in (fulgurite.FULL, fulgurite.CAUSAL) else "window:2:1"
    for use_out, use_lse in ((True, True), (True, False), (False, True)):
        q, k, v = leaves(*inputs)
        out, lse = fulgurite.attention(q, k, v, mask, scale=0.3, return_lse=True)
        d_out, d_lse = torch.randn_like(out), torch.randn_like(lse)
        loss = (out * d_out).sum() * use_out + (lse * d_lse).sum() * use_lse
        loss.backward()
        want = gradients(*inputs, name, 0.3, d_out * use_out, d_lse * use_lse)
        for got, exact in zip((q.grad, k.grad, v.grad), want):
            torch.testing.assert_close(got, exact.to(torch.bfloat16))


@pytest.mark.usefixtures("stand_in")
def test_only_what_requires_gradients_gets_some() -> None:
    for place in range(3):
        inputs = [one.requires_grad_(index == place) for index, one in enumerate(tensors())]
        fulgurite.attention(*inputs, fulgurite.CAUSAL).sum().backward()
        assert [one.grad is not None for one in inputs] == [index == place for index in range(3)]
    with torch.no_grad():
        assert not fulgurite.attention(*leaves(*tensors()), fulgurite.FULL).requires_grad
    out, lse = fulgurite.attention(*leaves(*tensors()), fulgurite.FULL, return_lse=True)
    assert out.requires_grad and lse.requires_grad


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("head_dim", [16, 20])
def test_drop_ins_have_them_too(head_dim: int) -> None:
    inputs = tensors(head_dim=head_dim)
    for function in (flash_attn.flash_attn_func, flash_attn_interface.flash_attn_func):
        q, k, v = leaves(*inputs)
        out = function(q, k, v, causal=True, window_size=(3, 0))
        d_out = torch.randn_like(out)
        out.backward(d_out)
        want = gradients(*inputs, "window:3:0", None, d_out, None)
        for got, exact in zip((q.grad, k.grad, v.grad), want):
            torch.testing.assert_close(got, exact.to(torch.bfloat16))


@pytest.mark.usefixtures("stand_in")
def test_what_has_no_gradients_is_refused() -> None:
    q, k, v = leaves(*tensors())
    refused = pytest.raises(NotImplementedError, match="precision='s8e4m3'")
    with refused:
        fulgurite.attention(q, k, v, fulgurite.FULL, precision="s8e4m3")
    with pytest.raises(NotImplementedError, match="out=Tensor"):
        fulgurite.attention(q, k, v, fulgurite.FULL, out=torch.empty_like(q))
    with pytest.raises(NotImplementedError, match="the operator has no gradients, but q, k, v"):
        torch.ops.fulgurite.forward(q, k, v, "full")
    out = fulgurite.attention(q, k, v, fulgurite.FULL)
    with pytest.raises(NotImplementedError, match="gradients of gradients"):
        torch.autograd.grad(out.float().pow(2).sum(), q, create_graph=True)


@pytest.mark.usefixtures("stand_in")
def test_the_operator_keeps_pytorchs_rules() -> None:
    q, k, v = tensors()
    for d_lse in (None, torch.randn(2, 4, 6)):
        out, lse = attend(q, k, v, "causal", None)
        arguments = (torch.randn_like(out), q, k, v, out, lse, "causal", None, d_lse)
        torch.library.opcheck(torch.ops.fulgurite.backward.default, arguments)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_programs_have_the_same_gradients(backend: str) -> None:
    def layer(q: Any, k: Any, v: Any) -> Any:
        first, lse = fulgurite.attention(q * 2, k, v, fulgurite.CAUSAL, return_lse=True)
        return (flash_attn.flash_attn_func(first, k, v) * 3).float().sum() + lse.sum()

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    inputs = tensors()
    results = []
    for program in (layer, compiled):
        own = leaves(*inputs)
        program(*own).backward()
        results.append([one.grad for one in own])
    for want, got in zip(*results):
        torch.testing.assert_close(got, want, atol=2e-2, rtol=2e-2)


LAUNCHES = """
import torch, fulgurite
from fulgurite import _autograd, _counts

def tensor(*shape):
    return torch.zeros(*shape, dtype=torch.bfloat16)

q, kv, lse = tensor(2, 100, 8, 64), tensor(2, 200, 2, 64), torch.zeros(2, 8, 100)

def call(q=q, k=kv, v=kv, out=q, lse=lse, d_out=q, mask="causal", d_lse=None):
    return _autograd.launch(d_out, q, k, v, out, lse, mask, None, d_lse, 0, 0)
"""


def test_launches_reach_the_driver(scene: Scene) -> None:
    said = scene.run(LAUNCHES + """
for _ in range(3):
    dq, dk, dv = call()
assert (dq.shape, dk.shape, dv.shape) == (q.shape, kv.shape, kv.shape)
assert len(_autograd._plans) == 1 and _counts.copies == 0
call(d_lse=lse)
assert len(_autograd._plans) == 2
# What autograd makes of a sum has strides of 0: it is copied.
call(d_out=tensor(1).expand(q.shape))
assert _counts.copies == 1
odd = tensor(q.numel() + 1)[1:].view(q.shape)
assert odd.data_ptr() % 16 == 2
call(d_out=odd)
assert _counts.copies == 2
shared = tensor(1, 200, 1, 64).expand(2, 200, 2, 64)
dq, dk, dv = call(k=shared, v=shared)
assert dk.shape == (2, 200, 2, 64) and dk.is_contiguous() and _counts.copies == 2
call(mask="window:30:0")
""")
    assert said.count("launch bwd_delta_bf16") == 8
    assert said.count("launch bwd_dkdv_sm90_bf16_d64_causal") == 7
    assert said.count("launch bwd_dq_sm90_bf16_d64_window") == 1


def test_what_calls_get_wrong_is_told(scene: Scene) -> None:
    scene.run(LAUNCHES + REFUSED + """
refused(fulgurite.RequestError, "k has batch 3", k=tensor(3, 200, 2, 64))
refused(fulgurite.RequestError, "d_out has rows 99", d_out=tensor(2, 99, 8, 64))
refused(fulgurite.RequestError, "d_out is on meta, q on cpu", d_out=q.to("meta"))
refused(fulgurite.RequestError, "lse has elements of type f32 and the shape (2, 8, 99)",
        lse=torch.zeros(2, 8, 99))
refused(fulgurite.RequestError, "d_lse has elements of type f16", d_lse=lse.half())
refused(fulgurite.RequestError, "lse is on meta, q on cpu", lse=lse.to("meta"))
refused(fulgurite.UnsupportedError, "f32", q=q.float(), k=kv.float(), v=kv.float(),
        out=q.float(), d_out=q.float())
assert not _autograd._plans
""")
