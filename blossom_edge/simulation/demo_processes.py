"""The child processes of a demo: started so that none can be left, watched, and ended in any case.

Knows no federation: only names, command lines, logs and signals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from blossom_edge.console.processes import ending_with_us, is_alive
from blossom_edge.core.errors import BlossomError
from blossom_edge.durable import make_folder, open_child_log

POLL_S = 0.05
GOODBYE_S = 3.0
"""How long children may take to end by themselves; a second Ctrl-C makes it nothing."""


class Interrupts:
    """Ctrl-C and SIGTERM as KeyboardInterrupt, but never between the birth of a child and its entry in the list."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._held = 0

    @property
    def impatient(self) -> bool:
        """Whether a second signal came."""
        return len(self.received) > 1

    @contextlib.contextmanager
    def caught(self) -> Iterator[Interrupts]:
        """Take the signals over; the first raises KeyboardInterrupt here, later ones are only counted."""
        old = {number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let signals of this block wait for the next `check`."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def check(self) -> None:
        """Raise what waited.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        if self.received and not self._held:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if len(self.received) == 1:
            self.check()


@dataclass(frozen=True, slots=True)
class Child:
    """One process: its name, what it says in `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def last_words(self) -> str:
        """Its last error line, else its last line."""
        try:
            lines = [line.strip() for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
        except OSError:
            return ""
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it said nothing"])[-1].removeprefix("error: ")


class Children:
    """The processes of one demo. `keeper` names the one that ends last: the others say goodbye to it."""

    def __init__(self, folder: Path, interrupts: Interrupts, *, keeper: str) -> None:
        self.all: list[Child] = []
        self._folder = folder
        self._interrupts = interrupts
        self._keeper = keeper
        make_folder(folder / "logs")

    def start(self, name: str, arguments: Sequence[str], *, threads: int = 1) -> Child:
        """Start `python ARGUMENTS` in the demo's folder, in a session of its own: Ctrl-C is for us alone."""
        log = self._folder / "logs" / f"{name}.log"
        environ = {key: value for key, value in os.environ.items() if not key.startswith("BLOSSOM_")}
        environ.update(OMP_NUM_THREADS=str(threads), PYTHONUNBUFFERED="1")
        with self._interrupts.held(), open_child_log(log) as output:
            process = subprocess.Popen(
                ending_with_us([sys.executable, *arguments]),
                cwd=self._folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            child = Child(name, process, log)
            self.all.append(child)
        self._interrupts.check()
        return child

    def check(self) -> None:
        """See that nobody has failed; the one started first is named.

        Raises:
            BlossomError: `demo-failed`, with the child's last words.
        """
        for child in self.all:
            if child.process.poll() not in (None, 0):
                raise self.failed(child)

    def failed(self, child: Child) -> BlossomError:
        """The error of a child that ended when it should not."""
        how = f"{child.name} ended early (exit code {child.process.returncode})"
        return BlossomError("demo-failed", f"{how}: {child.last_words()}", hint=f"its log is {child.log}")

    def running(self) -> list[Child]:
        """Those that have not ended."""
        return [child for child in self.all if child.running()]

    def stop(self, *, also: int | None = None) -> None:
        """End all and wait for it; `also` is the id of a process that ends with one of them."""
        with self._interrupts.held():
            others = [child for child in self.all if child.name != self._keeper]
            for group in (others, [child for child in self.all if child.name == self._keeper]):
                for child in group:
                    if child.running():
                        child.process.terminate()
                self._wait(group)
            for child in self.running():
                child.process.kill()
                child.process.wait()
            until = time.monotonic() + GOODBYE_S
            while also is not None and is_alive(also) and time.monotonic() < until:
                time.sleep(POLL_S)

    def _wait(self, group: Sequence[Child]) -> None:
        until = time.monotonic() + GOODBYE_S
        while any(child.running() for child in group):
            if self._interrupts.impatient or time.monotonic() > until:
                return
            time.sleep(POLL_S)
