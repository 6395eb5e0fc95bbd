"""What a test needs, as decorators: without it the test is skipped with the reason and the next step.

@needs.package("smbus2", extra="i2c")
@needs.program("umockdev-run", package="umockdev")
@needs.board("jetson-imu")
def test_my_sensor(): ...
"""

from __future__ import annotations

import importlib.util
import shutil

import pytest


def package(module: str, *, extra: str = "") -> pytest.MarkDecorator:
    """A Python module that can be found; it is not imported."""
    hint = f": pip install 'blossom-edge[{extra}]'" if extra else ""
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"needs {module}{hint}")


def program(name: str, *, package: str = "") -> pytest.MarkDecorator:
    """A program in PATH."""
    hint = f": apt install {package}" if package else ""
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}{hint}")


def board(profile: str) -> pytest.MarkDecorator:
    """Real hardware of this profile, given with `--board`; skipped without. See `plugin`."""
    return pytest.mark.needs_board(profile)
