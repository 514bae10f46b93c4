"""Where the shared library is looked for, and what is said of one that does not fit."""
import shutil
from pathlib import Path

import pytest

import fulgurite
from conftest import HOST, PACKAGE, Scene
from fulgurite import _library


def test_the_variable_wins_and_must_name_a_file(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "any.so"
    named.write_bytes(b"")
    monkeypatch.setenv(_library.VARIABLE, str(named))
    assert _library.find() == named
    monkeypatch.setenv(_library.VARIABLE, str(tmp_path / "gone.so"))
    with pytest.raises(fulgurite.InternalError, match="gone.so', which is no file"):
        _library.find()


def test_the_folder_lib_comes_before_the_package(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_library.VARIABLE, raising=False)
    monkeypatch.setattr(_library, "__file__", str(tmp_path / "_library.py"))
    with pytest.raises(fulgurite.InternalError, match="install the wheel"):
        _library.find()
    beside = tmp_path / "libfulgurite_c.so"
    beside.write_bytes(b"")
    assert _library.find() == beside
    inside = tmp_path / "lib" / "libfulgurite.so"
    inside.parent.mkdir()
    inside.write_bytes(b"")
    assert _library.find() == inside


def test_what_is_no_library_of_ours_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    with pytest.raises(fulgurite.InternalError, match="cannot be loaded"):
        _library._load(text)
    other = next((Path(path) for path in ("/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6",
                                          "/lib/aarch64-linux-gnu/libc.so.6")
                  if Path(path).exists()), None)
    if other is None:
        pytest.skip("this system's C library is not where others have it")
    with pytest.raises(fulgurite.InternalError, match="does not belong to this package"):
        _library._load(other)


def test_a_library_of_another_version_is_refused(library_file: Path, tmp_path: Path) -> None:
    program = """
import fulgurite._interface as interface
interface.VERSION = "0.0"
import fulgurite
try:
    fulgurite.preload()
except fulgurite.InternalError as error:
    print(error)
"""
    copy = tmp_path / "libfulgurite.so"
    shutil.copy(library_file, copy)
    said = Scene(copy, None).run(program)
    assert "does not belong to this package" in said and "its caller knows 0.0" in said


def test_the_version_is_cargos() -> None:
    cargo = (HOST.parent / "Cargo.toml").read_text()
    assert f'\nversion = "{fulgurite.__version__}"\n' in cargo
    assert (PACKAGE / "fulgurite/py.typed").exists()
