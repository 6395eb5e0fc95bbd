"""Bringing samples to the federation's grid: what may pass, what may not, no delay, nothing invented at the ends."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.sensors.resampling import PASS_EDGE, linear, low_pass, margin_s, nearest

RATE_HZ = 50.0  # the federation's; its Nyquist frequency is 25 Hz
WANTED = 2.0 + np.arange(128) / RATE_HZ


def tone(times: NDArray[np.float64], hz: float) -> NDArray[np.float64]:
    return np.stack([np.sin(2 * np.pi * hz * times), np.cos(2 * np.pi * hz * times)], axis=1)


@pytest.mark.parametrize("sensor_hz", [104.0, 200.0, 1600.0])
@pytest.mark.parametrize("hz", [25.0, 27.0, 38.0, 51.0])
def test_a_tone_from_the_nyquist_frequency_on_is_down_by_sixty_decibels(sensor_hz: float, hz: float) -> None:
    times = np.arange(int(7 * sensor_hz)) / sensor_hz
    assert np.abs(low_pass(times, tone(times, hz), WANTED, RATE_HZ)).max() < 2e-3  # 54 dB, worst case with ripple


@pytest.mark.parametrize("sensor_hz", [63.0, 104.0, 1600.0])
@pytest.mark.parametrize("hz", [0.5, 5.0, 25.0 * PASS_EDGE])
def test_a_tone_in_the_pass_band_keeps_amplitude_and_phase(sensor_hz: float, hz: float) -> None:
    times = np.arange(int(7 * sensor_hz)) / sensor_hz
    out = low_pass(times, tone(times, hz), WANTED, RATE_HZ)
    np.testing.assert_allclose(out, tone(WANTED, hz), atol=0.01)


def test_without_a_low_pass_the_same_tone_would_come_back_at_full_strength() -> None:
    times = np.arange(1400) / 200.0
    assert np.abs(linear(times, tone(times, 51.0), WANTED)).max() > 0.8


def test_uneven_stamps_shift_nothing() -> None:
    times = np.arange(1400) / 200.0 + np.random.default_rng(1).uniform(-0.001, 0.001, 1400)
    np.testing.assert_allclose(low_pass(times, tone(times, 5.0), WANTED, RATE_HZ), tone(WANTED, 5.0), atol=0.02)


def test_a_level_and_a_slope_go_on_beyond_the_ends() -> None:
    times = np.arange(300) / 100.0
    values = np.stack([np.full(300, 9.81), 3 * times], axis=1)
    wanted = np.arange(149) / RATE_HZ  # from the first sample to nearly the last one
    out = low_pass(times, values, wanted, RATE_HZ)
    np.testing.assert_allclose(out[:, 0], 9.81, atol=1e-9)
    np.testing.assert_allclose(out[:, 1], 3 * wanted, atol=0.002)


def test_samples_beyond_the_margin_do_not_count() -> None:
    times = np.arange(1400) / 200.0
    values = tone(times, 5.0)
    far = (times < WANTED[0] - margin_s(RATE_HZ) - 0.01) | (times > WANTED[-1] + margin_s(RATE_HZ) + 0.01)
    spoilt = np.where(far[:, None], 1e6, values)
    np.testing.assert_array_equal(low_pass(times, spoilt, WANTED, RATE_HZ), low_pass(times, values, WANTED, RATE_HZ))


def test_the_nearest_frame_is_taken_and_of_two_equally_near_ones_the_earlier() -> None:
    times = np.array([0.0, 0.2, 0.45, 0.6])
    assert nearest(times, np.array([0.0, 0.1, 0.11, 0.32, 0.33, 0.59, 0.7])).tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert nearest(np.array([1.0]), np.array([0.9, 1.1])).tolist() == [0, 0]
