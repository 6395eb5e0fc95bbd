"""Reads of single kernel files. What is missing, unreadable or no number is None; nothing is ever raised."""

from __future__ import annotations

import math
from pathlib import Path

LONGEST_BYTES = 64 * 1024


def raw(path: Path) -> bytes | None:
    """The bytes of a file, at most 64 KiB; None where it cannot be read (a sensor that is asleep gives EAGAIN)."""
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_BYTES)
    except (OSError, ValueError):
        return None


def text(path: Path) -> str | None:
    """The text of a file without the white space around it; None where there is none."""
    data = raw(path)
    if data is None:
        return None
    found = data.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return found or None


def number(path: Path, scale: float = 1.0) -> float | None:
    """The finite number in a file, times `scale`."""
    found = text(path)
    try:
        value = float(found) * scale if found is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def integer(path: Path, base: int = 10) -> int | None:
    """The whole number in a file."""
    found = text(path)
    try:
        return int(found, base) if found is not None else None
    except ValueError:
        return None


def strings(path: Path) -> tuple[str, ...]:
    """The NUL-separated strings of a device-tree property, in their order."""
    data = raw(path) or b""
    return tuple(part.decode("utf-8", "replace") for part in data.split(b"\0") if part.strip())


def folders(path: Path, pattern: str) -> list[Path]:
    """What matches below `path`, by name; empty where it cannot be listed."""
    try:
        return sorted(path.glob(pattern))
    except (OSError, ValueError):
        return []
