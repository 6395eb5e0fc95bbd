"""`BoardState`: all that the governor, `doctor` and a status line want to know of a board, read in one go."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from blossom_edge.board.attributes import text
from blossom_edge.board.cgroups import memory_left_mb, memory_limit_mb
from blossom_edge.board.heat import Temperature, Throttling, hottest, temperatures, throttling
from blossom_edge.board.power import battery, on_mains

KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class BoardState:
    """A board at one moment; None is what it does not say. Memory in MiB, `used_mb` is this process's alone."""

    hottest: Temperature | None = None
    throttling: Throttling | None = None
    total_mb: float | None = None
    available_mb: float | None = None
    used_mb: float | None = None
    battery_percent: float | None = None
    on_mains: bool | None = None


def read_state(root: Path) -> BoardState:
    """The board below `root` (of /sys and /proc) as it is now. A few milliseconds, no exception."""
    found = battery(root)
    return BoardState(
        hottest=hottest(temperatures(root)),
        throttling=throttling(root),
        total_mb=memory_total_mb(root),
        available_mb=memory_available_mb(root),
        used_mb=_kib(root / "proc/self/status", "VmRSS"),
        battery_percent=found.percent if found is not None else None,
        on_mains=on_mains(root),
    )


def memory_total_mb(root: Path) -> float | None:
    """The memory of the board, or of its control group if that is less."""
    known = [m for m in (_kib(root / "proc/meminfo", "MemTotal"), memory_limit_mb(root)) if m is not None]
    return min(known, default=None)


def memory_available_mb(root: Path) -> float | None:
    """What could be taken now without swapping, on the board and within the control group."""
    known = [m for m in (_kib(root / "proc/meminfo", "MemAvailable"), memory_left_mb(root)) if m is not None]
    return min(known, default=None)


def disk_free_mb(folder: Path) -> float | None:
    """What is free where `folder` lies (or would lie), for this user."""
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free / KIB_PER_MIB**2
        except OSError:
            continue
    return None


def _kib(path: Path, name: str) -> float | None:
    """A value in kB of a file of `Name:   123 kB` lines, in MiB."""
    for line in (text(path) or "").splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if key == name and len(words) == 2 and words[0].isdigit() and words[1] == "kB":
            return int(words[0]) / KIB_PER_MIB
    return None
