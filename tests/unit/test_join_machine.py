"""What cannot be a device is refused in one line with the way out."""

from __future__ import annotations

import pytest

from blossom_edge.cli.joining import check_machine
from blossom_edge.core.errors import ConfigError


def test_linux_with_64_bits_may_join() -> None:
    check_machine("linux", bits=64)
    check_machine()


@pytest.mark.parametrize(
    ("platform", "bits", "found", "way_out"),
    [
        ("linux", 32, "a 32-bit Python", "64-bit system image"),
        ("win32", 64, "win32", "WSL 2"),
        ("darwin", 64, "darwin", "use Linux"),
    ],
)
def test_another_machine_is_refused(platform: str, bits: int, found: str, way_out: str) -> None:
    with pytest.raises(ConfigError, match=f"found {found}, expected 64-bit Linux") as caught:
        check_machine(platform, bits=bits)
    assert way_out in caught.value.hint
