"""From a few seconds at rest to a calibration: gyro bias, and how the sensor is turned in its device. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.calibration import Row
from blossom_edge.sensors.units import STANDARD_GRAVITY

_Floats = NDArray[np.float64]

MOVING_M_S2 = 0.5
"""An axis whose values spread by more (standard deviation) is being moved; a resting MPU-6050 shows about 0.05."""
MOVING_RAD_S = 0.05
BIAS_RAD_S = 0.5
"""No gyroscope is off by more at rest: it is being turned evenly. An MPU-6050 is within 0.35 (20 degrees/s)."""
GRAVITY_TOLERANCE = 0.15
"""How far the length of what an accelerometer shows at rest may be from standard gravity, as a part of it."""
SAME_DIRECTION = math.cos(math.radians(20.0))
AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class Rest:
    """What a sensor shows at rest. bias: channel -> rad/s. up: direction against gravity in its own axes, or None.

    spread: the largest standard deviation of each unit's channels.
    """

    bias: dict[str, float]
    up: tuple[float, float, float] | None
    spread: dict[str, float]


def at_rest(values: _Floats, channels: Sequence[str], units: Sequence[str]) -> Rest:
    """Means over the samples (n, channel).

    Raises:
        HardwareError: `not-at-rest`: it moves, or what it shows is not gravity.
    """
    if len(values) < 10:
        raise HardwareError(
            "not-at-rest", f"found {len(values)} samples, expected 10 or more", hint="give it more time"
        )
    mean, spread = values.mean(axis=0), values.std(axis=0)
    columns = {unit: [i for i, found in enumerate(units) if found == unit] for unit in dict.fromkeys(units)}
    largest = {unit: float(spread[rows].max()) for unit, rows in columns.items()}
    for unit, limit in (("m/s2", MOVING_M_S2), ("rad/s", MOVING_RAD_S)):
        if largest.get(unit, 0.0) > limit:
            raise HardwareError(
                "not-at-rest",
                f"found a spread of {largest[unit]:.3g} {unit}, expected at most {limit:g}",
                hint="lay it down on something firm and try again",
            )
    bias = {channels[i]: float(mean[i]) for i in columns.get("rad/s", [])}
    turning = [f"{name} {value:.2g}" for name, value in bias.items() if abs(value) > BIAS_RAD_S]
    if turning:
        raise HardwareError(
            "not-at-rest",
            f"found {', '.join(turning)} rad/s, expected at most {BIAS_RAD_S:g} at rest",
            hint="it seems to be turning",
        )
    up = None
    if len(columns.get("m/s2", [])) == 3:
        vector = mean[columns["m/s2"]]
        length = float(np.linalg.norm(vector))
        if abs(length / STANDARD_GRAVITY - 1) > GRAVITY_TOLERANCE:
            raise HardwareError(
                "not-at-rest",
                f"found {length:.2f} m/s2 in all, expected {STANDARD_GRAVITY:.2f} of gravity",
                hint="see the range and the unit in the profile",
            )
        x, y, z = (vector / length).tolist()
        up = (x, y, z)
    return Rest(bias, up, largest)


def axis(text: str) -> tuple[float, float, float]:
    """An axis of the device: x, -y, +z, ...

    Raises:
        ConfigError: `usage`.
    """
    name = text.lower().lstrip("+-")
    if len(text) - len(name) > 1 or name not in AXES:
        raise ConfigError("usage", f"found the axis {text!r}, expected x, y or z with + or -", hint="for example +z")
    sign = -1.0 if text.startswith("-") else 1.0
    x, y, z = AXES[name]
    return sign * x, sign * y, sign * z


def mount_from_one(up: Sequence[float], wanted: Sequence[float]) -> tuple[Row, Row, Row]:
    """The smallest rotation that brings `up` (unit, the sensor's axes) to `wanted` (unit, the device's axes).

    Gravity says nothing about a turn around itself: that stays as it is.
    """
    a, b = np.array(up), np.array(wanted)
    cross, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1 + 1e-9:  # upside down: half a turn around any axis across it
        across = np.cross(a, AXES["x"] if abs(a[0]) < 0.9 else AXES["y"])
        across = across / np.linalg.norm(across)
        return _rows(2 * np.outer(across, across) - np.eye(3))
    x, y, z = cross
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return _rows(np.eye(3) + skew + skew @ skew / (1 + cosine))


def check_across(first: Sequence[float], second: Sequence[float]) -> None:
    """Whether two unit axes of the device fix its turn together.

    Raises:
        ConfigError: `usage`: they are one line.
    """
    if abs(float(np.array(first) @ np.array(second))) > SAME_DIRECTION:
        raise ConfigError("usage", "the two axes are the same line, expected two across each other")


def mount_from_two(
    first: Sequence[float], second: Sequence[float], *, wanted: tuple[Sequence[float], Sequence[float]]
) -> tuple[Row, Row, Row]:
    """The rotation from two positions at rest (the TRIAD method, Black 1964): exact for the first, nearest for both.

    Raises:
        ConfigError: `usage`, as `check_across`.
        HardwareError: `not-at-rest`: the two positions are nearly the same, or do not belong to these axes.
    """
    check_across(wanted[0], wanted[1])
    a, b = np.array(first), np.array(second)
    wish_a, wish_b = np.array(wanted[0]), np.array(wanted[1])
    apart, expected = math.acos(float(np.clip(a @ b, -1, 1))), math.acos(float(np.clip(wish_a @ wish_b, -1, 1)))
    if abs(apart - expected) > math.radians(20.0):
        raise HardwareError(
            "not-at-rest",
            f"found {math.degrees(apart):.0f} degrees between the two positions, "
            f"expected about {math.degrees(expected):.0f}",
            hint="turn the device so that the second axis points up",
        )
    return _rows(_frame(wish_a, wish_b) @ _frame(a, b).T)


def _frame(first: _Floats, second: _Floats) -> _Floats:
    across = np.cross(first, second)
    across = across / np.linalg.norm(across)
    return np.stack([first, across, np.cross(first, across)], axis=1)


def _rows(matrix: _Floats) -> tuple[Row, Row, Row]:
    (a, b, c), (d, e, f), (g, h, i) = np.round(matrix, 9).tolist()
    return (a, b, c), (d, e, f), (g, h, i)
