"""What the tests of the camera share: a clock and a driver on it."""

from __future__ import annotations

from pathlib import Path

from blossom_edge.sensors.driver import Host, Request
from blossom_edge.sensors.drivers.camera import CameraDriver
from firmware_profiles.schema import ProfileChannel

RGB = tuple(ProfileChannel(name=name, unit="/", range=(0.0, 1.0)) for name in "rgb")
GREY = (ProfileChannel(name="grey", unit="/", range=(0.0, 1.0)),)


class Time:
    """A clock that goes on only when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


def make(
    time: Time | None = None,
    *,
    shape: tuple[int, ...] = (8, 8),
    rate_hz: float = 5.0,
    channels: tuple[ProfileChannel, ...] = RGB,
    root: Path = Path("/"),
    **options: object,
) -> CameraDriver:
    host = Host(root, time) if time else Host(root)
    driver = CameraDriver(Request("cam", channels, rate_hz, shape, options, host))
    if time is not None:
        driver._pause = time.wait  # type: ignore[method-assign]  # waits in the time of the test
    return driver
