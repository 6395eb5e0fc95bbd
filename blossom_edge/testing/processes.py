"""A gateway and devices as processes of a test: started on a free port of this machine, ended by pid with the test.

    with Gateway(folder, federation="har", options=["--until-finished"]) as gateway:
        device = gateway.join("board-1", "--profile", "jetson-imu", env={"BLOSSOM_ROOT": str(root)})
        gateway.wait_for(lambda: gateway.status()["round"] >= 2, "two rounds")

Never mocks anything: these are the programs that a person starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from blossom_edge.core.errors import BlossomError

WAIT_S = 60.0
POLL_S = 0.02
T = TypeVar("T")


class Process:
    """A program whose output is kept in two files of the test."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, *, env: dict[str, str] | None = None) -> None:
        self.name = name
        self._files = (folder / f"{name}.out", folder / f"{name}.err")
        environ = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        with contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(_append(path)) for path in self._files)
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def out(self) -> str:
        """What it printed."""
        return self._files[0].read_text("utf-8", "replace")

    @property
    def err(self) -> str:
        """What it said on stderr."""
        return self._files[1].read_text("utf-8", "replace")

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.poll() is None

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Its exit code.

        Raises:
            AssertionError: it does not end; with its last words.
        """
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end:\n{self.out[-2000:]}\n{self.err[-4000:]}") from None

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, and after 10 s make it."""
        if self.running():
            self._child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._child.wait(10.0)
            self._child.kill()
        return self.wait()


class Gateway:
    """`blossom-aggregator serve` with a broker of its own, and the devices that join it."""

    def __init__(self, folder: Path, *, federation: str = "har", options: Sequence[str] = ()) -> None:
        """Start it; `federation` is a name or a file.

        Raises:
            AssertionError: it is not ready within a minute; with its last words.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.devices: list[Process] = []
        command = [sys.executable, "-m", "aggregator.cli", "serve", "--federation", federation]
        where = [f"--port={self.port}", "--data-dir", str(folder / "gateway")]
        self.process = Process("serve", [*command, *where, *options], folder)
        try:
            self.wait_for(lambda: bool(self.status().get("connected")), "the gateway")
        except AssertionError:
            self.close()
            raise

    @property
    def address(self) -> str:
        """For `--gateway`."""
        return f"127.0.0.1:{self.port}"

    @property
    def edge_folder(self) -> Path:
        """The data folder of the devices that `join` starts."""
        return self.folder / "edge"

    def join(self, device: str, *options: str, env: dict[str, str] | None = None) -> Process:
        """Start `blossom-edge join` with this device id."""
        return self.run(device, [sys.executable, "-m", "blossom_edge.cli.main", "join"], *options, env=env)

    def run(self, device: str, command: Sequence[str], *options: str, env: dict[str, str] | None = None) -> Process:
        """Start a program that takes the options of `join`."""
        common = ["--id", device, "--gateway", self.address, "--data-dir", str(self.edge_folder), "--wait", "20"]
        process = Process(f"join-{device}", [*command, *common, *options], self.folder, env=env)
        self.devices.append(process)
        return process

    def status(self) -> dict[str, Any]:
        """What the gateway says of itself; empty before it did."""
        from aggregator.cli.status import read_status

        try:
            return read_status(self.folder / "gateway")
        except BlossomError:
            return {}

    def device(self, device: str) -> dict[str, Any]:
        """What a device says of itself; empty before it did."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            found: dict[str, Any] = json.loads((self.edge_folder / "devices" / device / "status.json").read_text())
            return found
        return {}

    def wait_for(self, condition: Callable[[], T], what: str, *, timeout_s: float = WAIT_S) -> T:
        """The first true value of `condition`.

        Raises:
            AssertionError: there is none in time, or the gateway ended; with the last words of all.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.process.running():
            if value := condition():
                return value
            time.sleep(POLL_S)
        if value := condition():
            return value
        said = "\n".join(f"--- {p.name}\n{p.out[-800:]}{p.err[-2000:]}" for p in (self.process, *self.devices))
        if not self.process.running():
            words = self.process.err.strip().splitlines()[-1:] or ["without a word"]
            raise AssertionError(f"the gateway ended with exit code {self.process.wait()}: {words[0]}\n{said}")
        raise AssertionError(f"waited {timeout_s:.0f} s for {what}\n{said}")

    def close(self) -> None:
        """End the devices, then the gateway."""
        for process in (*reversed(self.devices), self.process):
            process.end()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _append(path: Path) -> IO[bytes]:
    return path.open("ab")
