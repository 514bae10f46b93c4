"""Gradients through PyTorch, on a Hopper GPU: values, strides, bits, graphs, torch.compile, and a
small transformer that learns."""
from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from conftest import REQUIRED

if os.environ.get(REQUIRED):
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which is not installed")

import fulgurite  # noqa: E402
from fulgurite import _counts  # noqa: E402
from reference import gradients, unseen  # noqa: E402

pytestmark = pytest.mark.gpu

MASKS = {"full": fulgurite.FULL, "causal": fulgurite.CAUSAL,
         "window:300:0": fulgurite.window(300, 0), "window:9:40": fulgurite.window(9, 40)}
# Batch, query rows, keys, query heads, KV heads, head_dim.
SHAPES = [(2, 128, 128, 4, 4, 64), (1, 1, 777, 8, 2, 128), (2, 300, 513, 4, 2, 96),
          (1, 1000, 1000, 2, 1, 128), (1, 257, 64, 4, 4, 64), (3, 65, 2049, 2, 2, 256),
          (1, 2048, 2048, 4, 2, 192), (2, 130, 70, 6, 3, 40), (1, 5, 0, 2, 2, 64),
          (1, 0, 5, 2, 2, 64), (0, 5, 5, 2, 2, 64)]


def tensors(shape: tuple[int, ...], dtype: Any = None) -> list[Any]:
    batch, q_len, kv_len, heads, kv_heads, head_dim = shape
    make = torch.Generator(device="cuda").manual_seed(1)
    return [torch.randn(batch, rows, count, head_dim, device="cuda", generator=make,
                        dtype=dtype or torch.bfloat16)
            for rows, count in ((q_len, heads), (kv_len, kv_heads), (kv_len, kv_heads),
                                (q_len, heads))]


def derived(q: Any, k: Any, v: Any, d_out: Any, mask: str, d_lse: Any = None,
            **options: Any) -> tuple[Any, ...]:
    inputs = [one.detach().requires_grad_() for one in (q, k, v)]
    out, lse = fulgurite.attention(*inputs, MASKS[mask], return_lse=True, **options)
    results, into = ((out,), (d_out,)) if d_lse is None else ((out, lse), (d_out, d_lse))
    return torch.autograd.grad(results, inputs, into)


def coarse(q: Any, k: Any, v: Any, d_out: Any, mask: str) -> tuple[Any, ...]:
    """The same steps in q's type, with sums in float32."""
    inputs = [one.detach().requires_grad_() for one in (q, k, v)]
    queries, keys, values = (one.transpose(1, 2) for one in inputs)
    groups = q.shape[2] // k.shape[2]
    keys, values = (one.repeat_interleave(groups, 1) for one in (keys, values))
    scores = queries @ keys.mT * q.shape[-1] ** -0.5
    scores = scores.masked_fill(unseen(mask, q, k), float("-inf"))
    weights = scores.float().softmax(-1).nan_to_num(0.0).to(q.dtype)
    return torch.autograd.grad((weights @ values).transpose(1, 2), inputs, d_out)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape: tuple[int, ...], mask: str) -> None:
    """FlashAttention's own rule: at most twice the error of the same steps in q's type, and 1e-5
    of the largest gradient."""
    for dtype in (torch.bfloat16, torch.float16):
        q, k, v, d_out = tensors(shape, dtype)
        got = derived(q, k, v, d_out, mask)
        want = gradients(q, k, v, mask, None, d_out, None)
        steps = coarse(q, k, v, d_out, mask)
        for name, one, exact, rough in zip("qkv", got, want, steps):
            if one.numel() == 0:
                continue
            rough = rough.nan_to_num(0.0)
            off, most = ((other.double() - exact).abs().max() for other in (one, rough))
            assert off <= 2 * most + 1e-5 * (1 + exact.abs().max()), (name, off, most)


def test_gradients_of_the_log_sum_exp() -> None:
    q, k, v, d_out = tensors((2, 300, 513, 4, 2, 96))
    d_lse = torch.randn(2, 4, 300, device="cuda")
    got = derived(q, k, v, d_out, "causal", d_lse)
    want = gradients(q, k, v, "causal", None, d_out, d_lse)
    for one, exact in zip(got, want):
        assert (one.double() - exact).norm() <= 6e-3 * exact.norm()


def test_strides_are_taken_as_they_are_or_copied() -> None:
    q, k, v, d_out = tensors((2, 300, 300, 4, 4, 64))
    want = derived(q, k, v, d_out, "causal")
    before = _counts.copies
    packed = torch.stack([q, k, v], 2)
    got = derived(*(packed[:, :, index] for index in range(3)), d_out, "causal")
    heads_first = [one.transpose(1, 2).contiguous().transpose(1, 2) for one in (q, k, v, d_out)]
    for one, other, exact in zip(got, derived(*heads_first, "causal"), want):
        assert torch.equal(one, exact) and torch.equal(other, exact)
    assert _counts.copies == before
    expanded = derived(q, k, v, torch.ones(1, device="cuda", dtype=q.dtype).expand(q.shape), "full")
    for one, exact in zip(expanded, derived(q, k, v, torch.ones_like(q), "full")):
        assert torch.equal(one, exact)
    assert _counts.copies == before + 1


def test_bits_are_the_same_on_every_run_and_alone() -> None:
    for mask, head_dim in itertools.product(MASKS, (64, 128, 256)):
        q, k, v, d_out = tensors((3, 700, 900, 8, 2, head_dim))
        first = derived(q, k, v, d_out, mask)
        other = torch.cuda.Stream()
        for _ in range(20):
            with torch.cuda.stream(other):
                torch.randn(2048, 2048, device="cuda") @ torch.randn(2048, 2048, device="cuda")
            for one, again in zip(first, derived(q, k, v, d_out, mask)):
                assert torch.equal(one, again)
        alone = derived(*(one[1:2] for one in (q, k, v, d_out)), mask)
        for one, entry in zip(first, alone):
            assert torch.equal(one[1:2], entry)


def test_captured_graphs() -> None:
    inputs = tensors((1, 256, 256, 4, 2, 64))
    q, k, v, d_out = inputs
    want = derived(q, k, v, d_out, "causal")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = derived(q, k, v, d_out, "causal")
    for one in got:
        one.zero_()
    graph.replay()
    for one, exact in zip(got, want):
        assert torch.equal(one, exact)


def test_compiled_programs_compute_the_same() -> None:
    def layer(q: Any, k: Any, v: Any) -> Any:
        return fulgurite.attention(q * 2, k, v, fulgurite.CAUSAL) + q

    q, k, v, d_out = tensors((2, 256, 256, 4, 2, 64))
    compiled = torch.compile(layer, fullgraph=True)
    results = []
    for program in (layer, compiled):
        inputs = [one.detach().requires_grad_() for one in (q, k, v)]
        results.append(torch.autograd.grad(program(*inputs), inputs, d_out))
    for want, got in zip(*results):
        torch.testing.assert_close(got, want, atol=2e-2, rtol=2e-2)
