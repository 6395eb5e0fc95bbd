"""Processes: whether one still runs, and children that end when we do, however we end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# The child asks the kernel to end it when its parent does, then becomes the program. A program of its own, because
# running Python between fork and exec (preexec_fn) may hang where there are threads.
_BECOME = """
import ctypes, os, signal, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs; another user's counts too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def ending_with_us(program: Sequence[str]) -> list[str]:
    """The command line of a child that gets SIGTERM when the thread that starts it ends (Linux; elsewhere it runs on).

    The first word is the path of the program.
    """
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *program]
