"""How many processors this process may really use, and its place in the queue for them."""

from __future__ import annotations

import os
from pathlib import Path

from blossom_edge.board.cgroups import cpu_quota


def allowed_cpus(root: Path) -> int:
    """Processors by affinity, within the quota of the control group, at least one. A quota of 1.5 is one whole one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return max(1, cpus if quota is None else min(cpus, int(quota)))


def physical_cores(root: Path) -> int | None:
    """Cores without their hyper-threads; None where sysfs does not say."""
    cores: set[tuple[str, str]] = set()
    try:
        for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology"):
            package = (folder / "physical_package_id").read_text("utf-8").strip()
            cores.add((package, (folder / "core_id").read_text("utf-8").strip()))
    except (OSError, ValueError):
        return None
    return len(cores) or None


def lower_priority(nice: int) -> int:
    """Let others go first: the calling thread, and every thread that it starts from now on, gets at least this nice.

    On Linux the value belongs to a thread, so sensor and network threads that run already keep theirs. A priority
    that is lowered is not raised again (that takes a privilege). Returns the nice value that holds now.
    """
    now = os.getpriority(os.PRIO_PROCESS, 0)
    if nice > now:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    return os.getpriority(os.PRIO_PROCESS, 0)
