"""Chips with a CircuitPython driver that are guessed from their I2C address, with the source that would read each.

An address is no proof: many chips share one. Addresses: github.com/adafruit/I2C_Addresses; classes, attributes, ranges
and rates: the chip's driver at github.com/adafruit/Adafruit_CircuitPython_*, as it sets the chip up by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.driver import Found, Host
from blossom_edge.sensors.drivers.i2c import bus_numbers, open_bus, who_answers

Channels = tuple[tuple[str, str, float, float], ...]


def _motion(accel: float, gyro: float) -> Channels:
    linear = tuple((f"a{axis}", "m/s2", -accel, accel) for axis in "xyz")
    return (*linear, *((f"g{axis}", "rad/s", -gyro, gyro) for axis in "xyz"))


_MOTION = {"read": [f"{kind}[{axis}]" for kind in ("acceleration", "gyro") for axis in range(3)]}


@dataclass(frozen=True, slots=True)
class _Guess:
    """A chip. options: beside class, bus and address. package: what pip installs for it."""

    name: str
    path: str
    addresses: tuple[int, ...]
    sensor: str
    rate_hz: float
    channels: Channels
    package: str
    options: Mapping[str, Any] = field(default_factory=dict)


GUESSES = (
    # LSM6DSOX.__init__: 4 g, 250 degrees/s, 104 Hz
    _Guess(
        "LSM6DSOX",
        "adafruit_lsm6ds.lsm6dsox.LSM6DSOX",
        (0x6A, 0x6B),
        "imu",
        50.0,
        _motion(39.2, 4.36),
        "adafruit-circuitpython-lsm6ds",
        _MOTION,
    ),
    # ICM20X.initialize: 8 g, 500 degrees/s; each reading of its acceleration pauses for 20 ms, so no more than 25 Hz.
    # 0x69 is the driver's own; unverified in that list: 0x68, with AD0 at ground
    _Guess(
        "ICM-20948",
        "adafruit_icm20x.ICM20948",
        (0x68, 0x69),
        "imu",
        25.0,
        _motion(78.4, 8.72),
        "adafruit-circuitpython-icm20x",
        _MOTION,
    ),
    # BNO055.__init__: 4 g, 2000 degrees/s
    _Guess(
        "BNO055",
        "adafruit_bno055.BNO055_I2C",
        (0x28, 0x29),
        "imu",
        50.0,
        _motion(39.2, 34.9),
        "adafruit-circuitpython-bno055",
        _MOTION,
    ),
    # Bosch BST-BME280-DS002, key features
    _Guess(
        "BME280",
        "adafruit_bme280.basic.Adafruit_BME280_I2C",
        (0x76, 0x77),
        "air",
        1.0,
        (("temperature", "Cel", -40.0, 85.0), ("humidity", "%RH", 0.0, 100.0), ("pressure", "Pa", 30000.0, 110000.0)),
        "adafruit-circuitpython-bme280",
        {"read": ["temperature", "relative_humidity", "pressure"], "units": {"pressure": "hPa"}},
    ),
    # gain 1 is +-4.096 V; a conversion takes 1/475 s. Not mode 0 (continuous): there the driver leaves the input as it
    # finds it (ADS1x15._write_config of 3.0), which is A0 - A1
    _Guess(
        "ADS1115",
        "adafruit_ads1x15.ads1115.ADS1115",
        (0x48, 0x49, 0x4A, 0x4B),
        "adc",
        50.0,
        (("v0", "V", -4.09, 4.09),),
        "adafruit-circuitpython-ads1x15",
        {"analog_in": [0], "setup": {"gain": 1, "data_rate": 475}},
    ),
)


def find_chips(host: Host) -> Iterator[Found]:
    """A proposal for whatever answers at one of these addresses; a bus on which nothing does is named.

    Raises:
        ConfigError: `package-missing`.
    """
    for number in bus_numbers(host):
        try:
            bus = open_bus(host, number)
        except HardwareError:  # the driver mpu6050 says why
            continue
        try:
            answers = who_answers(bus, sorted(address for guess in GUESSES for address in guess.addresses))
        finally:
            bus.close()
        if not answers:
            what = f"nothing answers on I2C bus {number} at the addresses that are looked at"
            yield Found("adafruit", what, note=f"see the wires, or `i2cdetect -y {number}`")
        for guess in GUESSES:
            for address in guess.addresses:
                if answers.get(address):
                    yield _found(guess, number, address)


def _found(guess: _Guess, bus: int, address: int) -> Found:
    return Found(
        "adafruit",
        f"{guess.name}, perhaps, on I2C bus {bus}, address {address:#x}",
        guess.sensor,
        guess.rate_hz,
        {"class": guess.path, "bus": bus, "address": address, **guess.options},
        guess.channels,
        f"by its address only: check the chip; pip install {guess.package}",
        by_address=True,
    )
