"""Chips as the kernel's IIO drivers show them: names, types, scales and rates, with the source of each number.

Sources are files of the Linux kernel below drivers/iio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Signal = Callable[[str, float], float]
"""(channel such as `in_accel_x`, seconds since the device was plugged in) -> its value in the unit of the ABI, which
is m/s2, rad/s, gauss, thousandths of a degree, kPa, thousandths of a percent, mV."""

_TYPE = re.compile(r"(le|be):([su])(\d+)/(\d+)(?:X(\d+))?>>(\d+)")


@dataclass(frozen=True, slots=True)
class Channel:
    """One input. type and index: in the buffer's scans, "" for one that is only polled. suffix: of the polled file."""

    name: str
    type: str = ""
    index: int = -1
    suffix: str = "raw"

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest raw value."""
        match = _TYPE.fullmatch(self.type)
        bits = int(match[3]) if match else 32
        return (0, 2**bits - 1) if match and match[2] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@dataclass(frozen=True, slots=True)
class Part:
    """One IIO device. attributes: its files beside those of channels and buffer. rate_hz: where none of them says so.

    where: the I2C bus and address that it hangs on. stamps: whether its scans can carry a timestamp.
    """

    name: str
    channels: tuple[Channel, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    rate_hz: float = 1.0
    where: str = "1-0068"
    stamps: bool = True
    trigger: str | None = None

    @property
    def buffered(self) -> bool:
        """Whether it has a buffer."""
        return any(channel.type for channel in self.channels)


def at_rest(channel: str, seconds: float) -> float:
    """A board that lies on a table, in a room, with nothing connected to its inputs."""
    return {
        "in_accel_z": 9.80665,
        "in_temp": 25000.0,
        "in_pressure": 101.325,
        "in_humidityrelative": 45000.0,
        "in_intensity_red": 100000.0,
        "in_intensity_ir": 120000.0,
    }.get(channel, 0.0)


def pack(channels: list[Channel], values: Mapping[str, int]) -> bytes:
    """One scan of these channels, as `iio_compute_scan_bytes` of industrialio-buffer.c lays it out."""
    scan, longest = bytearray(), 1
    for channel in sorted(channels, key=lambda c: c.index):
        match = _TYPE.fullmatch(channel.type)
        if match is None:
            raise ValueError(f"{channel.name}: {channel.type!r} is no scan type")
        bits, size, repeat = int(match[3]), int(match[4]) // 8, int(match[5] or 1)
        length = size * repeat
        scan += bytes(-len(scan) % length)
        word = (values[channel.name] & ((1 << bits) - 1)) << int(match[6])
        scan += word.to_bytes(size, "little" if match[1] == "le" else "big") * repeat
        longest = max(longest, length)
    return bytes(scan + bytes(-len(scan) % longest))


def _three(kind: str, scan_type: str, first: int) -> tuple[Channel, ...]:
    return tuple(Channel(f"in_{kind}_{axis}", scan_type, first + i) for i, axis in enumerate("xyz"))


_NO_TURN = "1, 0, 0; 0, 1, 0; 0, 0, 1"

# imu/inv_mpu6050/inv_mpu_core.c: accel_scale, gyro_scale_6050, INV_MPU6050_TEMP_*, sampling_frequency_available; after
# its probe 2 g, 2000 degrees/s, 50 Hz. It brings its own trigger.
MPU6050 = Part(
    "mpu6050",
    (*_three("accel", "be:s16/16>>0", 0), Channel("in_temp", "be:s16/16>>0", 3), *_three("anglvel", "be:s16/16>>0", 4)),
    {
        "in_accel_scale": "0.000598",
        "in_accel_scale_available": "0.000598 0.001196 0.002392 0.004785",
        "in_anglvel_scale": "0.001064724",
        "in_anglvel_scale_available": "0.000133090 0.000266181 0.000532362 0.001064724",
        "in_temp_scale": "2.941176",
        "in_temp_offset": "12420",
        "in_accel_mount_matrix": _NO_TURN,
        "in_anglvel_mount_matrix": _NO_TURN,
        "sampling_frequency": "50",
        "sampling_frequency_available": "10 20 50 100 200 500",
        "current_timestamp_clock": "realtime",
    },
    trigger="mpu6050-dev0",
)

_LSM6DSOX = {
    "sampling_frequency_available": "12.500 26.000 52.000 104.000 208.000 416.000",
    "current_timestamp_clock": "realtime",
    "mount_matrix": _NO_TURN,
}
# imu/st_lsm6dsx/st_lsm6dsx_core.c: odr_table, fs_table in billionths (IIO_G_TO_M_S_2, IIO_DEGREE_TO_RAD of
# include/linux/iio/iio.h). Two devices on one address. unverified: the rate and the ranges after its probe.
LSM6DSOX = (
    Part(
        "lsm6dsox_gyro",
        _three("anglvel", "le:s16/16>>0", 0),
        {
            **_LSM6DSOX,
            "sampling_frequency": "12.500",
            "in_anglvel_scale": "0.000152716",
            "in_anglvel_scale_available": "0.000152716 0.000305432 0.000610865 0.001221729",
        },
        where="1-006a",
    ),
    Part(
        "lsm6dsox_accel",
        _three("accel", "le:s16/16>>0", 0),
        {
            **_LSM6DSOX,
            "sampling_frequency": "12.500",
            "in_accel_scale": "0.000598205",
            "in_accel_scale_available": "0.000598205 0.001196411 0.002392822 0.004785645",
        },
        where="1-006a",
    ),
)

_ICM42688 = {
    "sampling_frequency": "50.000000",
    "sampling_frequency_available": (
        "12.500000 25.000000 50.000000 100.000000 200.000000 1000.000000 2000.000000 4000.000000"
    ),
    "current_timestamp_clock": "realtime",
    "mount_matrix": _NO_TURN,
}
# imu/inv_icm42600/inv_icm42600_accel.c, _gyro.c: *_CHAN (16 bits, big-endian), *_scale, *_odr. Two devices; their
# FIFO needs no trigger. Left out: the temperature. unverified: the rate and the ranges after its probe.
ICM42688 = (
    Part(
        "icm42688-accel",
        _three("accel", "be:s16/16>>0", 0),
        {
            **_ICM42688,
            "in_accel_scale": "0.004788403",
            "in_accel_scale_available": "0.004788403 0.002394202 0.001197101 0.000598550",
        },
    ),
    Part(
        "icm42688-gyro",
        _three("anglvel", "be:s16/16>>0", 0),
        {
            **_ICM42688,
            "in_anglvel_scale": "0.001065264",
            "in_anglvel_scale_available": (
                "0.001065264 0.000532632 0.000266316 0.000133158 0.000066579 0.000033290 0.000016645 0.000008322"
            ),
        },
    ),
)

# health/max30102.c: 18 bits in the upper three bytes; 400 Hz, mean of 4. It tells no rate and no timestamps.
MAX30102 = Part(
    "max30102",
    (Channel("in_intensity_red", "be:u18/32>>8", 0), Channel("in_intensity_ir", "be:u18/32>>8", 1)),
    rate_hz=100.0,
    where="1-0057",
    stamps=False,
)

# pressure/bmp280-core.c: processed values only, no buffer, no rate; newer kernels have more.
BME280 = Part(
    "bme280",
    (
        Channel("in_temp", suffix="input"),
        Channel("in_pressure", suffix="input"),
        Channel("in_humidityrelative", suffix="input"),
    ),
    {"in_temp_oversampling_ratio": "2", "in_temp_oversampling_ratio_available": "1 2 4 8 16"},
    where="1-0076",
)

# adc/ti-ads1015.c: 12 bits above 4 empty ones, 4.096 V as "2", 1600 per second; a buffer that wants a foreign trigger,
# for one channel at a time. It says "ads1015" of an ADS1115, too.
ADS1015 = Part(
    "ads1015",
    (
        Channel("in_voltage0-voltage1", "le:s12/16>>4", 0),
        *(Channel(f"in_voltage{i}", "le:s12/16>>4", 4 + i) for i in range(4)),
    ),
    {
        **{f"in_voltage{name}_scale": "1.000000000" for name in ("0-voltage1", "0", "1", "2", "3")},
        **{f"in_voltage{name}_sampling_frequency": "1600" for name in ("0-voltage1", "0", "1", "2", "3")},
        "scale_available": "3 2 1 0.5 0.25 0.125",
        "sampling_frequency_available": "128 250 490 920 1600 2400 3300",
        "current_timestamp_clock": "realtime",
    },
    rate_hz=1600.0,
    where="1-0048",
    trigger="",
)
