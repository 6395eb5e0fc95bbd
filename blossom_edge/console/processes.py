"""Whether the process that wrote a status file still runs."""

from __future__ import annotations

import os


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs; another user's counts too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
