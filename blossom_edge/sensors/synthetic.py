"""Simulated sensors in real units, with labels: no hardware, no files, the same samples for the same seed.

What a class looks like is the same on all devices (it hangs on the task's name and the class index); how a device
differs (pace, strength, how the sensor is mounted, noise) hangs on the device's seed. Classes are distinct and overlap.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.base import Reading
from firmware_profiles.schema import ProfileChannel

GRAVITY_M_S2 = 9.80665
BLOCK = 1024
"""Samples are made in blocks of this many, so that they do not depend on when they are read."""
FRAME_BLOCK = 16
"""So many where a sample is an image or a spectrum."""
_COARSE = 8
"""A simulated image or spectrum has so many patches along each side."""
_BOUT_S = (12.0, 20.0)
_CLASS_HZ = (0.35, 2.4)

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SyntheticTask:
    """A task that the simulator has labels for; a regression has values from mean - spread to mean + spread."""

    type: str
    num_classes: int = 0
    mean: float = 0.0
    spread: float = 1.0


def rng(*key: int | str) -> np.random.Generator:
    """A generator that hangs on `key` alone, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


class Schedule:
    """What the simulated person does when: bouts of 12 to 20 s, each with one value per task. Pure in the seed."""

    def __init__(self, tasks: Mapping[str, SyntheticTask], seed: int) -> None:
        self.tasks = dict(sorted(tasks.items()))
        self._seed = seed
        self._ends = np.zeros(0)
        self._values: dict[str, list[Any]] = {task: [] for task in self.tasks}

    def at(self, times: _Floats) -> dict[str, NDArray[Any]]:
        """The label of each task at each time: (n,) int64, (n,) float64, or (n, classes) float64 for multilabel."""
        while not len(self._ends) or (len(times) and self._ends[-1] <= times[-1]):
            self._add_bout()
        bout = np.searchsorted(self._ends, times, side="right")
        return {task: np.asarray(values)[bout] for task, values in self._values.items()}

    def _add_bout(self) -> None:
        index = len(self._ends)
        length = rng("bout", self._seed, index).uniform(*_BOUT_S)
        self._ends = np.append(self._ends, (self._ends[-1] if index else 0.0) + length)
        for task, settings in self.tasks.items():
            self._values[task].append(self._value(task, settings, index))

    def _value(self, task: str, settings: SyntheticTask, index: int) -> Any:
        if settings.type == "regression":
            return settings.mean + settings.spread * rng("value", self._seed, task, index).uniform(-1.0, 1.0)
        if settings.type == "multilabel":
            return rng("set", self._seed, task, index).integers(0, 2, settings.num_classes).astype(np.float64)
        turn, place = divmod(index, settings.num_classes)  # each class once per turn, in an order of its own
        return int(rng("order", self._seed, task, turn).permutation(settings.num_classes)[place])


@dataclass(frozen=True, slots=True)
class _Pattern:
    """How one class moves one kind of channel: pace, strength per axis, a second harmonic, a resting direction."""

    rate_hz: float
    amplitude: _Floats
    harmonic: _Floats
    phase: _Floats
    rest: _Floats


class SyntheticSensor:
    """One simulated sensor of a profile.

    With `speed` 1 samples come in real time of the clock handed to `read`, with 0 only the `history_s` that comes at
    once with the first read; that history is there with every speed, so that learning can begin. Times start at 0.
    With a `shape` each channel gives an array of it per sample: a pattern of patches per class, flickering, and noise.

    Raises:
        ConfigError: `usage`: a negative speed or history.
    """

    def __init__(
        self,
        channels: Sequence[ProfileChannel],
        *,
        rate_hz: float,
        tasks: Mapping[str, SyntheticTask],
        seed: int,
        speed: float = 1.0,
        history_s: float = 120.0,
        shape: tuple[int, ...] = (),
    ) -> None:
        if speed < 0 or history_s < 0:
            raise ConfigError("usage", f"found speed {speed:g} and history {history_s:g} s, expected 0 or more")
        self.channels = tuple(channel.name for channel in channels)
        self.units = tuple(channel.unit for channel in channels)
        self.rate_hz = rate_hz
        self._ranges = np.array([channel.range for channel in channels], dtype=np.float64)
        self._seed = seed
        self._speed = speed
        self._history_s = history_s
        self._schedule = Schedule(tasks, seed)
        self._shape = shape
        self._templates: dict[tuple[str, int], _Floats] = {}
        self._groups = [
            (unit, [i for i, u in enumerate(self.units) if u == unit]) for unit in dict.fromkeys(self.units)
        ]
        device = rng("device", seed)
        self._pace = device.uniform(0.9, 1.1)
        self._strength = device.uniform(0.8, 1.2)
        self._mounting = _small_rotation(device, 0.25)
        self._began: float | None = None
        self._next = 0

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more: with speed 0, once the history is out."""
        return self._speed == 0 and self._began is not None

    def open(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""

    def read(self, now: float) -> Sequence[Reading]:
        """The samples up to `now`, in one reading; the first call brings the history and starts the clock."""
        if self._began is None:
            self._began = now
        clock = self._history_s + max(0.0, now - self._began) * self._speed
        end = int(np.floor(clock * self.rate_hz + 1e-6))
        if end <= self._next:
            return ()
        first, self._next = self._next, end
        values = np.empty((end - first, len(self.channels) * math.prod(self._shape)))
        length = FRAME_BLOCK if self._shape else BLOCK
        for index in range(first // length, (end - 1) // length + 1):
            start = index * length
            a, b = max(first, start), min(end, start + length)
            block = self._frames(index) if self._shape else self._block(index)
            values[a - first : b - first] = block[a - start : b - start]
        times = np.arange(first, end) / self.rate_hz
        return (Reading(times, values, self._schedule.at(times)),)

    def _block(self, index: int) -> _Floats:
        times = (index * BLOCK + np.arange(BLOCK)) / self.rate_hz
        labels = self._schedule.at(times)
        values = np.zeros((BLOCK, len(self.channels)))
        for unit, columns in self._groups:
            noise = rng("noise", self._seed, unit, index).standard_normal((BLOCK, len(columns)))
            values[:, columns] = self._signal(unit, columns, times, labels, noise)
        return np.clip(values, self._ranges[:, 0], self._ranges[:, 1])

    def _frames(self, index: int) -> _Floats:
        """One block of framed samples, (n, width): about the middle of the range, a pattern per class, noise."""
        times = (index * FRAME_BLOCK + np.arange(FRAME_BLOCK)) / self.rate_hz
        labels = self._schedule.at(times)
        pace, size = self._effort(labels, len(times))
        points = math.prod(self._shape)
        noise = rng("frame noise", self._seed, *self.channels, index)
        values = 0.3 * noise.standard_normal((FRAME_BLOCK, points * len(self.channels)))
        if all(settings.type == "regression" for settings in self._schedule.tasks.values()):
            values += size[:, None] * self._template("", 0)
        for task, settings in self._schedule.tasks.items():
            for k in range(settings.num_classes):
                weight = labels[task][:, k] if settings.type == "multilabel" else labels[task] == k
                rows = np.flatnonzero(weight)
                if len(rows):
                    low, high = _CLASS_HZ
                    hz = low * (high / low) ** float(rng("class", task, k).uniform())
                    flicker = 1.0 + 0.3 * np.sin(2 * np.pi * hz * self._pace * pace[rows] * times[rows])
                    values[rows] += (self._strength * size[rows] * flicker)[:, None] * self._template(task, k)
        low_end, high_end = np.tile(self._ranges.T, points)
        values = (low_end + high_end) / 2 + (high_end - low_end) / 8 * values
        return np.asarray(np.clip(values, low_end, high_end))

    def _template(self, task: str, k: int) -> _Floats:
        """What a class looks like, (width,) within +-2: a level per channel, and patches."""
        if (task, k) not in self._templates:
            generator = rng("frame", task, k, *self.channels)
            patches = generator.uniform(-1.0, 1.0, (*(_COARSE for _ in self._shape), len(self.channels)))
            for axis, size in enumerate(self._shape):
                patches = patches.take(np.arange(size) * _COARSE // size, axis=axis)
            self._templates[task, k] = (patches + generator.uniform(-1.0, 1.0, len(self.channels))).ravel()
        return self._templates[task, k]

    def _signal(
        self, unit: str, columns: list[int], times: _Floats, labels: Mapping[str, NDArray[Any]], noise: _Floats
    ) -> _Floats:
        if unit == "V":
            return np.repeat(self._heart(times, labels)[:, None], len(columns), axis=1) + 2e-5 * noise
        motion, rest = self._motion(unit, len(columns), times, labels)
        if unit == "m/s2":
            result = 3.0 * self._strength * motion + GRAVITY_M_S2 * rest + 0.6 * noise
        elif unit == "rad/s":
            result = 1.2 * self._strength * motion + 0.15 * noise
        else:  # any other quantity: about the middle of what the sensor can measure
            low, high = self._ranges[columns].T
            result = (low + high) / 2 + (high - low) / 8 * (motion + 0.2 * noise)
        return result @ self._mounting.T if len(columns) == 3 else result

    def _motion(
        self, unit: str, width: int, times: _Floats, labels: Mapping[str, NDArray[Any]]
    ) -> tuple[_Floats, _Floats]:
        """Movement of about unit size and the direction of rest, (n, width) each."""
        motion, rest = np.zeros((len(times), width)), np.zeros((len(times), width))
        pace, size = self._effort(labels, len(times))
        for task, settings in self._schedule.tasks.items():
            if settings.type == "regression":
                continue
            rows = labels[task]
            for k in range(settings.num_classes):
                pattern = _pattern(task, k, unit, width)
                weight = rows[:, k] if settings.type == "multilabel" else (rows == k).astype(np.float64)
                turns = 2 * np.pi * pattern.rate_hz * self._pace * (pace * times)[:, None]
                wave = pattern.amplitude * np.sin(turns + pattern.phase) + pattern.harmonic * np.sin(2 * turns)
                motion += (weight * size)[:, None] * wave
                rest += weight[:, None] * pattern.rest
        if not any(settings.type != "regression" for settings in self._schedule.tasks.values()):
            pattern = _pattern("", 0, unit, width)
            turns = 2 * np.pi * pattern.rate_hz * self._pace * (pace * times)[:, None]
            motion = size[:, None] * pattern.amplitude * np.sin(turns + pattern.phase)
            rest = rest + pattern.rest
        length = np.linalg.norm(rest, axis=1, keepdims=True)
        return motion, np.divide(rest, length, out=np.zeros_like(rest), where=length > 0)

    def _effort(self, labels: Mapping[str, NDArray[Any]], n: int) -> tuple[_Floats, _Floats]:
        """Pace and size of the movement, from the numbers to be estimated: faster and larger for larger values."""
        effort = np.zeros(())
        for task, settings in self._schedule.tasks.items():
            if settings.type == "regression":
                effort = effort + (labels[task] - settings.mean) / settings.spread
        effort = np.broadcast_to(np.clip(effort, -1.5, 1.5), (n,))
        return 1.0 + 0.3 * effort, 1.0 + 0.5 * effort

    def _heart(self, times: _Floats, labels: Mapping[str, NDArray[Any]]) -> _Floats:
        """An ECG at the skin in volts: P, QRS and T as bumps, at a rate that hangs on what is done."""
        beats_hz = np.full(len(times), 1.0)
        for task, settings in self._schedule.tasks.items():
            if settings.type == "classification":
                table = np.array([rng("heart", task, k).uniform(-0.3, 1.2) for k in range(settings.num_classes)])
                beats_hz = beats_hz + table[labels[task]]
        pace, _size = self._effort(labels, len(times))
        phase = (times * beats_hz * pace * self._pace) % 1.0
        wave = np.zeros(len(times))
        for centre, width, height in ((0.18, 0.025, 0.12), (0.29, 0.008, -0.1), (0.31, 0.01, 1.0), (0.55, 0.05, 0.3)):
            wave += height * np.exp(-0.5 * ((phase - centre) / width) ** 2)
        return np.asarray(1e-3 * self._strength * wave)


def _pattern(task: str, k: int, unit: str, width: int) -> _Pattern:
    shared = rng("class", task, k)  # the pace is common to all kinds of channels
    own = rng("class", task, k, unit)
    low, high = _CLASS_HZ
    rest = own.standard_normal(width)
    return _Pattern(
        rate_hz=float(low * (high / low) ** shared.uniform()),
        amplitude=own.uniform(0.2, 1.0, width) * own.choice([-1.0, 1.0], width),
        harmonic=own.uniform(0.0, 0.4, width),
        phase=own.uniform(0.0, np.pi, width),
        rest=rest / np.linalg.norm(rest),
    )


def _small_rotation(generator: np.random.Generator, angle: float) -> _Floats:
    """A rotation by up to `angle` radians about any axis: how this device sits on its person."""
    axis = generator.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis) * generator.uniform(0.0, angle)
    theta = float(np.sqrt(x * x + y * y + z * z))
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    if theta == 0.0:
        return np.eye(3)
    return np.asarray(
        np.eye(3) + np.sin(theta) / theta * cross + (1 - np.cos(theta)) / theta**2 * (cross @ cross), dtype=np.float64
    )
