"""The examples run as they stand, and say what the product does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_one_round_by_hand_prints_its_averages() -> None:
    assert "encoder/accel" in run("one_round_by_hand.py")


@pytest.mark.torch
@pytest.mark.slow
def test_two_devices_average_what_both_own_and_keep_the_rest() -> None:
    pytest.importorskip("torch")
    out = run("two_devices.py")
    averaged = re.findall(r"  (\S+): mean over (.+), now version (\d)", out)
    assert averaged == [
        (block, owners, version)
        for version in ("1", "2")
        for block, owners in (("encoder/accel", "both, watch"), ("encoder/gyro", "both"))
    ]
    assert out.count("  stays:  fusion/har, ") == 2
    assert run("two_devices.py") == out
