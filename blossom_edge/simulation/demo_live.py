"""The live federation of a demo: a gateway with its broker and the devices, each a process on 127.0.0.1.

Starts the two programs as a person would, and reads the status files that they write.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blossom_edge.core.errors import BlossomError
from blossom_edge.simulation.demo_processes import Child, Children
from blossom_edge.simulation.demo_view import DeviceRow
from blossom_edge.simulation.modes import Seat

GATEWAY = "gateway"
START_S = 60.0
"""How long the gateway may take until its broker listens."""


@dataclass(frozen=True, slots=True)
class Lived:
    """What one device went through: scores by round, bytes up and down by round, private blocks that were sent."""

    scores: dict[int, float]
    bytes_up: dict[int, int]
    bytes_down: dict[int, int]
    private: tuple[str, ...]
    private_sent: int


class LiveFederation:
    """Gateway and devices below `folder`: gateway/, devices/ID/; the people's recordings are in people/."""

    def __init__(self, folder: Path, seats: Sequence[Seat], children: Children, *, measure: str) -> None:
        self.seats = tuple(seats)
        self.address = ""
        self.broker = ""
        self._folder = folder
        self._children = children
        self._measure = measure
        self._devices: dict[str, Child] = {}
        self._gateway: Child | None = None

    def start_gateway(self, federation: str, sets: Sequence[str]) -> None:
        """Start the gateway on some free port."""
        changes = [f"--set={text}" for text in sets]
        words = ["serve", "--federation", federation, *changes, "--data-dir", str(self._folder / "gateway")]
        self._gateway = self._children.start(GATEWAY, ["-m", "aggregator.cli", *words, "--port=0", "--until-finished"])

    def wait_for_gateway(self, watch: Callable[[], None]) -> None:
        """Return once it takes devices in; `watch` is called meanwhile.

        Raises:
            BlossomError: `demo-failed`.
        """
        until = time.monotonic() + START_S
        while not self.address:
            self._children.check()
            watch()
            found = self.gateway()
            if self._gateway is not None and found.get("pid") == self._gateway.process.pid and found.get("connected"):
                self.address, self.broker = found["address"], found["broker"]
            elif self._gateway is not None and not self._gateway.running():
                raise self._children.failed(self._gateway)
            elif time.monotonic() > until:
                raise BlossomError(
                    "demo-failed",
                    f"the gateway did not start within {START_S:.0f} s",
                    hint=f"its log is in {self._folder / 'logs'}",
                )

    def start_devices(self, *, seed: int, labels_per_class: int | None) -> None:
        """Start all devices; each is one `blossom-edge join`."""
        labels = "all" if labels_per_class is None else str(labels_per_class)
        for seat in self.seats:
            words = ["join", "--profile", seat.profile, "--gateway", self.address, "--id", seat.id]
            words += ["--replay", str(self._folder / "people" / str(seat.person)), "--labels-per-class", labels]
            words += [f"--seed={seed}", "--wait=30", "--data-dir", str(self._folder)]
            self._devices[seat.id] = self._children.start(seat.id, ["-m", "blossom_edge.cli.main", *words])

    def over(self) -> bool:
        """Whether gateway and devices have all ended."""
        everybody = [self._gateway, *self._devices.values()]
        return bool(self._devices) and not any(child is not None and child.running() for child in everybody)

    def gateway(self) -> dict[str, Any]:
        """What the gateway says of itself; empty before it did."""
        return _read(self._folder / "gateway" / "status.json")

    @property
    def broker_pid(self) -> int | None:
        """Of the gateway's own mosquitto, where there is one."""
        try:
            return int((self._folder / "gateway" / "broker" / "mosquitto.pid").read_text("ascii"))
        except (OSError, ValueError):
            return None

    def rounds_over(self) -> int:
        """How many rounds have been committed."""
        found = self.gateway()
        number: int = found.get("round", 0)
        return number if not found or found["phase"] == "waiting" else number - 1

    def rows(self) -> tuple[DeviceRow, ...]:
        """The devices as they are now."""
        return tuple(self._row(seat) for seat in self.seats)

    def lived(self, device: str) -> Lived:
        """What a device went through.

        Raises:
            BlossomError: `demo-failed`: it left no word.
        """
        found = self._status(device)
        if not found:
            raise BlossomError("demo-failed", f"{device} left no status", hint=f"see {self._folder / 'logs'}")
        scores = {int(number): score.get(self._measure) for number, score in found["scores"].items()}
        return Lived(
            scores={number: score for number, score in scores.items() if score is not None},
            bytes_up={int(number): up for number, (up, _) in found["bytes"].items()},
            bytes_down={int(number): down for number, (_, down) in found["bytes"].items()},
            private=tuple(found["private"]),
            private_sent=sum(found["private_sent"].values()),
        )

    def _row(self, seat: Seat) -> DeviceRow:
        found = self._status(seat.id)
        child = self._devices.get(seat.id)
        if not found:
            state = "waiting" if child is None else "starting"
            return DeviceRow(seat.id, seat.profile, seat.modalities, state)
        return DeviceRow(
            seat.id,
            seat.profile,
            seat.modalities,
            state=found["phase"],
            round=found["round"],
            score=found["score"].get(self._measure),
            bytes_up=sum(up for up, _ in found["bytes"].values()),
            bytes_down=sum(down for _, down in found["bytes"].values()),
        )

    def _status(self, device: str) -> dict[str, Any]:
        return _read(self._folder / "devices" / device / "status.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found
