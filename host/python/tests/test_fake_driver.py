"""Plans, launches and `info` on a driver that computes nothing: no GPU and no PyTorch needed."""
from __future__ import annotations

import pytest

from conftest import Scene

CALLS = """
import fulgurite
from fulgurite import _forward
from fulgurite._forward import Plan, Request, Tensor

def request(q_len=100, kv_len=200, mask="causal", precision="given", head_dim=64, **changed):
    q = Tensor.contiguous("f16", (2, q_len, 8, head_dim))
    kv = Tensor.contiguous("f16", (2, kv_len, 2, head_dim))
    return Request(q, kv, kv, q, mask, None, precision, True)._replace(**changed)

def refused(kind, text, change):
    try:
        Plan(change, 0)
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)
"""


def test_a_plan_launches_its_kernel(scene: Scene) -> None:
    said = scene.run(CALLS + """
plan = Plan(request(), 0)
assert plan.entry() == "fwd_sm90_f16_d64_causal_short" and plan.workspace_bytes == 0
assert "(2, 8, 100, 64)" in plan.describe().replace("[", "(").replace("]", ")"), plan.describe()
plan.run(0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000)
for place in range(5):
    addresses = [0x1000] * 5
    addresses[place] = 0x1004 if place < 4 else 0x1002
    try:
        plan.run(0, *addresses)
    except fulgurite.AddressError as error:
        name = ["q", "k", "v", "out", "lse"][place]
        assert f"the address of {name} is" in str(error), error
    else:
        raise AssertionError(place)
del plan
""")
    assert said.count("launch fwd_sm90_f16_d64_causal_short") == 1


def test_eight_bits_get_a_workspace_that_is_reset(scene: Scene) -> None:
    said = scene.run(CALLS + """
plan = Plan(request(precision="s8e4m3"), 0)
assert plan.workspace_bytes > 8192
plan.run(0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x10000)
plan.run(0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x10000)
""")
    assert said.count("set 8192 bytes at 0x10000 to 0") == 2
    assert said.count("launch fwd_sm90_s8e4m3_d64_causal") == 2


def test_what_the_library_refuses_has_its_class(scene: Scene) -> None:
    scene.run(CALLS + """
refused(fulgurite.RequestError, "k has batch 3",
        request(k=Tensor.contiguous("f16", (3, 200, 2, 64))))
refused(fulgurite.UnsupportedError, "head dim", request(head_dim=20))
refused(fulgurite.UnsupportedError, "head dim", request(head_dim=264))
refused(fulgurite.UnsupportedError, "element type", request()._replace(**{
    name: Tensor.contiguous("f32", shape._replace(dtype="f32").shape)
    for name, shape in zip(("q", "k", "v", "out"), request()[:4])}))
refused(fulgurite.ArgumentError, "precision='half'", request(precision="half"))
for scale in (0.0, -1.0, float("nan"), float("inf"), 1e-60):
    refused(fulgurite.RequestError, "scale=", request(scale=scale))
refused(fulgurite.RequestError, "softmax scale", request(scale=1e-40))
try:
    Plan(request(), 1)
except fulgurite.DeviceError as error:
    assert "no device 1" in str(error)
""")


def test_preload_loads_every_kernel_of_a_family(scene: Scene) -> None:
    said = scene.run("""
import fulgurite
print(fulgurite.preload("bf16", 64), fulgurite.preload("torch.float16", 128, fulgurite.FULL))
for wrong in (dict(dtype="float"), dict(mask=None), dict(mask=fulgurite.window(3, 0)),
              dict(head_dim=0), dict(head_dim="64"), dict(precision="half")):
    try:
        fulgurite.preload(**wrong)
    except ValueError as error:
        assert next(iter(wrong)) in str(error)
    else:
        raise AssertionError(wrong)
""")
    for entry in ("bf16_d64_causal", "bf16_d64_causal_short", "bf16_d64_causal_long",
                  "f16_d128_full", "f16_d128_full_long"):
        assert f"compile fwd_sm90_{entry}\n" in said and f"'fwd_sm90_{entry}'" in said


def test_info_tells_the_driver_and_its_gpus(scene: Scene) -> None:
    said = scene.run("import runpy; runpy.run_module('fulgurite')", FAKE_DEVICES="2")
    assert "CUDA of the driver   12.4\n" in said
    assert said.count("Fake H100: supported\n") == 2 and str(scene.library) in said
    none = scene.run("import fulgurite; print(fulgurite.info())", FAKE_FAIL="cuInit=803")
    assert "cuInit fails with code 803" in none


def test_without_a_driver_the_error_says_so(library_file: object) -> None:
    scene = Scene(library_file, None)  # type: ignore[arg-type]
    said = scene.run(CALLS + """
import ctypes
try:
    ctypes.CDLL("libcuda.so.1")
    print("SKIP")
except OSError:
    refused(fulgurite.DeviceError, "driver", request())
    assert fulgurite.info().driver.startswith("MISSING"), fulgurite.info()
""")
    if "SKIP" in said:
        pytest.skip("this machine has a driver")


def test_plans_are_freed_and_a_process_ends_quietly(scene: Scene) -> None:
    said = scene.run(CALLS + """
freed = []
from fulgurite._interface import Plan as Handle
destroy = Handle.destroy
Handle.destroy = lambda self: (freed.append(self), destroy(self))
for _ in range(3):
    Plan(request(), 0)
kept = Plan(request(), 0)
print("freed", len(freed))
""")
    assert "freed 3\n" in said


GRADIENTS = CALLS + """
from fulgurite._gradients import GradientPlan, Gradients, check_rows, walkable

def gradients(**changed):
    forward = request(**changed)
    return Gradients(forward, forward.out, True)
"""


def test_a_plan_of_gradients_launches_its_kernels(scene: Scene) -> None:
    said = scene.run(GRADIENTS + """
plan = GradientPlan(gradients(), 0)
assert plan.entry() == "bwd_dq_sm90_f16_d64_causal" and plan.workspace_bytes > 8192
read, written = [0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000], [0x7000, 0x8000, 0x9000]
plan.run(0, tuple(read), tuple(written), 0xa000, 0x10000, 0)
for place, name in enumerate(["q", "k", "v", "out", "lse", "d_out"]):
    addresses = list(read)
    addresses[place] = 0x1002
    try:
        plan.run(0, tuple(addresses), tuple(written), 0xa000, 0x10000, 0)
    except fulgurite.AddressError as error:
        assert f"the address of {name} is" in str(error), error
    else:
        raise AssertionError(name)
del plan
""")
    assert said.count("launch bwd_dkdv_sm90_f16_d64_causal") == 1
    assert said.count("launch bwd_dq_sm90_f16_d64_causal") == 1


def test_numbers_of_rows_have_a_row_each(scene: Scene) -> None:
    scene.run(GRADIENTS + """
q = request().q
check_rows("lse", Tensor.contiguous("f32", (2, 8, 100)), q)
for wrong in (Tensor.contiguous("f16", (2, 8, 100)), Tensor.contiguous("f32", (2, 8, 99)),
              Tensor.contiguous("f32", (1600,))):
    try:
        check_rows("lse", wrong, q)
    except fulgurite.RequestError as error:
        assert "it must be float32 (batch, heads, rows) (2, 8, 100)" in str(error), error
    else:
        raise AssertionError(wrong)
""")


def test_gradients_of_what_no_kernel_can_walk_are_copied(scene: Scene) -> None:
    scene.run(GRADIENTS + """
given = gradients()
assert walkable(given) == (given, (False,) * 5)
summed = Tensor("f16", given.d_out.shape, (0, 0, 0, 0))
assert walkable(given._replace(d_out=summed)) == (given, (False, False, False, False, True))
""")
