"""What the tests share: the library, a fake driver, and the reasons to skip."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fulgurite import _errors, _library

PACKAGE = Path(__file__).resolve().parents[1]
HOST = PACKAGE.parent
REQUIRED = "FULGURITE_REQUIRE_GPU"


@pytest.fixture(scope="session")
def library_file() -> Path:
    """The shared library; tests that need it are skipped without one."""
    try:
        return _library.find().resolve()
    except _errors.InternalError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver that computes nothing and prints what it loads and launches."""
    if shutil.which("rustc") is None:
        pytest.skip("there is no rustc here to build the fake driver with")
    folder = tmp_path_factory.mktemp("driver")
    source = HOST / "tests/fake_driver/libcuda.rs"
    subprocess.run(["rustc", "--edition", "2024", "--crate-type", "cdylib", "--crate-name", "cuda",
                    "-o", folder / "libcuda.so.1", source], check=True, cwd=HOST)
    shutil.copy(folder / "libcuda.so.1", folder / "libcuda.so")
    return folder


# For programs of a `Scene` that have a `call`: it raises an error of this kind with this text.
REFUSED = """
def refused(kind, text, *arguments, **options):
    try:
        call(*arguments, **options)
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)
"""


class Scene:
    """Programs in a process of their own, which finds the library and the driver in a folder."""

    def __init__(self, library: Path, driver: Path | None) -> None:
        self.library, self.driver = library, driver

    def run(self, program: str, *arguments: str, **variables: str) -> str:
        """What a program printed, once it ended well."""
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE),
                       "FULGURITE_LIBRARY": str(self.library), **variables}
        if self.driver is not None:
            environment["LD_LIBRARY_PATH"] = str(self.driver)
        ended = subprocess.run([sys.executable, "-B", *arguments, "-c", program], text=True,
                               capture_output=True, env=environment, timeout=120)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture(scope="session")
def scene(library_file: Path, fake_driver: Path) -> Scene:
    """Programs on the fake driver; skipped where the library has no kernels."""
    told = Scene(library_file, fake_driver)
    probe = "import fulgurite\ntry: fulgurite.preload()\nexcept fulgurite.InternalError as e: " \
            "print('NOT BUILT', e)"
    if "NOT BUILT" in told.run(probe):
        pytest.skip("the library has no kernels (`cargo xtask build`)")
    return told


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked `gpu` where there is none, unless one is required."""
    reason = no_gpu()
    if reason is None or os.environ.get(REQUIRED):
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def no_gpu() -> str | None:
    """Why tests that need a GPU cannot run; None if they can."""
    try:
        import torch
    except ImportError:
        return "needs PyTorch, which is not installed"
    if not torch.cuda.is_available():
        return "needs a GPU, and PyTorch sees none"
    major = torch.cuda.get_device_capability()[0]
    return None if major == 9 else f"needs a Hopper GPU, this one has capability {major}.x"
