"""Calibration at rest: numbers worked by hand, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.rest import at_rest, axis, mount_from_one, mount_from_two

CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
UNITS = ("m/s2",) * 3 + ("rad/s",) * 3
G = 9.80665


def lying(up: tuple[float, float, float], *, noise: float = 0.02, bias: float = 0.03) -> NDArray[np.float64]:
    rng = np.random.default_rng(7)
    mean = np.array([*(G * np.array(up)), bias, -bias, 0.0])
    return mean + noise * rng.standard_normal((200, 6)) * np.array([1, 1, 1, 0.1, 0.1, 0.1])


def turn(rows: tuple[tuple[float, float, float], ...], vector: tuple[float, float, float]) -> list[float]:
    return (np.array(rows) @ np.array(vector)).tolist()


def test_the_bias_is_the_mean_of_the_gyroscope_and_up_is_where_the_accelerometer_points() -> None:
    rest = at_rest(lying((0.0, -1.0, 0.0)), CHANNELS, UNITS)
    assert rest.bias == pytest.approx({"gx": 0.03, "gy": -0.03, "gz": 0.0}, abs=1e-3)
    assert rest.up == pytest.approx((0.0, -1.0, 0.0), abs=1e-3)


def test_a_sensor_that_is_moved_is_not_at_rest() -> None:
    with pytest.raises(HardwareError, match=r"found a spread of .* m/s2, expected at most 0.5"):
        at_rest(lying((0.0, 0.0, 1.0), noise=2.0), CHANNELS, UNITS)


def test_a_sensor_that_turns_evenly_is_not_at_rest() -> None:
    with pytest.raises(HardwareError, match="found gx 1, gy -1 rad/s"):
        at_rest(lying((0.0, 0.0, 1.0), bias=1.0), CHANNELS, UNITS)


def test_what_is_not_gravity_is_refused() -> None:
    values = lying((0.0, 0.0, 0.5))
    with pytest.raises(HardwareError, match=r"found 4\.90 m/s2 in all, expected 9\.81 of gravity"):
        at_rest(values, CHANNELS, UNITS)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(HardwareError, match="found 3 samples"):
        at_rest(lying((0.0, 0.0, 1.0))[:3], CHANNELS, UNITS)


def test_a_sensor_that_lies_on_its_side_is_turned_by_a_quarter_around_the_axis_across() -> None:
    # up is the sensor's y and shall be the device's z: a quarter turn around x
    mount = mount_from_one((0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert turn(mount, (0.0, 1.0, 0.0)) == pytest.approx([0.0, 0.0, 1.0])
    assert turn(mount, (1.0, 0.0, 0.0)) == pytest.approx([1.0, 0.0, 0.0])


def test_a_sensor_upside_down_is_turned_by_a_half_and_stays_a_rotation() -> None:
    for up in ((0.0, 0.0, -1.0), (-1.0, 0.0, 0.0)):
        wanted = tuple(-value for value in up)
        mount = np.array(mount_from_one(up, wanted))
        assert mount @ np.array(up) == pytest.approx(np.array(wanted))
        assert np.linalg.det(mount) == pytest.approx(1.0)
        assert mount @ mount.T == pytest.approx(np.eye(3))


def test_two_positions_fix_the_turn_around_gravity_as_well() -> None:
    # the sensor is turned by a quarter around z: its x shows the device's y, its y the device's -x
    mount = mount_from_two((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), wanted=((0.0, 0.0, 1.0), (1.0, 0.0, 0.0)))
    assert np.array(mount) == pytest.approx(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))


def test_two_positions_that_are_nearly_one_are_refused() -> None:
    near = (0.0, math.sin(0.1), math.cos(0.1))
    with pytest.raises(HardwareError, match="found 6 degrees between the two positions, expected about 90"):
        mount_from_two((0.0, 0.0, 1.0), near, wanted=((0.0, 0.0, 1.0), (1.0, 0.0, 0.0)))
    with pytest.raises(ConfigError, match="the same line"):
        mount_from_two((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), wanted=((0.0, 0.0, 1.0), (0.0, 0.0, -1.0)))


@pytest.mark.parametrize(("text", "vector"), [("+z", (0, 0, 1)), ("x", (1, 0, 0)), ("-Y", (0, -1, 0))])
def test_axes_are_read(text: str, vector: tuple[int, int, int]) -> None:
    assert axis(text) == vector


@pytest.mark.parametrize("text", ["", "w", "+-z", "zz"])
def test_what_is_no_axis_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected x, y or z"):
        axis(text)
