"""Puts the shared library into the wheel, and names the wheel by the platform it is for."""
from __future__ import annotations

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelHook(BuildHookInterface):
    """`cargo xtask wheel` says which library and which platform, by environment variables."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable installation takes the library that FULGURITE_LIBRARY names.
        if version == "editable":
            return
        try:
            library = os.environ["FULGURITE_WHEEL_LIBRARY"]
            platform = os.environ["FULGURITE_WHEEL_PLATFORM"]
        except KeyError as error:
            raise RuntimeError(f"{error} is not set: `cargo xtask wheel` makes the wheel") from None
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["force_include"][library] = "fulgurite/lib/libfulgurite.so"
