"""The kernels of e4m3 through PyTorch, on a Hopper GPU."""
from __future__ import annotations

from typing import Any

import pytest

from test_gpu import SHAPES, call, relative, tensors, torch

import fulgurite
from fulgurite import _counts, flash_attn_interface
from reference import exact

pytestmark = pytest.mark.gpu

E4M3 = torch.float8_e4m3fn
# Of the others head dims are no multiples of 16.
SHAPES8 = [shape for shape in SHAPES if shape[-1] % 16 == 0] + [(2, 130, 70, 6, 3, 48)]
# Rounding probabilities to e4m3 is 0.025 alone.
LIMIT = 0.06


def eight_bits(shape: tuple[int, ...], seed: int = 1) -> list[Any]:
    return [tensor.to(E4M3) for tensor in tensors(shape, seed=seed)]


def numbers(*shape: int, seed: int = 1) -> Any:
    """Between a half and one, so that scores are no more peaked than normal ones."""
    make = torch.Generator(device="cuda").manual_seed(seed)
    return torch.rand(shape, device="cuda", generator=make) / 2 + 0.5


def descales(shape: tuple[int, ...], kind: str) -> tuple[Any, Any, Any]:
    batch, rows, _, heads, kv_heads, _ = shape
    if kind == "one":
        return None, None, None
    if kind == "per_tensor":
        return numbers(seed=1), numbers(1, seed=2), numbers(1, 1, seed=3)
    by_head = [numbers(batch, kv_heads, seed=seed) for seed in (1, 2, 3)]
    if kind == "per_row":
        by_head[0] = numbers(batch, heads, rows, seed=4)
    if kind == "strided":
        # Heads first in memory, every other number, and one for all batch entries.
        by_head = [by_head[0].T.contiguous().T, numbers(batch, 2 * kv_heads, seed=5)[:, ::2],
                   numbers(1, kv_heads, seed=6).expand(batch, kv_heads)]
    return by_head[0], by_head[1], by_head[2]


KINDS = ["one", "per_tensor", "per_head", "per_row", "strided"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize("shape", SHAPES8)
def test_values(shape: tuple[int, ...], mask: str, kind: str) -> None:
    q, k, v = eight_bits(shape)
    descale = descales(shape, kind)
    want, want_lse = exact(q, k, v, mask, None, descale)
    out, lse = call(q, k, v, mask, descale=descale, return_lse=True)
    assert out.dtype == torch.bfloat16 and out.is_contiguous() and out.shape == q.shape
    assert torch.equal(call(q, k, v, mask, descale=descale), out)
    place = torch.full(q.shape, float("nan"), dtype=torch.float16, device="cuda")
    assert call(q, k, v, mask, descale=descale, out=place) is place
    # Sums of e4m3's products are cut off 13 bits behind the largest of them.
    torch.testing.assert_close(lse, want_lse.float(), atol=2e-2, rtol=2e-3)
    for got in (out, place):
        keyless = want_lse.transpose(1, 2) == float("-inf")
        assert not got[keyless].any()
        if not keyless.all():
            assert relative(got, want) <= LIMIT


def test_each_head_and_row_has_its_own_number() -> None:
    """A number that is 0 in one place alone changes the output of that place alone."""
    shape = (2, 70, 130, 4, 2, 64)
    q, k, v = eight_bits(shape)
    whole = call(q, k, v, "full", descale=(1.0, 1.0, 1.0))
    of_v = torch.ones(2, 2, device="cuda")
    of_v[1, 0] = 0
    out = call(q, k, v, "full", descale=(None, None, of_v))
    assert not out[1, :, :2].any()
    assert torch.equal(out[0], whole[0]) and torch.equal(out[1, :, 2:], whole[1, :, 2:])
    of_q = torch.ones(2, 4, 70, device="cuda")
    of_q[0, 3, 69] = 0
    out = call(q, k, v, "full", descale=(of_q, None, None))
    mean = v[0, :, 1].double().mean(0)
    assert relative(out[0, 69, 3], mean) <= LIMIT
    out[0, 69, 3] = whole[0, 69, 3]
    assert torch.equal(out, whole)


def test_a_number_is_a_factor() -> None:
    """Stored numbers four times as large, which e4m3 holds exactly, and a quarter as descale."""
    inputs = eight_bits((1, 200, 200, 4, 2, 128))
    large = [(tensor.float() * 4).to(E4M3) for tensor in inputs]
    quarter = torch.full((1,), 0.25, device="cuda")
    want, want_lse = call(*inputs, descale=(1.0, 1.0, 1.0), return_lse=True)
    out, lse = call(*large, descale=(quarter, quarter.expand(1, 2), quarter[0]), return_lse=True)
    assert relative(out, want.double()) <= 0.005
    torch.testing.assert_close(lse, want_lse, atol=1e-3, rtol=1e-4)


def test_strides_are_taken_as_they_are_or_copied() -> None:
    q, k, v = eight_bits((2, 200, 200, 4, 4, 64))
    ones, before = (None, None, None), _counts.copies
    want = call(q, k, v, descale=ones)
    inner = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (q, k, v)]
    assert torch.equal(call(*inner, descale=ones), want)
    one = k[:1].expand(2, -1, -1, -1)
    assert torch.equal(call(q, one, v, descale=ones), call(q, one.contiguous(), v, descale=ones))
    assert _counts.copies == before
    assert torch.equal(call(q.mT.contiguous().mT, k, v, descale=ones), want)
    odd = torch.empty(q.numel() + 8, dtype=E4M3, device="cuda")[8:].view(q.shape).copy_(q)
    assert torch.equal(call(odd, k, v, descale=ones), want)
    assert _counts.copies == before + 2


def test_one_head_for_all_may_have_numbers_by_head() -> None:
    shape = (2, 100, 100, 4, 4, 64)
    q, k, v = eight_bits(shape)
    descale = descales(shape, "per_head")
    one_k, one_v = (tensor[:, :, :1].expand_as(tensor) for tensor in (k, v))
    out = call(q, one_k, one_v, descale=descale)
    assert torch.equal(out, call(q, one_k.contiguous(), one_v.contiguous(), descale=descale))


def test_flash_attention_3_is_the_same() -> None:
    for head_dim in (64, 24):
        shape = (2, 100, 60, 4, 2, head_dim)
        q, k, v = eight_bits(shape)
        of_q, of_k, of_v = descales(shape, "per_head")
        out, lse = flash_attn_interface.flash_attn_func(
            q, k, v, causal=True, q_descale=of_q, k_descale=of_k, v_descale=of_v,
            return_attn_probs=True)
        want, want_lse = exact(q, k, v, "causal", None, (of_q, of_k, of_v))
        assert out.dtype == torch.bfloat16 and relative(out, want) <= LIMIT
        torch.testing.assert_close(lse, want_lse.float(), atol=2e-2, rtol=2e-3)
        want, _ = exact(q, k, v, "full", None)
        assert relative(flash_attn_interface.flash_attn_func(q, k, v), want) <= LIMIT


def test_graphs_compute_anew_at_each_replay() -> None:
    shape = (1, 384, 384, 4, 2, 128)
    inputs, descale = eight_bits(shape), descales(shape, "per_row")
    call(*inputs, descale=descale)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(*inputs, descale=descale)
    before = None
    for seed in (2, 3):
        for place, new in zip(inputs, eight_bits(shape, seed)):
            place.copy_(new)
        for one in descale:
            one.mul_(0.75)
        graph.replay()
        got = out.clone()
        assert torch.equal(got, call(*inputs, descale=descale))
        assert before is None or not torch.equal(got, before)
        before = got


def test_preload_lets_a_capture_be_the_first_call() -> None:
    names = fulgurite.preload(E4M3, 80, fulgurite.CAUSAL)
    assert any("e4m3_d96_causal" in name for name in names)
    inputs = eight_bits((1, 96, 96, 2, 2, 80))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(*inputs, descale=(None, None, None))
    graph.replay()
    assert relative(out, exact(*inputs, "causal", None)[0]) <= LIMIT


def test_calls_wait_for_nothing() -> None:
    shape = (1, 512, 512, 4, 4, 64)
    inputs, descale = eight_bits(shape), descales(shape, "per_head")
    call(*inputs, descale=descale)
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(*inputs, descale=descale, return_lse=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_programs(mode: str) -> None:
    def layer(q: Any, k: Any, v: Any, of_k: Any) -> Any:
        eight = [tensor.to(E4M3) for tensor in (q, k, v)]
        return call(*eight, descale=(None, of_k * 0.5, 1.0)) + 1

    inputs = [*tensors((2, 256, 256, 4, 2, 64)), numbers(2, 2)]
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, mode=mode)
    with torch.no_grad():
        layer(*inputs)
        for _ in range(3):
            torch.testing.assert_close(compiled(*inputs), layer(*inputs), atol=2e-2, rtol=2e-2)
