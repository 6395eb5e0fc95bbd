"""Which channel of an IIO device a channel of a profile is, and in which unit its numbers come.

Units of the ABI: the kernel's Documentation/ABI/testing/sysfs-bus-iio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.drivers.iio_device import IioDevice
from firmware_profiles.schema import ProfileChannel


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of channel measures: the unit delivered, and how many of it one unit of the ABI is.

    prefix: of the names that `find` proposes. span: a usual range, where the device tells none.
    """

    unit: str
    factor: float
    prefix: str
    span: tuple[float, float] = (0.0, 1.0)


KINDS: Mapping[str, Kind] = {
    "accel": Kind("m/s2", 1.0, "a", (-39.2, 39.2)),
    "gravity": Kind("m/s2", 1.0, "gravity_", (-9.81, 9.81)),
    "anglvel": Kind("rad/s", 1.0, "g", (-8.73, 8.73)),
    "magn": Kind("T", 1e-4, "m", (-1e-3, 1e-3)),  # gauss
    "temp": Kind("Cel", 1e-3, "temp", (-40.0, 85.0)),  # thousandths of a degree
    "pressure": Kind("Pa", 1e3, "pressure", (30000.0, 110000.0)),  # kilopascal
    "humidityrelative": Kind("%RH", 1e-3, "humidity", (0.0, 100.0)),  # thousandths of a percent
    "voltage": Kind("V", 1e-3, "v", (0.0, 5.0)),
    "current": Kind("A", 1e-3, "i", (0.0, 1.0)),
    "illuminance": Kind("lx", 1.0, "light", (0.0, 1e5)),
    "angl": Kind("rad", 1.0, "angle", (0.0, 6.2832)),
    "distance": Kind("m", 1.0, "distance", (0.0, 5.0)),
    "intensity": Kind("", 1.0, ""),  # no unit: what the profile says
    "proximity": Kind("", 1.0, "proximity"),
}
"""By the word after `in_`."""

_KIND_OF_UNIT: Mapping[str, str] = {
    **dict.fromkeys(("m/s2", "g", "mg"), "accel"),
    **dict.fromkeys(("rad/s", "deg/s"), "anglvel"),
    **dict.fromkeys(("T", "mT", "uT", "G"), "magn"),
    **dict.fromkeys(("Cel", "K"), "temp"),
    **dict.fromkeys(("Pa", "hPa", "kPa"), "pressure"),
    **dict.fromkeys(("V", "mV", "uV"), "voltage"),
    **dict.fromkeys(("A", "mA"), "current"),
    "%RH": "humidityrelative",
    "lx": "illuminance",
    "m": "distance",
}
_PARTS = re.compile(r"in_([a-z]+)")
_WANTED = re.compile(r"(in_.+?)(?:\[(\d+)\])?")
_COLORS: Mapping[str, str] = {"red": "in_intensity_red", "ir": "in_intensity_ir", "green": "in_intensity_green"}


@dataclass(frozen=True, slots=True)
class Pick:
    """A channel of the device; `item` of its repeated values."""

    name: str
    item: int = 0


def kind_of(channel: str) -> Kind:
    """The kind of a channel such as `in_accel_x`; an unknown one has no unit."""
    match = _PARTS.match(channel)
    return KINDS.get(match[1] if match else "", Kind("", 1.0, ""))


def pick(channels: Sequence[ProfileChannel], mapping: Mapping[str, str], device: IioDevice) -> tuple[Pick, ...]:
    """The device's channel for each of the profile's: as `mapping` says, else by unit and the end of the name.

    `in_accel_x` for m/s2 and a name that ends in x, `in_voltage1` for V and a name that ends in 1 (0 without a
    number), `in_intensity_red` for the name red; the only one of its kind in any case.

    Raises:
        ConfigError: `profile-invalid`: the device has none such, or `mapping` names no channel of the sensor.
    """
    unknown = sorted(set(mapping) - {channel.name for channel in channels})
    found = device.channels()
    picks = []
    for channel in channels:
        wanted = mapping.get(channel.name) or _guess(channel, found)
        match = _WANTED.fullmatch(wanted)
        if match is None or match[1] not in found:
            more = f"; map names {', '.join(unknown)} besides" if unknown else ""
            raise ConfigError(
                "profile-invalid",
                f"{device.name} has no {wanted} for channel {channel.name}, found {', '.join(found) or 'none'}{more}",
                hint=f'say which: map = {{ {channel.name} = "in_..." }} in this source',
            )
        picks.append(Pick(match[1], int(match[2] or 0)))
    return tuple(picks)


def propose(name: str) -> tuple[str, str]:
    """For a channel of a device: a name in a profile, and its unit."""
    kind = kind_of(name)
    rest = re.sub(r"in_[a-z]+", "", name, count=1).strip("_").replace("-", "_")
    return (kind.prefix + rest or name.removeprefix("in_")), kind.unit or "count"


def _guess(channel: ProfileChannel, found: Sequence[str]) -> str:
    color = _COLORS.get(channel.name.rpartition("_")[2])
    if color in found:
        return str(color)
    kind = _KIND_OF_UNIT.get(channel.unit, "")
    same = [name for name in found if (match := _PARTS.match(name)) and match[1] == kind]
    if len(same) == 1:
        return same[0]
    if kind in ("accel", "anglvel", "magn"):
        return f"in_{kind}_{channel.name[-1:]}"
    number = re.search(r"\d*$", channel.name)
    digits = number[0] if number is not None else ""
    return f"in_{kind or channel.name}{digits or ('0' if kind in ('voltage', 'current') else '')}"
