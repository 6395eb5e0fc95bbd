"""A simulated or replayed sensor without a federation, on the clock of the one who reads: to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blossom_edge.sensors.base import Reading, Sensor
from firmware_profiles.schema import Source


class SimulatedSensor:
    """`sensor` with times on the clock that is handed to `read`: the newest sample of the first reading is of then.

    Each recording that is replayed begins anew. source: the one that it stands for.
    """

    def __init__(self, sensor: Sensor, source: Source) -> None:
        self._sensor = sensor
        self._offset: tuple[int, float] | None = None
        self.source = source
        self.channels = sensor.channels
        self.units = sensor.units

    @property
    def rate_hz(self) -> float:
        """Samples per second."""
        return self._sensor.rate_hz

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more."""
        return self._sensor.exhausted

    def open(self) -> None:
        """Begin to deliver. Raises ConfigError: a recording is wrong."""
        self._sensor.open()

    def read(self, now: float) -> Sequence[Reading]:
        """What has come up to `now`."""
        return [self._shifted(reading, now) for reading in self._sensor.read(now) if len(reading)]

    def close(self) -> None:
        """Stop."""
        self._sensor.close()

    def _shifted(self, reading: Reading, now: float) -> Reading:
        if self._offset is None or self._offset[0] != reading.recording:
            self._offset = (reading.recording, now - float(reading.times[-1]))
        return replace(reading, times=reading.times + self._offset[1])
