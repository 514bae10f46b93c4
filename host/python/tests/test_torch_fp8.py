"""Tensors of e4m3 in PyTorch, on the CPU with a stand-in body; skipped without PyTorch."""
from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch, which is not installed")

import fulgurite  # noqa: E402
from conftest import REFUSED, Scene  # noqa: E402
from fulgurite import flash_attn_interface  # noqa: E402
from fulgurite import torch as door  # noqa: E402
from reference import attend  # noqa: E402
from test_torch import stand_in, tensors  # noqa: E402,F401

E4M3 = torch.float8_e4m3fn
BY_HEAD, BY_ROW = (2, 2), (2, 4, 6)


def eight_bits(*lengths: int) -> list[Any]:
    return [tensor.to(E4M3) for tensor in tensors(*lengths)]


def numbers(*shape: int) -> Any:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.5


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("descale", [
    (None, 1.0, 1), (numbers(), numbers(1), numbers(1, 1)),
    (numbers(*BY_HEAD), numbers(*BY_HEAD).T, numbers(2, 1).expand(2, 2)),
    (numbers(*BY_ROW), None, numbers(*BY_HEAD))])
def test_stored_numbers_are_multiplied(descale: tuple[Any, ...]) -> None:
    q, k, v = eight_bits()
    want, want_lse = attend(q, k, v, "causal", None,
                            tuple(None if isinstance(one, int) else one for one in descale))
    out, lse = fulgurite.attention(q, k, v, fulgurite.CAUSAL, descale=descale, return_lse=True)
    assert out.dtype == torch.bfloat16 and torch.equal(out, want) and torch.equal(lse, want_lse)
    place = torch.empty(q.shape, dtype=torch.float16)
    assert fulgurite.attention(q, k, v, fulgurite.CAUSAL, descale=descale, out=place) is place
    torch.testing.assert_close(place.float(), want.float(), atol=1e-2, rtol=1e-2)


def test_what_is_said_reaches_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    def listen(q: Any, *others: Any) -> tuple[Any, Any]:
        said.append(others[-1])
        return q.new_empty(q.shape, dtype=torch.bfloat16), q.new_empty(0, dtype=torch.float32)

    monkeypatch.setattr(door, "on_cpu", listen)
    q, k, v = eight_bits()
    one = numbers(1)
    fulgurite.attention(q, k, v, fulgurite.FULL)
    fulgurite.attention(q, k, v, fulgurite.FULL, descale=(1.0, None, 1))
    fulgurite.attention(q, k, v, fulgurite.FULL, descale=(None, one, None))
    torch.ops.fulgurite.forward(q, k, v, "full", descale_v=one)
    torch.ops.fulgurite.forward(q, k, v, "full", with_descale=True)
    torch.ops.fulgurite.forward(q, k, v, "full")
    flash_attn_interface.flash_attn_func(q, k, v)
    ones = (None, None, None)
    wanted = [None, ones, (None, one, None), (None, None, one), ones, None, ones]
    assert len(said) == len(wanted)
    for got, want in zip(said, wanted):
        assert (got is None) == (want is None)
        for own, other in zip(got or (), want or ()):
            assert (own is None) == (other is None) and (own is None or torch.equal(own, other))


@pytest.mark.usefixtures("stand_in")
def test_gradients_of_descales_are_refused() -> None:
    q, k, v = eight_bits()
    for place in range(3):
        descale = [numbers(1).requires_grad_(index == place) for index in range(3)]
        with pytest.raises(NotImplementedError, match=f"the descale of {'qkv'[place]} requires"):
            fulgurite.attention(q, k, v, fulgurite.FULL, descale=descale)
        with torch.no_grad():
            fulgurite.attention(q, k, v, fulgurite.FULL, descale=descale)


def test_descales_of_another_framework_are_refused() -> None:
    numpy = pytest.importorskip("numpy", reason="needs NumPy")
    with pytest.raises(fulgurite.ArgumentError, match="descale of v is ndarray of shape"):
        fulgurite.attention(*eight_bits(), fulgurite.FULL,
                            descale=(None, None, numpy.ones((2, 2), numpy.float32)))


def test_arrays_of_another_framework_lend_their_descales(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy", minversion="2.1", reason="needs NumPy 2.1 or later")
    said = []

    def listen(q: Any, *others: Any) -> tuple[Any, Any]:
        said.append(others[-1])
        return q.clone(), q.new_empty(0, dtype=torch.float32)

    monkeypatch.setattr(door, "on_cpu", listen)
    q, k, v = (tensor.numpy() for tensor in tensors(dtype=torch.float16))
    given = numpy.full((2, 2), 0.5, numpy.float32)
    fulgurite.attention(q, k, v, fulgurite.FULL, descale=(None, given, 1.0))
    assert said[0][0] is said[0][2] is None and torch.equal(said[0][1], torch.full((2, 2), 0.5))


DESCALES = [(numbers(*BY_ROW), numbers(*BY_HEAD), numbers(1), True), (None, None, None, True),
            (None, numbers(*BY_HEAD), None)]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("descale", DESCALES)
def test_the_operators_keep_pytorchs_rules(descale: tuple[Any, ...]) -> None:
    options = ("causal", None, "given", True, *descale)
    # PyTorch cannot compare tensors of e4m3, as the test of the schema does: it gets others.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor",
             "test_aot_dispatch_dynamic")
    for inputs, some in ((eight_bits(), tests[1:]), (tensors(), tests)):
        place = torch.empty(inputs[0].shape, dtype=torch.bfloat16)
        torch.library.opcheck(torch.ops.fulgurite.forward.default, (*inputs, *options),
                              test_utils=some)
        torch.library.opcheck(torch.ops.fulgurite.forward_out.default, (*inputs, place, *options),
                              test_utils=some)


def test_fake_tensors_of_8_bits_give_an_output_of_16() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode():
        q, k, v = (tensor.to(E4M3) for tensor in tensors(device="cuda"))
        one = torch.empty(2, 2, device="cuda")
        out, lse = fulgurite.attention(q, k, v, fulgurite.CAUSAL, descale=(one, 1.0, None),
                                       return_lse=True)
        assert (out.shape, out.dtype, out.device.type) == (q.shape, torch.bfloat16, "cuda")
        assert tuple(lse.shape) == (2, 4, 6) and lse.dtype == torch.float32


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_programs_compute_the_same(backend: str) -> None:
    def layer(q: Any, k: Any, v: Any, of_q: Any, of_k: Any) -> Any:
        eight = [tensor.to(E4M3) for tensor in (q, k, v)]
        first, lse = fulgurite.attention(*eight, fulgurite.CAUSAL, return_lse=True,
                                         descale=(of_q, of_k * 2, 1.0))
        second = flash_attn_interface.flash_attn_func(*eight, v_descale=of_k, causal=True)
        third = torch.ops.fulgurite.forward(*eight, "full", descale_v=of_k)[0]
        return first + second + third, lse

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for q_len in (6, 9):
        inputs = [*tensors(q_len=q_len), numbers(2, 4, q_len), numbers(2, 2)]
        with torch.no_grad():
            wants, gots = layer(*inputs), compiled(*inputs)
        for want, got in zip(wants, gots):
            torch.testing.assert_close(got, want, atol=3e-2, rtol=3e-2)


@pytest.mark.usefixtures("stand_in")
def test_flash_attention_3_returns_bf16() -> None:
    q, k, v = eight_bits(9, 9)
    keys, values = (tensor.view(torch.uint8).repeat_interleave(2, 2).view(E4M3)
                    for tensor in (k, v))
    given = dict(q_descale=numbers(2, 2), k_descale=numbers(2, 2) + 1, v_descale=numbers(2, 2) + 2)
    want, want_lse = attend(q, k, v, "causal", None, tuple(given.values()))
    out, lse = flash_attn_interface.flash_attn_func(q, k, v, causal=True, return_attn_probs=True,
                                                    **given)
    assert out.dtype == torch.bfloat16 and torch.equal(out, want) and torch.equal(lse, want_lse)
    heads = torch.cat([q, k, v], 2)
    assert torch.equal(flash_attn_interface.flash_attn_qkvpacked_func(
        heads, causal=True, num_heads_q=4, **given), want)
    spread = {name: one.repeat_interleave(2, 1) for name, one in given.items()}
    assert torch.equal(flash_attn_interface.flash_attn_qkvpacked_func(
        torch.stack([q, keys, values], 2), causal=True, **spread), want)
    assert torch.equal(flash_attn_interface.flash_attn_with_kvcache(q, k, v, causal=True, **given),
                       want)


def test_head_dims_are_padded_to_16_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []

    def listen(q: Any, k: Any, v: Any, *others: Any) -> tuple[Any, Any]:
        widths.append((q.shape[3], k.shape[3], v.shape[3]))
        return attend(q, k, v, others[0], others[1], others[-1])

    monkeypatch.setattr(door, "on_cpu", listen)
    q, k, v = (tensor.to(E4M3) for tensor in tensors(head_dim=24))
    out = flash_attn_interface.flash_attn_func(q, k, v)
    assert widths == [(32, 32, 32)]
    assert torch.equal(out, attend(q, k, v, "full", None)[0])


@pytest.mark.usefixtures("stand_in")
def test_caches_are_written_only_once_all_is_checked() -> None:
    q, k, v = eight_bits(2, 2)
    _, k_cache, v_cache = eight_bits(2, 12)
    grown = [torch.cat([cache[:, :5], new], 1) for cache, new in ((k_cache, k), (v_cache, v))]
    before = [cache.clone() for cache in (k_cache, v_cache)]

    def call(new: Any, **options: Any) -> Any:
        return flash_attn_interface.flash_attn_with_kvcache(
            q, k_cache, v_cache, *new, cache_seqlens=5, causal=True, **options)

    with pytest.raises(fulgurite.RequestError, match=r"descale of k has the shape \(2, 4\)"):
        call((k, v), k_descale=numbers(2, 4))
    with pytest.raises(fulgurite.RequestError, match="v has elements of type torch.bfloat16, its"):
        call((k, v.bfloat16()))
    for cache, old in zip((k_cache, v_cache), before):
        assert torch.equal(cache.view(torch.uint8), old.view(torch.uint8))
    given = numbers(2, 2)
    want, _ = attend(q, *grown, "causal", None, (None, given, None))
    assert torch.equal(call((k, v), k_descale=given), want)


LAUNCHES = """
import itertools, torch, fulgurite
from fulgurite import _counts, _forward, torch as door

# PyTorch itself needs more of a driver than the fake one has.
door._is_capturing = lambda device: False
# PyTorch's memory on a GPU begins at multiples of 512 bytes, on a CPU at those of 64.
run = _forward.Plan.run
_forward.Plan.run = lambda plan, stream, q, k, v, out, lse, workspace, *others: run(
    plan, stream, q, k, v, out, lse, workspace + -workspace % 512, *others)

def call(q, k, v, descale, out=None, precision="given"):
    return door.launch(q, k, v, out, "causal", None, precision, True, 0, 0, descale)

def tensor(*shape):
    return torch.zeros(*shape, dtype=torch.bfloat16).to(torch.float8_e4m3fn)

q, kv = tensor(2, 100, 8, 64), tensor(2, 200, 2, 64)
none, one, by_head, by_row = (None,) * 3, torch.ones(1), torch.ones(2, 2), torch.ones(2, 8, 100)
"""


def test_launches_reach_the_driver(scene: Scene) -> None:
    said = scene.run(LAUNCHES + """
for _ in range(2):
    out, lse = call(q, kv, kv, none)
assert out.shape == q.shape and out.dtype == torch.bfloat16 and out.is_contiguous()
assert lse.shape == (2, 8, 100) and len(door._plans) == 1
# What a plan does not know of a descale is no part of its key.
for descale in ((one, by_head, None), (one + 1, by_head + 1, None)):
    call(q, kv, kv, descale)
assert len(door._plans) == 2
call(q, kv, kv, (by_row, by_head.T, by_head[:1].expand(2, 2)))
call(q, kv, kv, (one, by_row[0, 0, :4].view(2, 2), None))
assert len(door._plans) == 3
place = torch.empty(2, 100, 8, 64, dtype=torch.float16)
assert call(q, kv, kv, none, place)[0] is place
assert call(q.transpose(1, 2).contiguous().transpose(1, 2), kv, kv, none)[0].is_contiguous()
assert _counts.copies == 0
odd = tensor(2 * 200 * 2 * 64 + 8)[8:].view(2, 200, 2, 64)
assert odd.data_ptr() % 16 == 8
call(q, odd, kv, none)
call(q, kv, tensor(2, 200, 2, 72)[..., :64], none)
assert _counts.copies == 2
assert call(q, kv[:, :0], kv[:, :0], none)[0].dtype == torch.bfloat16
assert call(q[:, :0], kv, kv, (by_row[..., :0], by_head, None))[0].shape == (2, 0, 8, 64)
""")
    assert said.count("launch transpose_e4m3_d64") == said.count("launch fwd_sm90_e4m3_d64_causal")
    assert said.count("launch fwd_sm90_e4m3_d64_causal") == 10


def test_the_arguments_hold_the_addresses(scene: Scene) -> None:
    scene.run(LAUNCHES + """
from fulgurite import _interface, _library
packed = []
def pack(*fields):
    packed.append(_library.pack_args(*fields))
    return packed[-1]
_forward.pack_args = pack
for descale in itertools.product((None, one, by_row), (None, by_head), (None, one)):
    call(q, kv, kv, descale)
    args = _interface.ForwardArgs.from_buffer_copy(packed[-1])
    got = args.descale_q, args.descale_k, args.descale_v
    assert got == tuple(number if number is None else number.data_ptr() for number in descale)
    assert args.q == q.data_ptr() and args.workspace_bytes > 8192
""")


def test_what_calls_get_wrong_is_told(scene: Scene) -> None:
    scene.run(LAUNCHES + REFUSED + """
request, half = fulgurite.RequestError, (q.half(), kv.half(), kv.half())
refused(request, "q, k and v are e4m3, and it is not said", q, kv, kv, None)
refused(request, "q, k and v are f16, whose numbers are meant as they are", *half, none)
refused(request, "k has elements of type f16", q, kv.half(), kv, none)
refused(request, "descale of k is on meta, q on cpu", q, kv, kv, (None, by_head.to("meta"), None))
refused(request, "descale of v has elements of type torch.float64", q, kv, kv,
        (None, None, one.double()))
refused(request, "descale of k has the shape (2, 8, 100)", q, kv, kv, (None, by_row, None))
refused(request, "descale of q, one for each row, has the strides", q, kv, kv,
        (torch.ones(2, 100, 8).transpose(1, 2), None, None))
refused(fulgurite.UnsupportedError, "q has elements of type torch.float8_e5m2", q.to(
        torch.float8_e5m2), kv, kv, none)
refused(fulgurite.UnsupportedError, "e4m3 asked, bf16 or f16 there", q, kv, kv, none,
        precision="s8x16")
refused(fulgurite.UnsupportedError, "element type of out (e4m3 asked", q, kv, kv, none, q)
crooked = torch.frombuffer(bytearray(17), dtype=torch.float32, offset=1)
refused(fulgurite.AddressError, "the address of descale_v", q, kv, kv,
        (None, None, crooked.view(2, 2)))
""")
