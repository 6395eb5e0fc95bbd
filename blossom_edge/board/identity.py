"""Which board this is, as its device tree says: `raspberrypi,5-model-b`, `Raspberry Pi 5 Model B Rev 1.0`."""

from __future__ import annotations

from pathlib import Path

from blossom_edge.board.attributes import strings, text


def compatible(root: Path) -> tuple[str, ...]:
    """The compatible strings, the most exact first; empty on a machine without a device tree."""
    return strings(root / "proc/device-tree/compatible")


def model(root: Path) -> str | None:
    """The board's name for people; on a PC that of its product (DMI)."""
    named = strings(root / "proc/device-tree/model")
    return named[0].strip() if named else text(root / "sys/class/dmi/id/product_name")
