"""Holds the sources of a profile against their drivers before anything is opened. Touches no hardware."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.driver import SIMULATED, Driver, Request, driver_class, gain_of
from blossom_edge.sensors.opening import needed_channels
from blossom_edge.sensors.units import conversion
from firmware_profiles.schema import Profile, Source

_KEY = re.compile(r"[a-z]\w*(\[\d+\]|\.\w+)*: ")


@dataclass(frozen=True, slots=True)
class SourceFault:
    """What is wrong with one source.

    number: from 0, as in the file. what: begins with the key where there is one. elsewhere: the module of its
    `module:Class` cannot be imported here, so that nothing can be said of it.
    """

    sensor: str
    number: int
    driver: str
    what: str
    hint: str
    elsewhere: bool = False

    def __str__(self) -> str:
        place = f"sensors.{self.sensor}.sources.{self.number}"
        return f"{place}.{self.what}" if _KEY.match(self.what) else f"{place} ({self.driver}): {self.what}"


def source_faults(profile: Profile, *, all_sensors: bool = True) -> Iterator[SourceFault]:
    """What is wrong with the sources of the profile, also with those that would only be tried when another fails.

    all_sensors: also of the sensors that no modality uses.
    """
    needed = needed_channels(profile, None)
    for name in sorted(profile.sensors) if all_sensors else needed:
        for number, source in enumerate(profile.sensors[name].sources):
            try:
                gain_of(source)
                if source.driver not in SIMULATED:
                    _check(profile, name, source, needed.get(name, ()))
            except ConfigError as error:
                what = str(error).removeprefix(f"sensor {name}: ")
                elsewhere = ":" in source.driver and not _is_here(source.driver)
                yield SourceFault(name, number, source.driver, what, error.hint, elsewhere)
            except Exception as error:  # the outermost frame of ours around a driver of other people
                what = f"its driver fails: {type(error).__name__}: {error}"
                yield SourceFault(name, number, source.driver, what, "a fault in that driver?")


def check_sources(profile: Profile) -> None:
    """Check driver and options of every source of the sensors that the profile's modalities use.

    Raises:
        ConfigError: `profile-invalid`, with sensor, number of the source (from 1) and key.
    """
    for fault in source_faults(profile, all_sensors=False):
        where = f"sensor {fault.sensor}, source {fault.number + 1} ({fault.driver})"
        raise ConfigError("profile-invalid", f"{where}: {fault.what}", hint=fault.hint)


def _check(profile: Profile, name: str, source: Source, needed: tuple[str, ...]) -> None:
    """Make the driver, as `LiveSensor` does, without opening it. Raises ConfigError."""
    sensor = profile.sensors[name]
    channels = tuple(channel for channel in sensor.channels if channel.name in needed) or sensor.channels
    options = {key: value for key, value in source.options.items() if key != "gain"}
    driver: Driver = driver_class(source.driver)(
        Request(sensor=name, channels=channels, rate_hz=source.rate_hz, shape=sensor.shape, options=options)
    )
    for found, channel in zip(driver.units, channels, strict=True):
        conversion(found, channel.unit)


def _is_here(driver: str) -> bool:
    """Whether the module of `module:Class` can be imported."""
    try:
        importlib.import_module(driver.partition(":")[0])
    except (ImportError, ValueError):
        return False
    return True
