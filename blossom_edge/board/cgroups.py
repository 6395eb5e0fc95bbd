"""What control groups leave to this process: processors and memory, version 2 and version 1.

A limit may stand at any level above the process, so all levels are read and the tightest counts. Inside a container
the path in /proc/self/cgroup may not exist below /sys/fs/cgroup; then its levels that do exist are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blossom_edge.board.attributes import integer, text

UNLIMITED_BYTES = 1 << 60
"""Version 1 writes the largest multiple of a page for `no limit`."""
MIB = 1024 * 1024


def cpu_quota(root: Path) -> float | None:
    """How many processors' time this process may use, as a fraction: 1.5; None without a limit.

    Version 2: `cpu.max` holds QUOTA PERIOD in microseconds, QUOTA may be `max`. Version 1: `cpu.cfs_quota_us`, where
    -1 is no limit, and `cpu.cfs_period_us`.
    """
    found: list[float] = []
    for folder in _levels(root, ""):
        words = (text(folder / "cpu.max") or "").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            found.append(int(words[0]) / int(words[1]))
    for folder in _levels(root, "cpu"):
        quota, period = integer(folder / "cpu.cfs_quota_us"), integer(folder / "cpu.cfs_period_us")
        if quota is not None and quota > 0 and period is not None and period > 0:
            found.append(quota / period)
    return min((cpus for cpus in found if cpus > 0), default=None)


def memory_limit_mb(root: Path) -> float | None:
    """The memory that this process and those beside it may use together, in MiB; None without a limit."""
    return min((limit for limit, _ in _memory(root)), default=None)


def memory_left_mb(root: Path) -> float | None:
    """What is left of the tightest limit, in MiB; None without a limit. What the kernel would drop is not counted."""
    left = [max(limit - used, 0.0) for limit, used in _memory(root) if used is not None]
    return min(left, default=None)


def _memory(root: Path) -> Iterator[tuple[float, float | None]]:
    """(limit, used) in MiB of every level that has a limit."""
    files = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    for controller, limit_name, used_name in files:
        for folder in _levels(root, controller):
            limit = integer(folder / limit_name)
            if limit is None or not 0 < limit < UNLIMITED_BYTES:
                continue
            used = integer(folder / used_name)
            droppable = _stat(folder / "memory.stat", ("inactive_file", "total_inactive_file"))
            yield limit / MIB, None if used is None else max(used - droppable, 0) / MIB


def _stat(path: Path, names: tuple[str, ...]) -> int:
    """The largest of the named counters of a `memory.stat`: version 1 has one of the level and one of all below."""
    found = [0]
    for line in (text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name in names and value.isdigit():
            found.append(int(value))
    return max(found)


def _levels(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of all above it; `controller` is empty for version 2."""
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if not colon or (controller not in names.split(",") if controller else names != ""):
            continue
        mount = root / "sys/fs/cgroup"
        bases = [mount / names, mount / controller] if controller else [mount, mount / "unified"]
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for base in dict.fromkeys(bases):
            for depth in range(len(parts), -1, -1):
                folder = base.joinpath(*parts[:depth])
                if folder.is_dir():
                    yield folder
