"""The structs of `fulgurite._library` against the header, as a C compiler reads it."""
import ctypes
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import fulgurite
from conftest import HOST
from fulgurite import _errors, _interface, _library

STRUCTS = {
    "fulgurite_layout": _interface.Layout,
    "fulgurite_descale": _interface.Descale,
    "fulgurite_forward_request": _interface.ForwardRequest,
    "fulgurite_forward_args": _interface.ForwardArgs,
    "fulgurite_backward_request": _interface.BackwardRequest,
    "fulgurite_backward_args": _interface.BackwardArgs,
    "fulgurite_plan_options": _interface.PlanOptions,
}
NUMBERS = {f"FULGURITE_{name.upper()}": number for name, number in
           [*_interface.DTYPES.items(), *_interface.FORMS.items(), *_interface.ARCHS.items(),
            *((f"mask_{name}", number) for name, number in _interface.MASKS.items()),
            *((f"precision_{name}", number) for name, number in _interface.PRECISIONS.items()),
            *((f"descale_{name}", number) for name, number in _interface.DESCALES.items())]}


def expected() -> list[str]:
    """What the C program must print."""
    lines = [f"{name} {number}" for name, number in NUMBERS.items()]
    for name, kind in STRUCTS.items():
        lines.append(f"{name} {ctypes.sizeof(kind)}")
        for field, *_ in kind._fields_:
            place = getattr(kind, field)
            lines.append(f"{name}.{field} {place.offset} {place.size}")
    return lines


def test_offsets_and_numbers_are_the_headers(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here (`cc`)")
    body = [f'printf("{name} %d\\n", (int){name});' for name in NUMBERS]
    for name, kind in STRUCTS.items():
        body.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in kind._fields_:
            sizes = f"offsetof({name}, {field}), sizeof((({name} *)0)->{field})"
            body.append(f'printf("{name}.{field} %zu %zu\\n", {sizes});')
    source = tmp_path / "offsets.c"
    source.write_text("#include <stddef.h>\n#include <stdio.h>\n#include \"fulgurite.h\"\n"
                      "int main(void) {\n" + "\n".join(body) + "\nreturn 0;\n}\n")
    program = tmp_path / "offsets"
    subprocess.run([compiler, "-I", HOST / "c", source, "-o", program], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == expected()


def test_packed_arguments_are_those_of_the_struct() -> None:
    named = _interface.ForwardArgs(q=1, k=2, v=3, out=4, lse=5, workspace=6, workspace_bytes=7,
                                   descale_q=8, descale_k=9, descale_v=10)
    packed = _library.pack_args(_library.ARGS_BYTES, *range(1, 11))
    assert packed[8:] == bytes(named)[8:len(packed)]
    assert len(packed) == _library.ARGS_BYTES == struct.unpack_from("Q", packed)[0]


def test_every_status_has_its_class() -> None:
    header = (HOST / "c/fulgurite.h").read_text()
    statuses = dict(re.findall(r"FULGURITE_ERROR_(\w+) = (\d+)", header))
    # The header's BUFFER is Python's AddressError: Python has a BufferError already.
    names = {"BUFFER" if kind is fulgurite.AddressError else
             kind.__name__.removesuffix("Error").upper(): str(kind.status)
             for kind in _errors.CLASSES}
    assert names == statuses
    assert f'FULGURITE_VERSION "{_interface.VERSION}"' in header
