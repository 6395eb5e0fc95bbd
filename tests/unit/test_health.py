"""The verdict on a live sensor: what one window shows, and when a verdict changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.clock import DriftEstimate
from blossom_edge.sensors.health import Limits, SensorHealth, gap_s, judge, silent_s
from firmware_profiles.schema import ProfileChannel, Unit

RATE_HZ = 50.0
SPAN_S = 2.56  # 128 samples


def limits(*units: Unit, rate_hz: float = RATE_HZ, span_s: float = SPAN_S, shape: tuple[int, ...] = ()) -> Limits:
    channels = [
        ProfileChannel(name=f"c{i}", unit=unit, range=(-10.0, 10.0)) for i, unit in enumerate(units or ("m/s2",) * 3)
    ]
    return Limits.of(channels, rate_hz=rate_hz, span_s=span_s, shape=shape)


def noise(count: int = 128, width: int = 3, *, first: int = 0) -> Reading:
    values = np.random.default_rng(first).standard_normal((count, width))
    return Reading((first + np.arange(count)) / RATE_HZ, values)


def verdict(values: NDArray[np.floating[Any]], found: Limits, times: NDArray[np.float64] | None = None) -> str:
    return judge(np.arange(len(values)) / RATE_HZ if times is None else times, values, found).state


def test_noise_at_the_declared_rate_is_well() -> None:
    assert verdict(noise().values, limits()) == "ok"


def test_a_fifth_of_a_window_may_be_no_numbers() -> None:
    values = noise(100).values
    values[:20, 1] = np.nan
    assert verdict(values, limits()) == "ok"
    values[20, 0] = np.inf
    found = judge(np.arange(100) / RATE_HZ, values, limits())
    assert (found.state, found.reason) == ("nan", "21% of the samples are no numbers")


def test_a_group_that_stands_still_is_stuck_but_one_axis_may() -> None:
    values = noise(width=6).values
    found = limits("m/s2", "m/s2", "m/s2", "rad/s", "rad/s", "rad/s")
    values[:, 0] = 1.0
    assert verdict(values, found) == "ok"
    values[:, :3] = [0.0, 0.0, 9.81]
    assert judge(np.arange(128) / RATE_HZ, values, found).reason == "128 equal samples"
    values[-1, 2] = 9.82
    assert verdict(values, found) == "ok"


@pytest.mark.parametrize("unit", ["Cel", "Pa", "%RH", "lx", "/", "count", "S"])
def test_quantities_that_may_stand_still_are_not_stuck(unit: Unit) -> None:
    assert verdict(np.full((128, 1), 3.0), limits(unit)) == "ok"


def test_a_range_whose_end_is_reached_too_often_is_saturated_where_that_means_something() -> None:
    values = noise(100).values
    values[:20, 2] = 10.0
    assert verdict(values, limits()) == "ok"
    values[20, 2] = -11.0
    assert judge(np.arange(100) / RATE_HZ, values, limits()).reason == "21% of the samples at the end of the range"
    assert verdict(values, limits("lx", "lx", "lx")) == "ok"


@pytest.mark.parametrize(
    ("rate_hz", "state"), [(37.0, "rate"), (38.0, "ok"), (50.0, "ok"), (74.0, "ok"), (76.0, "rate"), (25.0, "rate")]
)
def test_the_measured_rate_may_be_three_quarters_to_one_and_a_half_of_the_declared_one(
    rate_hz: float, state: str
) -> None:
    assert verdict(noise().values, limits(), np.arange(128) / rate_hz) == state


def test_three_stamps_that_jump_are_too_many_and_a_pause_is_no_rate() -> None:
    times = np.arange(128) / RATE_HZ
    times[50:] += 1.0
    times[90:] += 1.0
    assert verdict(noise().values, limits(), times) == "ok"
    times[100:] -= 0.5
    assert judge(times, noise().values, limits()).reason == "3 of 128 stamps jump"


def test_frames_that_are_equal_are_stuck_and_black_points_are_not() -> None:
    frames = np.random.default_rng(0).random((5, 12))
    frames[:, 3] = 0.0
    found = limits("/", rate_hz=5.0, span_s=1.0, shape=(4, 3))
    assert verdict(frames, found, np.arange(5) / 5) == "ok"
    frames[:] = frames[0]
    assert verdict(frames, found, np.arange(5) / 5) == "stuck"


def test_one_bad_window_is_enough_and_two_good_ones_bring_it_back() -> None:
    judge_of = SensorHealth(limits())
    states = []
    for window in range(7):
        part = noise(first=128 * window)
        values = np.full_like(part.values, 1.0) if window == 2 else part.values
        states.append(judge_of.push(Reading(part.times, values), float(part.times[-1])).state)
    # a window is over when the first sample after it has come
    assert states == ["ok", "ok", "ok", "stuck", "stuck", "ok", "ok"]
    (before, bad, good, last) = judge_of.distrusted()
    assert (before.begin_s, before.end_s) == pytest.approx((2.56, 5.12))  # it may have begun in there
    assert (bad.begin_s, bad.end_s) == pytest.approx((5.12, 7.68))
    assert (good.begin_s, last.end_s) == pytest.approx((7.68, 12.8))
    assert judge_of.trusted_until_s == np.inf


def test_the_verdict_does_not_hang_on_how_samples_come_in() -> None:
    whole = noise(128 * 8)
    whole.values[300:600] = 1.0
    once, slowly = SensorHealth(limits()), SensorHealth(limits())
    once.push(whole, 100.0)
    for i in range(0, len(whole), 7):
        slowly.push(Reading(whole.times[i : i + 7], whole.values[i : i + 7]), 100.0)
    assert once.health == slowly.health
    assert once.distrusted() == slowly.distrusted()


def test_silence_is_judged_on_the_clock_and_only_when_longer_than_two_seconds_and_five_periods() -> None:
    assert (silent_s(50.0), silent_s(1.0)) == (2.0, 5.0)
    judge_of = SensorHealth(limits())
    judge_of.tick(10.0)
    judge_of.push(noise(), 11.0)
    assert judge_of.tick(13.0).state == "ok"
    assert judge_of.tick(13.5).reason == "no sample for 2.5 s"
    assert judge_of.trusted_until_s == pytest.approx(2.54)


def test_stamps_that_stand_still_are_silence() -> None:
    judge_of = SensorHealth(limits())
    judge_of.push(noise(10), 0.0)
    for now in (1.0, 2.0, 3.0):
        judge_of.push(Reading(np.full(10, 0.1), noise(10).values), now)
    assert judge_of.tick(3.0).state == "silent"


def test_a_sensor_that_failed_is_judged_anew_from_its_first_sample_on() -> None:
    judge_of = SensorHealth(limits())
    judge_of.push(noise(50), 1.0)
    judge_of.failed("pulled")
    judge_of.opened(5.0, rate_hz=RATE_HZ)
    assert judge_of.tick(6.0).state == "unplugged"
    states = [judge_of.push(noise(first=300 + 128 * i), 8.0 + i).state for i in range(3)]
    assert states == ["unplugged", "unplugged", "ok"]


def test_windows_with_hardly_a_sample_are_a_rate_too_low_after_two() -> None:
    judge_of = SensorHealth(limits())
    states = [judge_of.push(Reading(np.array([i * 1.5]), np.ones((1, 3)) * i), i * 1.5).state for i in range(6)]
    assert states[:3] == ["ok"] * 3
    assert judge_of.health.state == "rate"


def test_the_limit_of_a_gap_is_four_periods_but_at_least_forty_milliseconds() -> None:
    assert gap_s(50.0) == pytest.approx(0.08)
    assert gap_s(1000.0) == 0.04


def test_drift_is_measured_in_parts_per_million_in_spite_of_jitter_and_losses() -> None:
    random = np.random.default_rng(5)
    index = np.flatnonzero(random.random(100 * 120) > 0.05)  # 2 minutes at 100 Hz, a twentieth lost
    times = 7.0 + index / (100.0 * (1 + 300e-6)) + random.uniform(-0.001, 0.001, len(index))
    drift = DriftEstimate(100.0)
    for i in range(0, len(times), 50):
        drift.push(times[i : i + 50])
        if times[min(i + 50, len(times) - 1)] < 15.0:
            assert drift.rate_hz is None
        if times[min(i + 50, len(times) - 1)] < 65.0:
            assert drift.ppm is None
    assert drift.ppm == pytest.approx(300, abs=30)


def test_a_wrong_rate_is_measured_and_a_pause_begins_anew() -> None:
    drift = DriftEstimate(50.0)
    drift.push(np.arange(1000) / 54.0)
    assert drift.rate_hz == pytest.approx(54.0, rel=1e-6)
    drift.push(100.0 + np.arange(100) / 54.0)
    assert drift.rate_hz is None
    for i in range(100, 1000, 100):
        drift.push(100.0 + np.arange(i, i + 100) / 54.0)
    assert drift.rate_hz == pytest.approx(54.0, rel=1e-6)
