"""Places where a test may kill the process. Does nothing unless BLOSSOM_FAILPOINT was set when the process started.

`BLOSSOM_FAILPOINT=spool:prerename#3` kills the process with SIGKILL when it comes to `spool:prerename`
for the third time.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "BLOSSOM_FAILPOINT"


class Failpoint:
    """One armed place: counts how often it is reached, and kills the process at the n-th time."""

    def __init__(self, setting: str) -> None:
        name, _, count = setting.partition("#")
        self.name = name
        self._remaining = int(count or "1")
        self._lock = threading.Lock()

    def reached(self) -> None:
        """Count one visit; at the last one the process is gone."""
        with self._lock:
            self._remaining -= 1
            if self._remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)


# A fixture of the process, read once: a crash test sets the variable before the process starts.
_ARMED = Failpoint(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def failpoint(name: str) -> None:
    """Die here if the environment asks for it; otherwise return at once."""
    if _ARMED is not None and _ARMED.name == name:
        _ARMED.reached()
