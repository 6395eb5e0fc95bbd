"""Real programs for tests: a gateway and devices as processes, states read from what they write, ended by pid."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aggregator.cli.status import read_status as read_gateway
from aggregator.ledger import Ledger
from aggregator.rounds import Phase
from blossom_edge.core.errors import BlossomError
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.transport.address import Address
from blossom_edge.transport.link import Message
from blossom_edge.transport.mqtt import MqttLink

AGGREGATOR = [sys.executable, "-m", "aggregator.cli"]
EDGE = [sys.executable, "-m", "blossom_edge.cli.main"]
WAIT_S = 50.0
POLL_S = 0.02
T = TypeVar("T")

TINY = """
schema = 1
name = "tiny"
visibility = "private-head-fusion"

[modalities.accel]
rate_hz = 50.0
window = 32
hop = 16
channels = [
  { name = "x", unit = "m/s2", spread = 6.0 },
  { name = "y", unit = "m/s2", spread = 6.0 },
  { name = "z", unit = "m/s2", spread = 6.0 },
]

[modalities.gyro]
rate_hz = 50.0
window = 32
hop = 16
channels = [
  { name = "x", unit = "rad/s", spread = 2.0 },
  { name = "y", unit = "rad/s", spread = 2.0 },
  { name = "z", unit = "rad/s", spread = 2.0 },
]

[tasks.move]
type = "classification"
classes = ["rest", "walk", "run"]

[blocks]
"encoder/accel" = { type = "mlp", widths = [24, 12] }
"encoder/gyro" = { type = "mlp", widths = [24, 12] }
"fusion/move" = { type = "concat", width = 12 }
"head/move" = { type = "mlp", hidden = 8 }

[training]
optimizer = "sgd"
lr = 0.01
epochs = 1
clip_norm = 1.0

[rounds]
min_devices = 2
deadline_s = 40.0
rejoin_s = 3.0

[schedule]
stop_rounds = 3
"""
"""A federation of two modalities that trains in milliseconds."""

WINDOWS = [f"--set=modalities.{m}.{key}" for m in ("accel", "gyro") for key in ("window=32", "hop=16")]
"""What brings `generic-mock` to the windows of `TINY`."""
ONLY_ACCEL = ["--profile", "rpi4-accel", "--mock", *WINDOWS[:2]]
ONLY_GYRO = ["--profile", "rpi4-gyro", "--mock", *WINDOWS[2:]]
BOTH = ["--profile", "generic-mock", "--mock", *WINDOWS]


ECG = """
schema = 1
title = "ECG only"

[sensors.ecg]
channels = [{ name = "ecg", unit = "V", range = [-0.005, 0.005] }]

[[sensors.ecg.sources]]
driver = "synthetic"
rate_hz = 250

[modalities.ecg]
sensor = "ecg"
channels = ["ecg"]
rate_hz = 250
window = 640
hop = 320
"""
"""A profile of a board with no modality of the other federations here."""


class Program:
    """A process that a test started; what it says is in files."""

    def __init__(self, name: str, command: list[str], folder: Path, *, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.out_file, self.err_file = folder / f"{name}.out", folder / f"{name}.err"
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default", **(env or {})}
        with self.out_file.open("ab") as out, self.err_file.open("ab") as err:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        return self.err_file.read_text()

    def running(self) -> bool:
        return self._child.poll() is None

    def send(self, number: int) -> None:
        self._child.send_signal(number)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """The exit code; a program that does not end fails the test with its last words."""
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end:\n{self.out[-2000:]}\n{self.err[-4000:]}") from None

    def end(self, number: int = signal.SIGKILL) -> int:
        if self.running():
            self.send(number)
        return self.wait()


def until(condition: Callable[[], T], what: str, programs: Sequence[Program], *, timeout_s: float = WAIT_S) -> T:
    """The first true value of `condition`; fails with the programs' last words."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(POLL_S)
    said = "\n".join(f"--- {p.name} (running {p.running()})\n{p.out[-800:]}{p.err[-2000:]}" for p in programs)
    raise AssertionError(f"waited {timeout_s:.0f} s for: {what}\n{said}")


class Place:
    """One gateway and its devices below a folder of the test."""

    def __init__(self, folder: Path, federation: str = TINY) -> None:
        self.folder = folder
        self.federation_file = folder / "federation.toml"
        self.federation_file.write_text(federation)
        self.gateway_folder = folder / "gateway"
        self.programs: list[Program] = []
        self.port = 0
        self._brokers: set[int] = set()

    def federation(self, *sets: str) -> Federation:
        return load_federation(str(self.federation_file), sets=sets)

    def serve(self, *options: str, env: dict[str, str] | None = None, federation: str | None = None) -> Program:
        """Start the gateway (its port is free, then kept) and return once it is ready for devices."""
        name = f"serve{sum(p.name.startswith('serve') for p in self.programs)}"
        if not any(o.startswith(("--port", "--broker=mqtt")) for o in options):
            self.port = self.port or free_port()
            options = (*options, f"--port={self.port}")
        command = [*AGGREGATOR, "serve", "--federation", federation or str(self.federation_file)]
        before = self.gateway().get("pid")
        program = self._start(name, [*command, "--data-dir", str(self.gateway_folder), *options], env)
        self.wait_for(lambda: self.gateway().get("pid") not in (None, before) and self.gateway()["connected"], "serve")
        pid_file = self.gateway_folder / "broker" / "mosquitto.pid"
        if pid_file.exists():
            self._brokers.add(int(pid_file.read_text()))
        return program

    def join(
        self, device: str, *options: str, gateway: str | None = None, env: dict[str, str] | None = None
    ) -> Program:
        """Start a device; the folder of all devices of this place is the same. `gateway` "": it has to find out."""
        where = [] if gateway == "" else ["--gateway", gateway or f"127.0.0.1:{self.port}"]
        common = ["--id", device, "--data-dir", str(self.edge_folder), "--speed=0", "--wait=20", *where]
        return self._start(f"join-{device}", [*EDGE, "join", *common, *options], env)

    def run_script(self, name: str, script: str, *arguments: str) -> Program:
        """Start Python with a script of the test."""
        return self._start(name, [sys.executable, "-c", script, *arguments], None)

    @property
    def edge_folder(self) -> Path:
        return self.folder / "edge"

    def gateway(self) -> dict[str, Any]:
        """What the gateway says of itself; empty before it did."""
        try:
            return read_gateway(self.gateway_folder)
        except BlossomError:
            return {}

    def device(self, device: str) -> dict[str, Any]:
        """What a device says of itself; empty before it did."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            found: dict[str, Any] = json.loads((self.edge_folder / "devices" / device / "status.json").read_text())
            return found
        return {}

    def at_gateway(self, device: str) -> dict[str, Any]:
        """What the gateway says of a device; empty when it does not know it."""
        return next((d for d in self.gateway().get("devices", []) if d["id"] == device), {})

    def records(self) -> list[dict[str, Any]]:
        """The ledger, of a gateway that does not run."""
        ledger = Ledger.open(self.gateway_folder)
        ledger.close()
        return [dict(record) for record in ledger.records]

    def wait_for(self, condition: Callable[[], T], what: str, *, timeout_s: float = WAIT_S) -> T:
        """The first true value of `condition`; fails with the programs' last words."""
        return until(condition, what, self.programs, timeout_s=timeout_s)

    def open_phase(self) -> bool:
        return self.gateway().get("phase") == Phase.OPEN.value

    def close(self) -> None:
        """End what runs, newest first; then neither the port nor a broker is left."""
        for program in reversed(self.programs):
            program.end(signal.SIGKILL)
        self.wait_for(lambda: not any(map(is_running, self._brokers)), "the broker is gone")
        assert not self.port or is_free(self.port), f"port {self.port} is left taken"

    def _start(self, name: str, command: list[str], env: dict[str, str] | None) -> Program:
        again = sum(p.name.partition("#")[0] == name for p in self.programs)
        program = Program(f"{name}#{again}" if again else name, command, self.folder, env=env)
        self.programs.append(program)
        return program


class Ear:
    """A subscriber that keeps every payload of the broker."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._link = MqttLink(Address("127.0.0.1", port), client_id="ear")
        self._link.subscribe("#")
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the retained head of the gateway was not heard"

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._link.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            event = self._link.receive(0.1)
            if isinstance(event, Message):
                self.heard.append((event.topic, event.payload))
                self._ready.set()


def call(program: list[str], *arguments: str, timeout_s: float = WAIT_S) -> subprocess.CompletedProcess[str]:
    """Run a command of one of the two programs to its end."""
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)


def call_json(program: list[str], *arguments: str) -> dict[str, Any]:
    """What a reading command says with --json; stdout holds that object alone."""
    done = call(program, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_members(records: list[dict[str, Any]]) -> int:
    """Every device stands at most once in a block's round, and only with an update that was kept; how many there are.

    A kept update stands in the members of its block's commit, or the block was held with a reason.
    """
    accepted: dict[tuple[int, str], list[str]] = {}
    for record in records:
        if record["type"] == "accept":
            accepted.setdefault((record["round"], record["block"]), []).append(record["device"])
    total = 0
    for record in records:
        if record["type"] == "commit":
            for block, outcome in record["blocks"].items():
                kept = sorted(accepted.pop((record["round"], block), []))
                assert len(kept) == len(set(kept)), f"{block} of round {record['round']}: {kept}"
                if not outcome["held"]:
                    assert outcome["members"] == kept
                total += len(outcome["members"])
    assert accepted == {}, "kept updates that no commit speaks of"
    return total


def rounds_of(records: list[dict[str, Any]]) -> list[int]:
    """Numbers of the committed rounds, in order."""
    return [record["round"] for record in records if record["type"] == "commit"]


def is_running(pid: int) -> bool:
    """Whether a process with this pid is there and not a zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
