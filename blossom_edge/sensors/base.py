"""The seam between anything that yields samples and the windows that are cut from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Reading:
    """Consecutive samples of one sensor, all of one recording. A live stream is one recording, number 0.

    times: (n,) float64, seconds on the device's own clock, one clock for all sensors of a device. Should rise; what
        does not is left out, and counted, before windows are cut.
    values: (n, width) floating, in the sensor's channels and units; width is the number of channels, for a framed
        sensor times that of the points of a frame, the channel running fastest. A row with a NaN is no sample.
    labels: task -> (n,) class names or class indices (-1: none) for a classification, (n,) floats (NaN: none) for a
        regression, (n, classes) of 0 and 1 for a multilabel task; tasks without labels are missing or None.
    """

    times: NDArray[np.float64]
    values: NDArray[np.floating[Any]]
    labels: Mapping[str, NDArray[Any] | None] = field(default_factory=dict)
    recording: int = 0

    def __len__(self) -> int:
        return len(self.times)


class Sensor(Protocol):
    """One sensor of a profile, wherever its samples come from. Called from one thread at a time.

    Real hardware says so with an attribute `live = True`, see `is_live`.
    """

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the columns, as in the profile."""
        ...

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each column."""
        ...

    @property
    def rate_hz(self) -> float:
        """Samples per second, as the source really gives them; known once the sensor is open."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more: True at the end of a recording, never for hardware."""
        ...

    def open(self) -> None:
        """Begin to deliver.

        Raises:
            HardwareError: nothing answers.
            ConfigError: an option or a recording is wrong.
        """
        ...

    def read(self, now: float) -> Sequence[Reading]:
        """What has come up to `now` (monotonic seconds) and was not read before; never waits for more.

        Raises:
            HardwareError: it delivers no more; it may be opened again.
        """
        ...

    def close(self) -> None:
        """Stop. May be called twice."""
        ...


def is_live(sensor: Sensor) -> bool:
    """Whether samples come from hardware right now: uneven stamps, health to be judged, a range, and no end."""
    return bool(getattr(sensor, "live", False))
