"""A program on a terminal, as a person has it before them."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable

from tests.live import until

WAIT_S = 20.0
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Terminal:
    """A program on a terminal of 80 columns and 24 lines."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environ = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", **env}
        # a run started in the background (CI) ignores Ctrl-C and hands that on; a program in a terminal does not
        hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        self._child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ, preexec_fn=hear)
        os.close(slave)
        self._bytes = b""

    @property
    def said(self) -> str:
        """All that came until now, with its escape codes."""
        while select.select([self._master], [], [], 0.05)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the program has ended
                break
            if not data:
                break
            self._bytes += data
        return self._bytes.decode("utf-8", "replace").replace("\r\n", "\n")

    def wait_for(self, condition: Callable[[str], object], what: str) -> str:
        try:
            until(lambda: bool(condition(self.said)), what, (), timeout_s=WAIT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}{self.said[-2000:]!r}") from None
        return self.said

    def end(self) -> tuple[int, str]:
        """Ctrl-C; its exit code and all it said."""
        self._child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + WAIT_S
        while self._child.poll() is None and time.monotonic() < deadline:
            _ = self.said
        return self._child.wait(WAIT_S), self.said

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        os.close(self._master)


def screen(said: str) -> list[str]:
    """What a terminal shows: colours left out, `A` goes up, `J` clears from there on."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;]*[A-Za-z]|\n)", said):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b[") and part.endswith("A"):
            row -= int(part[2:-1])
        elif part == "\x1b[J":
            lines[row:] = [""]
        elif not part.startswith("\x1b["):
            lines[row] += part
    return lines
