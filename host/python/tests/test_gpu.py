"""The kernels through PyTorch, on a Hopper GPU: values, strides, streams, graphs, torch.compile,
and the host cost of a call (`pytest -m gpu -s` prints it)."""
from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from conftest import REQUIRED

if os.environ.get(REQUIRED):
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which is not installed")

import fulgurite  # noqa: E402
from fulgurite import _counts, flash_attn, flash_attn_interface  # noqa: E402
from fulgurite import torch as door  # noqa: E402
from reference import attend, exact, unseen  # noqa: E402

pytestmark = pytest.mark.gpu

MASKS = {"full": fulgurite.FULL, "causal": fulgurite.CAUSAL,
         "window:300:0": fulgurite.window(300, 0), "window:*:-3": fulgurite.window(None, -3),
         "window:9:40": fulgurite.window(9, 40)}
# Batch, query rows, keys, query heads, KV heads, head_dim.
SHAPES = [(2, 128, 128, 4, 4, 64), (1, 1, 777, 8, 2, 128), (2, 300, 513, 4, 2, 96),
          (1, 1000, 1000, 2, 1, 128), (1, 257, 64, 4, 4, 64), (3, 65, 2049, 2, 2, 256),
          (1, 2048, 2048, 4, 2, 192), (2, 130, 70, 6, 3, 40), (1, 512, 512, 16, 16, 8),
          (1, 5, 0, 2, 2, 64), (1, 0, 5, 2, 2, 64), (0, 5, 5, 2, 2, 64)]


def tensors(shape: tuple[int, ...], dtype: Any = None, seed: int = 1) -> list[Any]:
    batch, q_len, kv_len, heads, kv_heads, head_dim = shape
    make = torch.Generator(device="cuda").manual_seed(seed)
    return [torch.randn(batch, rows, count, head_dim, device="cuda", generator=make,
                        dtype=dtype or torch.bfloat16)
            for rows, count in ((q_len, heads), (kv_len, kv_heads), (kv_len, kv_heads))]


def call(q: Any, k: Any, v: Any, mask: str = "causal", **options: Any) -> Any:
    return fulgurite.attention(q, k, v, MASKS[mask], **options)


def judge(got: Any, q: Any, k: Any, v: Any, mask: str, scale: float | None = None) -> None:
    """FlashAttention's own rule: at most twice the error of the same steps in q's type, and 1e-5.

    The steps are scores and weights rounded to q's type, with sums in float32."""
    want, _ = exact(q, k, v, mask, scale)
    groups = q.shape[2] // k.shape[2]
    queries, keys, values = (tensor.transpose(1, 2) for tensor in (q, k, v))
    keys, values = (tensor.repeat_interleave(groups, 1) for tensor in (keys, values))
    scores = (queries @ keys.mT).float() * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores.masked_fill(unseen(mask, q, k), float("-inf"))
    weights = scores.softmax(-1).nan_to_num(0.0).to(q.dtype)
    coarse = (weights @ values).transpose(1, 2)
    if want.numel():
        allowed = 2 * (coarse.double() - want).abs().max() + 1e-5
        assert (got.double() - want).abs().max() <= allowed


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape: tuple[int, ...], mask: str, dtype: str) -> None:
    q, k, v = tensors(shape, getattr(torch, dtype))
    out, lse = call(q, k, v, mask, return_lse=True)
    judge(out, q, k, v, mask)
    torch.testing.assert_close(lse, attend(q, k, v, mask, None)[1], atol=2e-3, rtol=1e-4)
    judge(call(q, k, v, mask, scale=0.3), q, k, v, mask, 0.3)
    place = torch.full_like(q, float("nan"))
    assert call(q, k, v, mask, out=place) is place and torch.equal(place, out)


def relative(got: Any, want: Any) -> float:
    """The root mean square of the error by that of what is wanted."""
    error = (got.double() - want).square().mean().sqrt()
    return float(error / want.square().mean().sqrt())


@pytest.mark.parametrize(("precision", "limit"), [("s8x16", 0.02), ("s8e4m3", 0.06)])
def test_tensors_of_16_bits_are_quantised(precision: str, limit: float) -> None:
    for shape, dtype in itertools.product(((2, 300, 513, 4, 2, 128), (1, 1024, 1024, 2, 2, 64)),
                                          (torch.bfloat16, torch.float16)):
        q, k, v = tensors(shape, dtype)
        for mask in ("full", "causal"):
            want, want_lse = exact(q, k, v, mask, None)
            first = call(q, k, v, mask, precision=precision, return_lse=True)
            again = call(q, k, v, mask, precision=precision, return_lse=True)
            assert all(torch.equal(one, other) for one, other in zip(first, again))
            assert relative(first[0], want) <= limit
            assert (first[1].double() - want_lse).abs().max() < 0.1
            better = "s8x16" if shape[-1] <= 64 else "s8e4m3"
            if precision == better:
                assert torch.equal(call(q, k, v, mask, precision="bits8"), first[0])


def test_strides_are_taken_as_they_are_or_copied() -> None:
    q, k, v = tensors((2, 200, 200, 4, 4, 64))
    want, before = call(q, k, v), _counts.copies
    packed = torch.stack([q, k, v], 2)
    assert torch.equal(call(packed[:, :, 0], packed[:, :, 1], packed[:, :, 2]), want)
    inner = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (q, k, v)]
    assert torch.equal(call(*inner), want)
    one = k[:1].expand(2, -1, -1, -1)
    assert torch.equal(call(q, one, v), call(q, one.contiguous(), v))
    assert _counts.copies == before
    assert torch.equal(call(q.mT.contiguous().mT, k, v), want)
    odd = torch.empty(q.numel() + 1, dtype=q.dtype, device="cuda")[1:].view(q.shape).copy_(q)
    assert torch.equal(call(odd, k, v), want)
    assert _counts.copies == before + 2


def test_drop_ins_return_theirs() -> None:
    for head_dim in (64, 20):
        q, k, v = tensors((2, 100, 60, 4, 2, head_dim))
        want_lse = attend(q, k, v, "causal", None)[1]
        out2, lse2, _ = flash_attn.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
        out3, lse3 = flash_attn_interface.flash_attn_func(q, k, v, causal=True,
                                                          return_attn_probs=True)
        judge(out2, q, k, v, "causal")
        assert torch.equal(out2, out3)
        torch.testing.assert_close(lse3, want_lse, atol=2e-3, rtol=1e-4)
        keyless = want_lse == float("-inf")
        assert keyless.any() and (lse2[keyless] == float("inf")).all()
        assert torch.equal(lse2[~keyless], lse3[~keyless])


def test_calls_follow_the_current_stream() -> None:
    q, k, v = tensors((1, 512, 512, 4, 4, 64))
    want = call(q, k, v)
    torch.cuda.synchronize()
    for _ in range(20):
        late = torch.zeros_like(q)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(2_000_000)
            late.copy_(q)
            out = call(late, k, v)
        stream.synchronize()
        assert torch.equal(out, want)


def test_calls_wait_for_nothing() -> None:
    q, k, v = tensors((1, 512, 512, 4, 4, 64))
    for precision in ("given", "s8e4m3"):
        call(q, k, v, precision=precision)
        torch.cuda.set_sync_debug_mode("error")
        try:
            call(q, k, v, precision=precision, return_lse=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_another_gpu_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    q, k, v = tensors((1, 300, 300, 4, 4, 64))
    out = call(*(tensor.to("cuda:1") for tensor in (q, k, v)))
    assert torch.cuda.current_device() == 0 and out.device.index == 1
    assert torch.equal(out.to("cuda:0"), call(q, k, v))
    with pytest.raises(fulgurite.RequestError, match="k is on cuda:1, q on cuda:0"):
        call(q, k.to("cuda:1"), v)


@pytest.mark.parametrize("precision", ["given", "s8e4m3", "s8x16"])
def test_graphs_compute_anew_at_each_replay(precision: str) -> None:
    q, k, v = tensors((1, 384, 384, 4, 2, 128))
    call(q, k, v, precision=precision)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(q, k, v, precision=precision)
    for seed in (2, 3):
        for place, new in zip((q, k, v), tensors((1, 384, 384, 4, 2, 128), seed=seed)):
            place.copy_(new)
        graph.replay()
        got = out.clone()
        assert torch.equal(got, call(q, k, v, precision=precision))


def test_a_first_call_in_a_capture_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = tensors((1, 96, 96, 2, 2, 72))
    monkeypatch.setattr(door, "preloaded", set())
    with pytest.raises(fulgurite.DriverError, match="before the capture, or fulgurite.preload"):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            call(q, k, v)
    monkeypatch.undo()
    names = fulgurite.preload(torch.bfloat16, 72, fulgurite.CAUSAL)
    assert names and all("_d96_causal" in name for name in names)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(q, k, v)
    graph.replay()
    judge(out, q, k, v, "causal")


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_programs(mode: str) -> None:
    def layer(q: Any, k: Any, v: Any) -> Any:
        return call(q * 2, k, v).transpose(1, 2) + 1

    q, k, v = tensors((2, 256, 256, 4, 2, 64))
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, mode=mode)
    with torch.no_grad():
        call(q, k, v)
        for _ in range(3):
            torch.testing.assert_close(compiled(q, k, v), layer(q, k, v), atol=1e-2, rtol=1e-2)


def test_memory_is_pytorchs_and_comes_back() -> None:
    q, k, v = tensors((1, 512, 512, 4, 4, 64))
    call(q, k, v, precision="s8e4m3")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        out = call(q, k, v, precision="s8e4m3")
    assert torch.cuda.memory_allocated() == before + out.numel() * 2


def test_models_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=128, max_position_embeddings=512)
    model = transformers.LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()
    tokens = torch.randint(0, 128, (2, 300), device="cuda")
    with torch.no_grad():
        model.set_attn_implementation("eager")
        want = model(tokens).logits.float()
        model.set_attn_implementation(door.enable_transformers())
        got = model(tokens).logits.float()
        assert (got - want).abs().max() < 0.05 * want.abs().max()
        assert model.generate(tokens, max_new_tokens=8, do_sample=False).shape == (2, 308)


def test_host_cost(capsys: pytest.CaptureFixture[str]) -> None:
    """The limit is loose, for machines under load; the goal is 8 us."""
    q, k, v = tensors((1, 64, 64, 1, 1, 64))
    heads = [tensor.transpose(1, 2) for tensor in (q, k, v)]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    calls: dict[str, Callable[[], Any]] = {
        "fulgurite.attention": lambda: call(q, k, v),
        "torch.ops.fulgurite.forward": lambda: torch.ops.fulgurite.forward(q, k, v, "causal"),
        "fulgurite.flash_attn_func": lambda: flash_attn.flash_attn_func(q, k, v, causal=True),
        "s8e4m3": lambda: call(q, k, v, precision="s8e4m3"),
        "scaled_dot_product_attention": lambda: sdpa(*heads, is_causal=True)}
    costs = {}
    with torch.no_grad():
        for name, one in calls.items():
            costs[name] = min(microseconds(one) for _ in range(20))
    with capsys.disabled():
        print("\nhost cost of a call, best of 20 times 200, in us, on",
              torch.cuda.get_device_name())
        for name, cost in costs.items():
            print(f"  {name:<30} {cost:6.2f}")
    assert costs["fulgurite.attention"] < 40


def microseconds(one: Callable[[], Any], count: int = 200) -> float:
    """What a call costs the host: fewer calls than a stream's queue holds, so that none waits."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        one()
    return (time.perf_counter() - begin) / count * 1e6
