"""A sensor that plays a recording: the equal of a real one for everything above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.recordings import Recording, Stream, Track, invalid
from firmware_profiles.schema import ProfileSensor

PAUSE_S = 1.0
"""Recordings are played one after the other with this pause, long enough to be a gap."""


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    begin_s: float
    track: Track


class ReplaySensor:
    """Plays one sensor's channels from a person's recordings, one recording after the other, on a clock from 0.

    `speed` 1 is real time, 2 twice as fast, 0 everything at the first read. `needed` are the channels that the
    profile's modalities use; only those must be there, and only those are delivered, in this order within each point of
    a framed sample. NaN samples are passed on as gaps.

    Raises:
        ConfigError: `replay-invalid`: a channel is missing, has another unit or samples of another shape.
    """

    def __init__(self, recording: Recording, sensor: ProfileSensor, *, needed: Sequence[str], speed: float) -> None:
        if speed < 0:
            raise invalid(f"speed: found {speed:g}, expected 0 (at once) or more")
        self._name, stream = _find_stream(recording, needed)
        _check_stream(recording.source, stream, sensor, needed)
        self.channels = tuple(needed)
        self.units = tuple(stream.units[stream.channels.index(name)] for name in needed)
        self.rate_hz = stream.rate_hz
        self._columns = _columns(stream, needed)
        self._label_names = recording.label_names
        self._speed = speed
        self._parts = _timeline(recording, self._name)
        self._began: float | None = None
        self._next = 0
        self._sample = 0

    @property
    def exhausted(self) -> bool:
        """Whether all was delivered."""
        return self._next >= len(self._parts)

    def open(self) -> None:
        """Nothing to do: the recording was read and checked before."""

    def close(self) -> None:
        """Deliver nothing more."""
        self._next = len(self._parts)

    def read(self, now: float) -> Sequence[Reading]:
        """The samples up to `now`; the first call starts the clock."""
        if self._began is None:
            self._began = now
        clock = np.inf if self._speed == 0 else (now - self._began) * self._speed
        readings: list[Reading] = []
        while self._next < len(self._parts):
            part = self._parts[self._next]
            total = len(part.track.values)
            due = total
            if np.isfinite(clock):
                due = min(total, max(0, int(np.floor((clock - part.begin_s) * self.rate_hz + 1e-6)) + 1))
            if due > self._sample:
                readings += self._reading(part, self._sample, due)
                self._sample = due
            if self._sample < total:
                break
            self._next, self._sample = self._next + 1, 0
        return readings

    def _reading(self, part: _Part, first: int, end: int) -> list[Reading]:
        values = part.track.values[first:end][:, self._columns].astype(np.float64)
        times = part.begin_s + np.arange(first, end) / self.rate_hz
        good = np.isfinite(values).all(axis=1)
        if not good.any():
            return []
        labels = {task: self._named(task, rows[first:end][good]) for task, rows in part.track.labels.items()}
        return [Reading(times[good], values[good], labels, part.number)]

    def _named(self, task: str, labels: NDArray[Any]) -> NDArray[Any]:
        """Class indices of the file as names, because a federation may count its classes otherwise."""
        names = self._label_names[task]
        return np.array([*names, ""])[labels] if names else labels


def _find_stream(recording: Recording, needed: Sequence[str]) -> tuple[str, Stream]:
    for name, stream in recording.streams.items():
        if set(needed) <= set(stream.channels):
            return name, stream
    have = "; ".join(f"{name}: {', '.join(stream.channels)}" for name, stream in recording.streams.items())
    raise invalid(
        f"{recording.source}: found the channels {have}, expected {', '.join(needed)} in one stream",
        hint="replay what was recorded with these channels, or choose another profile",
    )


def _columns(stream: Stream, needed: Sequence[str]) -> slice | NDArray[np.int_]:
    """Where the needed channels stand in a row of values."""
    if tuple(needed) == stream.channels:
        return slice(None)
    places = np.array([stream.channels.index(name) for name in needed])
    points = np.arange(math.prod(stream.shape)) * len(stream.channels)
    columns: NDArray[np.int_] = np.add.outer(points, places).reshape(-1)
    return columns


def _check_stream(source: str, stream: Stream, sensor: ProfileSensor, needed: Sequence[str]) -> None:
    expected = {channel.name: channel.unit for channel in sensor.channels}
    if stream.shape != sensor.shape:
        raise invalid(
            f"{source}: shape: found {list(stream.shape)} for {', '.join(needed)}, "
            f"expected {list(sensor.shape)} as the profile says",
            hint="replay what was recorded with this profile's sensor",
        )
    for name in needed:
        found = stream.units[stream.channels.index(name)]
        if found != expected[name]:
            raise invalid(
                f"{source}: units: found {name} in {found}, expected {expected[name]} as the profile says",
                hint="convert the recording",
            )


def _timeline(recording: Recording, stream: str) -> list[_Part]:
    """When each recording begins: all streams of one recording keep their distance to each other."""
    parts: list[_Part] = []
    clock = 0.0
    for number in sorted({n for s in recording.streams.values() for n in s.tracks}):
        tracks = [(s.rate_hz, s.tracks[number]) for s in recording.streams.values() if number in s.tracks]
        origin = min(track.start_s for _rate, track in tracks)
        if number in recording.streams[stream].tracks:
            track = recording.streams[stream].tracks[number]
            parts.append(_Part(number, clock + track.start_s - origin, track))
        clock += max(track.start_s - origin + len(track.values) / rate for rate, track in tracks) + PAUSE_S
    return parts
