"""Units: from what a driver delivers to the SenML unit that a profile declares. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from blossom_edge.core.errors import ConfigError

if TYPE_CHECKING:
    from blossom_edge.sensors.driver import Request

STANDARD_GRAVITY = 9.80665
"""m/s2, by definition (3rd CGPM, 1901)."""

_TO_BASE: dict[str, tuple[str, float, float]] = {
    # unit -> (base unit, factor, offset): base = value * factor + offset
    "g": ("m/s2", STANDARD_GRAVITY, 0.0),  # standard gravity; a mass is not measured here
    "mg": ("m/s2", STANDARD_GRAVITY / 1000, 0.0),
    "deg/s": ("rad/s", math.pi / 180, 0.0),
    "deg": ("rad", math.pi / 180, 0.0),
    "mT": ("T", 1e-3, 0.0),
    "uT": ("T", 1e-6, 0.0),
    "G": ("T", 1e-4, 0.0),  # gauss
    "mV": ("V", 1e-3, 0.0),
    "uV": ("V", 1e-6, 0.0),
    "mA": ("A", 1e-3, 0.0),
    "uS": ("S", 1e-6, 0.0),
    "K": ("Cel", 1.0, -273.15),
    "hPa": ("Pa", 100.0, 0.0),
    "kPa": ("Pa", 1000.0, 0.0),
    "%": ("/", 0.01, 0.0),
    "kHz": ("Hz", 1e3, 0.0),
    "ms": ("s", 1e-3, 0.0),
    "mm": ("m", 1e-3, 0.0),
    "cm": ("m", 1e-2, 0.0),
    "km/h": ("m/s", 1 / 3.6, 0.0),
}


def check_units(request: Request, units: Sequence[str]) -> None:
    """Whether the units that a source names for the channels wanted can be converted to the profile's.

    Raises:
        ConfigError: `profile-invalid`, with the sensor and the channel.
    """
    for channel, unit in zip(request.channels, units, strict=True):
        try:
            conversion(unit, channel.unit)
        except ConfigError as error:
            like = [name for name, (base, _, _) in _TO_BASE.items() if base == channel.unit]
            raise ConfigError(
                "profile-invalid",
                f"sensor {request.sensor}: units: found {unit!r} for {channel.name}, expected {channel.unit}"
                + (f" or one of {', '.join(like)}" if like else ""),
                hint="name the unit that the source delivers",
            ) from error


def conversion(found: str, wanted: str) -> tuple[float, float]:
    """(factor, offset) with wanted = found * factor + offset.

    Raises:
        ConfigError: `profile-invalid`: they do not measure the same.
    """
    base, factor, offset = _TO_BASE.get(found, (found, 1.0, 0.0))
    other, factor_back, offset_back = _TO_BASE.get(wanted, (wanted, 1.0, 0.0))
    if base != other:
        raise ConfigError(
            "profile-invalid",
            f"found the unit {found}, expected {wanted} or one that can be converted to it",
            hint="give the channel the unit that the driver delivers",
        )
    return factor / factor_back, (offset - offset_back) / factor_back
