"""What tensors of 8 bits are multiplied with: shapes, the request's bytes, the kernels' launches on
the fake driver; no PyTorch needed."""
from __future__ import annotations

import struct
from typing import Any

import pytest

import fulgurite
from conftest import Scene
from fulgurite import _attention, _forward, _interface
from fulgurite._forward import Descale, Request, Tensor
from test_attention import Array, attend

Q, K = Tensor.contiguous("e4m3", (2, 100, 8, 64)), Tensor.contiguous("e4m3", (2, 200, 4, 64))
OUT = Q._replace(dtype="bf16")


def floats(*shape: int) -> Tensor:
    return Tensor.contiguous("f32", shape)


def kind(numbers: Tensor | None, name: str = "q", q: Tensor = Q) -> Descale:
    return _forward.descale_of(name, numbers, q, K)


def test_kinds_are_known_by_shape() -> None:
    for name in "qkv":
        assert kind(None, name) == Descale("one")
        for shape in ((), (1,), (1, 1)):
            assert kind(floats(*shape), name) == Descale("per_tensor")
        assert kind(floats(2, 4), name) == Descale("per_head", (4, 1))
        assert kind(Tensor("f32", (2, 4), (0, 3)), name) == Descale("per_head", (0, 3))
    assert kind(floats(2, 8, 100)) == Descale("per_row")


def test_the_stride_of_an_axis_of_one_index_is_not_looked_at() -> None:
    one = Q._replace(shape=(1, 100, 8, 64))
    assert kind(Tensor("f32", (1, 8, 100), (7, 100, 1)), q=one) == Descale("per_row")
    none = Q._replace(shape=(2, 0, 8, 64))
    assert kind(Tensor("f32", (2, 8, 0), (9, 9, 9)), q=none) == Descale("per_row")


@pytest.mark.parametrize(("name", "numbers", "text"), [
    ("k", Tensor("f16", (2, 4), (4, 1)), "descale of k has elements of type f16: .* float32"),
    ("k", Tensor("torch.float64", (), ()), "descale of k has elements of type torch.float64"),
    ("v", floats(2, 8), r"v has the shape .* one number, or \(batch, KV heads\) \(2, 4\)$"),
    ("k", floats(2, 8, 100), r"descale of k has the shape \(2, 8, 100\)"),
    ("q", floats(2, 8), r"q has the shape .* \(2, 4\), or \(batch, heads, rows\) \(2, 8, 100\)$"),
    ("q", floats(2, 100, 8), r"descale of q has the shape \(2, 100, 8\)"),
    ("q", floats(0), r"descale of q has the shape \(0,\)"),
    ("q", Tensor("f32", (2, 8, 100), (800, 1, 8)), "each row, has the strides .*contiguous"),
    ("q", Tensor("f32", (2, 8, 100), (0, 100, 1)), "each row, has the strides .*contiguous"),
])
def test_other_numbers_are_refused(name: str, numbers: Tensor, text: str) -> None:
    with pytest.raises(fulgurite.RequestError, match=text):
        kind(numbers, name)


def test_what_is_left_out_is_one() -> None:
    number = Array((1,))
    assert _attention.descales((None, 1.0, 1)) == (None, None, None)
    assert _attention.descales([number, None, number]) == (number, None, number)


@pytest.mark.parametrize(("descale", "text"), [
    (Array((3,)), r"descale=Array of shape \(3,\): it must be \(q, k, v\)"),
    (1.0, r"descale=1\.0: it must be \(q, k, v\)"),
    ((None, None), r"descale=\(None, None\): it must be \(q, k, v\)"),
    ((None, 0.5, None), r"descale of k is 0\.5: it must be None, 1\.0 or a float32 tensor"),
    ((True, None, None), "descale of q is True"),
    ((None, None, "1"), "descale of v is '1'"),
])
def test_what_are_no_numbers_is_refused(descale: Any, text: str) -> None:
    with pytest.raises(fulgurite.ArgumentError, match=text):
        attend(descale=descale)


def test_the_requests_bytes_are_the_headers() -> None:
    def layout(dtype: int, heads: int, rows: int) -> bytes:
        strides = (rows * heads * 64, 64, heads * 64, 1)
        return struct.pack("<2I9Q", dtype, 1, 0, 2, heads, rows, 64, *strides)

    descale = Descale("per_row"), Descale("per_head", (4, 1)), Descale("per_tensor")
    request = Request(Q, K, K, OUT, "causal", None, "given", True, descale)
    got = bytes(_forward.request_struct(request, 3))
    want = struct.pack("<3If", 3, 2, 1, 0.0)
    want += layout(4, 8, 100) + 2 * layout(4, 4, 200) + layout(1, 8, 100)
    want += struct.pack("<2I", 1, 0)
    want += struct.pack("<2I2Q", 4, 0, 0, 0) + struct.pack("<2I2Q", 3, 0, 4, 1)
    want += struct.pack("<2I2Q", 2, 0, 0, 0)
    # No window.
    want += struct.pack("<2i", 0, 0)
    assert got == struct.pack("<Q", len(got)) + want
    unsaid = bytes(_forward.request_struct(request._replace(descale=None), 3))
    assert unsaid[:-80] == got[:-80] and unsaid[-80:] == bytes(80)
    for name, number in _interface.PRECISIONS.items():
        at = _interface.ForwardRequest.precision.offset
        changed = bytes(_forward.request_struct(request._replace(precision=name), 3))
        assert struct.unpack_from("<I", changed, at) == (number,)


CALLS = """
import fulgurite
from fulgurite._forward import Descale, Plan, Request, Tensor

Q, K = Tensor.contiguous("e4m3", (2, 100, 8, 64)), Tensor.contiguous("e4m3", (2, 200, 4, 64))
OUT = Q._replace(dtype="bf16")
ONE, HEAD, ROW = Descale("one"), Descale("per_head", (4, 1)), Descale("per_row")
ALL = ROW, HEAD, Descale("per_tensor")
TENSORS = dict(q=0x1000, k=0x2000, v=0x3000, out=0x4000, lse=0x5000, workspace=0x10000)
NUMBERS = dict(descale_q=0x6000, descale_k=0x7000, descale_v=0x8000)

def plan(*descale, **changed):
    request = Request(Q, K, K, OUT, "causal", None, "given", True, descale or None)
    return Plan(request._replace(**changed), 0)

def refused(kind, text, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)
"""


def test_values_are_transposed_before_the_kernel(scene: Scene) -> None:
    said = scene.run(CALLS + """
made = plan(*ALL)
assert made.entry() == "fwd_sm90_e4m3_d64_causal" and made.workspace_bytes > 8192
assert "q per row, k per head, v per tensor" in made.describe(), made.describe()
made.run(0, **TENSORS, **NUMBERS)
plan(*ALL, out=OUT._replace(dtype="f16")).run(0, **TENSORS, **NUMBERS)
""")
    assert said.count("set 8192 bytes at 0x10000 to 0") == 2
    launches = [line.split()[1] for line in said.splitlines() if line.startswith("launch ")]
    assert launches == ["transpose_e4m3_d64", "fwd_sm90_e4m3_d64_causal"] * 2


def test_each_address_is_where_the_library_reads_it(scene: Scene) -> None:
    scene.run(CALLS + """
made = plan(*ALL)
for name in NUMBERS:
    refused(fulgurite.AddressError, f"the address of {name} is", made.run, 0,
            **{**TENSORS, **NUMBERS, name: 0x6002})
    refused(fulgurite.AddressError, name, made.run, 0, **{**TENSORS, **NUMBERS, name: 0})
ones = plan(ONE, ONE, ONE)
ones.run(0, **TENSORS)
for name in NUMBERS:
    refused(fulgurite.AddressError, name, ones.run, 0, **TENSORS, **{name: 0x6000})
""")


def test_what_the_library_refuses_has_its_class(scene: Scene) -> None:
    scene.run(CALLS + """
refused(fulgurite.RequestError, "q, k and v are e4m3, and it is not said", plan)
half = {name: one._replace(dtype="f16") for name, one in zip(("q", "k", "v", "out"), (Q, K, K, Q))}
plan(**half)
refused(fulgurite.RequestError, "q, k and v are f16, whose numbers are meant as they are stored",
        plan, ONE, ONE, ONE, **half)
refused(fulgurite.RequestError, "the descale of k is per row", plan, ONE, ROW, ONE)
refused(fulgurite.RequestError, "k has elements of type", plan, *ALL, k=half["k"])
refused(fulgurite.UnsupportedError, "element type of out (e4m3 asked", plan, *ALL, out=Q)
for precision in ("s8e4m3", "s8x16", "bits8"):
    refused(fulgurite.UnsupportedError, "element type (e4m3 asked, bf16 or f16 there)", plan, *ALL,
            precision=precision)
narrow = {name: Tensor.contiguous(one.dtype, (*one.shape[:3], 56))
          for name, one in zip(("q", "k", "v", "out"), (Q, K, K, OUT))}
refused(fulgurite.UnsupportedError, "multiples of 16", plan, *ALL, **narrow)
""")


def test_precisions_have_their_kernels(scene: Scene) -> None:
    scene.run(CALLS + """
def entry(precision, head_dim, dtype="f16"):
    q = Tensor.contiguous(dtype, (1, 300, 2, head_dim))
    return Plan(Request(q, q, q, q, "full", None, precision, False), 0).entry()

assert entry("s8x16", 128) == "fwd_sm90_s8f16_d128_full"
assert entry("s8x16", 64, "bf16") == "fwd_sm90_s8bf16_d64_full"
assert entry("bits8", 64) == "fwd_sm90_s8f16_d64_full"
assert entry("bits8", 128) == entry("s8e4m3", 128) == "fwd_sm90_s8e4m3_d128_full"
""")


def test_preload_loads_the_kernels_of_8_bits(scene: Scene) -> None:
    said = scene.run("""
import fulgurite
print(fulgurite.preload("torch.float8_e4m3fn", 128, fulgurite.FULL))
print(fulgurite.preload("bf16", 64, precision="bits8"))
try:
    fulgurite.preload("e5m2")
except fulgurite.UnsupportedError as error:
    assert "e5m2 asked" in str(error)
else:
    raise AssertionError
""")
    for entry in ("fwd_sm90_e4m3_d128_full", "transpose_e4m3_d128", "fwd_sm90_s8bf16_d64_causal",
                  "quantise_bf16_d64"):
        assert f"compile {entry}\n" in said
    # A call without keys is computed in the type of its output.
    assert "'fwd_sm90_bf16_d128_causal" in said and "'fwd_sm90_f16_d128_causal" in said
