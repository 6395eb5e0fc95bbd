"""A fake IIO board read as a device reads it: what the tests of the driver share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.live import LiveSensor
from firmware_profiles.schema import ProfileSensor
from tests.live import until

ACCEL = tuple({"name": f"a{axis}", "unit": "m/s2", "range": [-39.2, 39.2]} for axis in "xyz")
GYRO = tuple({"name": f"g{axis}", "unit": "rad/s", "range": [-8.73, 8.73]} for axis in "xyz")
WAIT_S = 10.0


def sensor(
    root: Path, device: str, channels: Sequence[dict[str, object]] = ACCEL, rate_hz: float = 100.0, **options: object
) -> LiveSensor:
    """The sensor of a profile with one iio source; it wakes up every 5 samples, so that tests are short."""
    source = {"driver": "iio", "rate_hz": rate_hz, "device": device, "watermark": 5, **options}
    settings = ProfileSensor.model_validate({"channels": list(channels), "sources": [source]})
    return LiveSensor("imu", settings, needed=[str(c["name"]) for c in channels], host=Host(root))


def gather(live: LiveSensor, count: int) -> Reading:
    """The next `count` samples or a few more."""
    parts: list[Reading] = []
    until(
        lambda: bool(parts.extend(live.read(0.0)) or sum(map(len, parts)) >= count), f"{count} samples", (),
        timeout_s=WAIT_S,
    )  # fmt: skip
    return Reading(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))


def error_of(live: LiveSensor) -> HardwareError:
    """The error that the sensor ends with, after its last samples."""
    found: list[HardwareError] = []

    def failed() -> bool:
        try:
            live.read(0.0)
        except HardwareError as error:
            found.append(error)
        return bool(found)

    until(failed, "an error of the sensor", (), timeout_s=WAIT_S)
    return found[0]
