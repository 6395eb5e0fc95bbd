"""The MPU-6050 and its relatives as numbers: registers, ranges, rates, filters, and which to choose. Pure.

Registers: InvenSense RM-MPU-6000A-00 4.2; other chips, start-up times and filters: Linux,
drivers/iio/imu/inv_mpu6050. Sensitivities (LSB per g and per degree/s) are the data sheet's, as in adafruit_mpu6050.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.units import STANDARD_GRAVITY

ADDRESSES = (0x68, 0x69)
ACCEL_LSB_PER_G = (16384.0, 8192.0, 4096.0, 2048.0)
GYRO_LSB_PER_DEG_S = (131.0, 65.5, 32.8, 16.4)
ACCEL_STEPS = tuple(STANDARD_GRAVITY / lsb for lsb in ACCEL_LSB_PER_G)
"""m/s2 of one LSB, per range register value: 2, 4, 8, 16 g."""
GYRO_STEPS = tuple(math.radians(1.0 / lsb) for lsb in GYRO_LSB_PER_DEG_S)
"""rad/s of one LSB, per range register value: 250, 500, 1000, 2000 degrees/s."""

SAMPLE_RATE_DIVIDER, ACCEL_CONFIG_2, FIFO_ENABLE = 0x19, 0x1D, 0x23
USER_CONTROL, POWER_1, POWER_2, FIFO_COUNT, FIFO, WHO_AM_I = 0x6A, 0x6B, 0x6C, 0x72, 0x74, 0x75
RESET, SLEEP, CLOCK_OF_GYRO = 0x80, 0x40, 0x01
FIFO_ON, FIFO_RESET, ALL_TO_FIFO = 0x40, 0x04, 0xF8

FRAME = 14
"""Bytes of one sample in the FIFO, in order of the registers: acceleration x y z, temperature, rotation x y z."""
FRAMES_PER_READ = 2  # 28 of the 32 bytes of one block transfer
_ROUNDED = 1.005  # a profile may say 8.73 rad/s for 500 degrees/s


@dataclass(frozen=True, slots=True)
class Chip:
    """temperature: (LSB per degree, degrees Celsius at 0). accel_filter: whether it has a register of its own."""

    name: str
    fifo_bytes: int
    temperature: tuple[float, float]
    accel_filter: bool


CHIPS = {
    0x68: Chip("MPU-6050", 1024, (340.0, 36.53), False),
    0x70: Chip("MPU-6500", 512, (333.87, 21.0), True),
    0x71: Chip("MPU-9250", 512, (333.87, 21.0), True),
    0x73: Chip("MPU-9255", 512, (333.87, 21.0), True),
    0x74: Chip("MPU-6515", 512, (333.87, 21.0), True),
}
"""By WHO_AM_I. 0x68 is also the answer of an MPU-6000 and an MPU-9150."""


def rate_divider(rate_hz: float) -> int:
    """The register that gives the lowest rate >= `rate_hz`: 1000 / (1 + divider), with a filter on.

    Raises:
        ConfigError: `profile-invalid`: more than 1000 Hz.
    """
    if rate_hz > 1000:
        raise ConfigError("profile-invalid", f"found {rate_hz:g} Hz, expected at most 1000 Hz")
    return min(255, math.floor(1000 / rate_hz + 1e-9) - 1)


def filter_setting(rate_hz: float) -> int:
    """The low-pass filter whose bandwidth is at most half the rate, as in the kernel: 188 Hz (1) down to 5 Hz (6)."""
    for setting, lowest in enumerate((400, 200, 90, 40, 20), start=1):
        if rate_hz >= lowest:
            return setting
    return 6


def range_setting(limits: Iterable[tuple[float, float]], steps: Sequence[float], unit: str) -> int:
    """The smallest range that holds all limits; without limits the smallest one.

    Raises:
        ConfigError: `profile-invalid`: the chip cannot measure that much.
    """
    wanted = max((max(abs(low), abs(high)) for low, high in limits), default=0.0)
    for setting, step in enumerate(steps):
        if wanted <= step * 32767 * _ROUNDED:
            return setting
    raise ConfigError("profile-invalid", f"found a range of {wanted:g} {unit}, expected at most {steps[-1] * 32767:g}")


def column(name: str, unit: str) -> int:
    """Place of a channel in a frame."""
    first, axis = {"m/s2": 0, "rad/s": 4}.get(unit), "xyz".find(name[-1])
    if unit == "Cel":
        return 3
    if first is None or axis < 0:
        raise ConfigError(
            "profile-invalid",
            f"channel {name} in {unit}: expected a name that ends in x, y or z in m/s2 or rad/s, or Cel",
            hint="this chip measures acceleration, rotation and its own temperature",
        )
    return first + axis
