"""Which range, rate and filter of an MPU-6050 a profile gets."""

import math

import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.drivers.mpu6050_registers import (
    ACCEL_STEPS,
    GYRO_STEPS,
    column,
    filter_setting,
    range_setting,
    rate_divider,
)


@pytest.mark.parametrize(
    ("high", "setting"),
    [
        (0.1, 0),
        (19.6, 0),
        (19.7, 0),  # 2 g end at 19.613: a profile may round a little
        (19.8, 1),
        (39.2, 1),
        (40.0, 2),  # 4 g end at 39.225
        (78.4, 2),
        (80.0, 3),
        (156.9, 3),
    ],
)
def test_the_smallest_range_of_acceleration_that_holds_the_profile_is_taken(high: float, setting: int) -> None:
    assert range_setting([(-high, high), (-0.1, 0.1)], ACCEL_STEPS, "m/s2") == setting
    assert range_setting([(-high, 0.0)], ACCEL_STEPS, "m/s2") == setting


@pytest.mark.parametrize(
    ("high", "setting"), [(4.36, 0), (4.4, 1), (8.73, 1), (8.9, 2), (17.45, 2), (17.7, 3), (34.9, 3)]
)
def test_the_smallest_range_of_rotation_that_holds_the_profile_is_taken(high: float, setting: int) -> None:
    assert range_setting([(-high, high)], GYRO_STEPS, "rad/s") == setting


def test_a_range_that_the_chip_cannot_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"found a range of 160 m/s2, expected at most 156\.9"):
        range_setting([(-1.0, 1.0), (0.0, 160.0)], ACCEL_STEPS, "m/s2")
    with pytest.raises(ConfigError, match=r"found a range of 36 rad/s, expected at most 34\.87"):
        range_setting([(-36.0, 36.0)], GYRO_STEPS, "rad/s")


def test_one_step_is_what_the_kernel_says() -> None:
    # accel_scale in micro m/s2 and gyro_scale_6050 in nano rad/s, of inv_mpu_core.c
    assert [math.floor(step * 1e6) for step in ACCEL_STEPS] == [598, 1197, 2394, 4788]
    assert pytest.approx([598, 1196, 2392, 4785], rel=1.5e-3) == [step * 1e6 for step in ACCEL_STEPS]
    assert pytest.approx([133090, 266181, 532362, 1064724], rel=1.5e-3) == [step * 1e9 for step in GYRO_STEPS]


@pytest.mark.parametrize(
    ("asked", "divider", "given"),
    [
        (1000.0, 0, 1000.0),
        (100.0, 9, 100.0),
        (50.0, 19, 50.0),
        (64.0, 14, 66.667),
        (104.0, 8, 111.11),
        (3.0, 255, 3.906),
    ],
)
def test_the_lowest_rate_that_is_not_below_the_one_asked_for_is_taken(asked: float, divider: int, given: float) -> None:
    assert rate_divider(asked) == divider
    assert 1000 / (1 + divider) == pytest.approx(given, rel=1e-4)


def test_more_than_1000_hz_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 1001 Hz, expected at most 1000 Hz"):
        rate_divider(1001)


def test_the_filter_passes_at_most_half_the_rate() -> None:
    bandwidth = {1: 188, 2: 98, 3: 42, 4: 20, 5: 10, 6: 5}
    assert [filter_setting(rate) for rate in (1000, 400, 399, 200, 100, 90, 50, 25, 10, 4)] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        5,
        6,
        6,
    ]
    assert all(bandwidth[filter_setting(rate)] <= rate / 2 for rate in range(10, 1001))


def test_channels_are_known_by_unit_and_last_letter() -> None:
    names = [("ax", "m/s2"), ("accel-z", "m/s2"), ("temp", "Cel"), ("gx", "rad/s"), ("gz", "rad/s")]
    assert [column(name, unit) for name, unit in names] == [0, 2, 3, 4, 6]
    with pytest.raises(ConfigError, match="channel acc in m/s2"):
        column("acc", "m/s2")
    with pytest.raises(ConfigError, match="channel mx in T"):
        column("mx", "T")
