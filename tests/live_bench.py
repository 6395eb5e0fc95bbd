"""A board with two live sensors in it that can be spoilt and unplugged, and a clock that is turned by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import HardwareError
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.collector import Collector
from firmware_profiles.schema import Profile

WINDOW_S = 1.28  # 64 samples at 50 Hz
STEP_S = 0.1
Floats = NDArray[np.float64]
Fault = Callable[[Floats, Floats], tuple[Floats, Floats]]

FEDERATION = Federation.from_dict(
    {
        "schema": 1,
        "name": "two-sensors",
        "modalities": {
            "accel": {
                "channels": [{"name": n, "unit": "m/s2", "spread": 2.0} for n in ("ax", "ay", "az")],
                "rate_hz": 50.0,
                "window": 64,
                "hop": 64,
            },
            "ecg": {"channels": [{"name": "ecg", "unit": "V"}], "rate_hz": 100.0, "window": 128, "hop": 128},
        },
        "tasks": {"har": {"type": "classification", "classes": ["sit", "walk"]}},
        "blocks": {
            "encoder/accel": {"type": "mlp"},
            "encoder/ecg": {"type": "mlp"},
            "fusion/har": {"type": "concat"},
            "head/har": {"type": "mlp"},
        },
    }
)


def channel(name: str, unit: str) -> dict[str, object]:
    return {"name": name, "unit": unit, "range": [-20.0, 20.0]}


PROFILE = Profile.model_validate(
    {
        "schema": 1,
        "id": "board",
        "title": "Two sensors",
        "sensors": {
            "imu": {
                "channels": [channel(n, "m/s2") for n in ("ax", "ay", "az")],
                "sources": [{"driver": "x", "rate_hz": 50.0}],
            },
            "heart": {"channels": [channel("ecg", "V")], "sources": [{"driver": "x", "rate_hz": 100.0}]},
        },
        "modalities": {
            "accel": {"sensor": "imu", "channels": ["ax", "ay", "az"], "rate_hz": 50.0, "window": 64, "hop": 64},
            "ecg": {"sensor": "heart", "channels": ["ecg"], "rate_hz": 100.0, "window": 128, "hop": 128},
        },
    }
)


class Wire:
    """Hardware with noise in it; stamps jitter by a tenth of a period. `fault` spoils what comes."""

    live = True
    exhausted = False

    def __init__(self, channels: Sequence[str], unit: str, *, rate_hz: float, true_hz: float | None = None) -> None:
        self.channels = tuple(channels)
        self.units = (unit,) * len(channels)
        self.rate_hz = rate_hz
        self.true_hz = true_hz or rate_hz
        self.plugged = True
        self.closed = 0
        self.fault: Fault | None = None
        self.opened: list[float] = []
        self.now = 0.0
        self._random = np.random.default_rng(len(channels))
        self._next = 0

    def open(self) -> None:
        self.opened.append(self.now)
        if not self.plugged:
            raise HardwareError("sensor-missing", "nothing at this address")
        self._next = int(np.ceil(self.now * self.true_hz))

    def close(self) -> None:
        self.closed += 1

    def read(self, now: float) -> Sequence[Reading]:
        if not self.plugged:
            raise HardwareError("sensor-failed", "imu: Remote I/O error")
        end = int(np.floor(now * self.true_hz))
        index = np.arange(self._next, max(end, self._next))
        self._next = max(end, self._next)
        times = (index + self._random.uniform(-0.1, 0.1, len(index))) / self.true_hz
        values = self._random.standard_normal((len(index), len(self.channels)))
        if self.fault is not None:
            times, values = self.fault(times, values)
        return [Reading(times, values, {"har": np.full(len(times), "walk")})] if len(times) else []


class Bench:
    """A board with two sensors, and a clock that goes on in steps of 100 ms."""

    def __init__(self, *, imu_hz: float = 50.0) -> None:
        self.imu = Wire(("ax", "ay", "az"), "m/s2", rate_hz=50.0, true_hz=imu_hz)
        self.heart = Wire(("ecg",), "V", rate_hz=100.0)
        self.wires: Mapping[str, Wire] = {"imu": self.imu, "heart": self.heart}
        self.collector = Collector(
            PROFILE, FEDERATION, dict(self.wires), split="blocks", holdout=0.0, spawn=lambda work: work()
        )
        self.now = 0.0

    def step(self) -> None:
        self.now = round(self.now + STEP_S, 6)
        for wire in self.wires.values():
            wire.now = self.now
        self.collector.poll(self.now)

    def run(self, windows: float) -> None:
        end = self.now + windows * WINDOW_S
        while self.now < end:
            self.step()

    def until(self, state: str, *, at_most: float) -> float:
        """Windows until the accelerometer is in this state."""
        begin = self.now
        while self.state() != state:
            assert self.now < begin + at_most * WINDOW_S, f"{self.state()} after {at_most} windows, expected {state}"
            self.step()
        return (self.now - begin) / WINDOW_S

    def state(self) -> str:
        return self.collector.health()["imu"].health.state


def none_are_numbers(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    return times, np.where(np.arange(len(times))[:, None] % 2 == 0, np.nan, values)


def stuck(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    return times, np.full_like(values, 0.5)


def saturated(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    return times, np.where(values > 0, 25.0, values)


def half(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    keep = np.round(times * 50).astype(int) % 2 == 0
    return times[keep], values[keep]


def jumping(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    return np.where(np.arange(len(times)) % 4 == 3, times - 0.2, times), values


def nothing(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    return times[:0], values[:0]
