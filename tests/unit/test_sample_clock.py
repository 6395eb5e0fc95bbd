"""Times from the count of samples: jitter, drift, lost samples, a rate that is not as declared."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blossom_edge.sensors.drivers.sample_clock import LOOK_BACK_S, SampleClock

RATE, BLOCK = 16000, 800


def run(
    arrivals: NDArray[np.float64], clock: SampleClock | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times of the first and the last sample of each block."""
    clock = clock or SampleClock(RATE)
    firsts, lasts = [], []
    for number, arrival in enumerate(arrivals):
        clock.arrived((number + 1) * BLOCK, float(arrival))
        first, last = clock.at(np.array([number * BLOCK, (number + 1) * BLOCK - 1.0]))
        firsts.append(first)
        lasts.append(last)
    return np.array(firsts), np.array(lasts)


def ideal(num_blocks: int, *, start: float = 50.0, rate: float = RATE) -> NDArray[np.float64]:
    return start + (np.arange(num_blocks) + 1) * BLOCK / rate


def test_the_last_sample_of_a_block_was_taken_just_before_it_came() -> None:
    firsts, lasts = run(ideal(3))
    assert firsts == pytest.approx([50.0, 50.05, 50.1])
    assert lasts == pytest.approx(np.array([50.05, 50.1, 50.15]) - 1 / RATE)


def test_blocks_that_come_late_do_not_move_the_times() -> None:
    late = np.random.default_rng(0).exponential(0.01, 2000)
    late[25::50] += 0.15  # the program was held up
    firsts, lasts = run(ideal(2000) + late)
    assert np.diff(firsts) == pytest.approx(0.05, rel=0.0021)
    assert (lasts > firsts).all()
    settled = firsts[400:] - (ideal(2000)[400:] - 0.05)
    assert np.abs(settled).max() < 0.002


def test_a_late_first_block_is_made_good_by_2_ms_a_second() -> None:
    arrivals = ideal(2000)
    arrivals[0] += 0.1
    firsts, _ = run(arrivals)
    wrong = firsts - (ideal(2000) - 0.05)
    assert wrong[1] == pytest.approx(0.1, abs=0.001)
    assert wrong[500] == pytest.approx(0.05, abs=0.001)
    assert np.abs(wrong[1010:]).max() < 1e-9


@pytest.mark.parametrize("ppm", [-200, 200])
def test_the_drift_of_the_card_stays_bounded(ppm: int) -> None:
    arrivals = ideal(40_000, rate=RATE * (1 + ppm * 1e-6))  # over half an hour it comes to 0.4 s
    late = np.random.default_rng(1).exponential(0.005, len(arrivals))
    firsts, _ = run(arrivals + late)
    wrong = firsts - (arrivals - 0.05)
    assert np.abs(wrong[2000:]).max() < abs(ppm) * 1e-6 * LOOK_BACK_S + 0.001
    assert np.diff(firsts) == pytest.approx(0.05, rel=0.0021)


def test_samples_that_were_lost_are_a_gap_and_the_times_are_right_after_it() -> None:
    arrivals = ideal(1000)
    arrivals[300:] += 1.0  # one second is missing, and the card did not say so
    firsts, lasts = run(arrivals)
    steps = firsts[1:] - lasts[:-1]
    assert (steps > 0).all()
    assert firsts[-1] == pytest.approx(arrivals[-1] - 0.05, abs=0.001)
    clock = SampleClock(RATE)
    for number, arrival in enumerate(arrivals):
        clock.arrived((number + 1) * BLOCK, float(arrival))
        if number > 300:
            inside = np.diff(clock.at(np.arange(number * BLOCK - 5.0, (number + 1) * BLOCK)))
            if inside.max() > 2 / RATE:
                assert inside.max() == pytest.approx(1.0, abs=0.02)
                return
    pytest.fail("no gap was seen")


def test_a_rate_that_is_much_too_high_does_not_run_into_the_future() -> None:
    arrivals = 50 + (np.arange(2000) + 1) * 0.005  # ten times as fast as declared
    firsts, lasts = run(arrivals)
    assert (lasts[200:] < arrivals[200:] + 0.25).all()
    assert (lasts > firsts).all()
    assert (firsts[1:] > lasts[:-1]).all()


def test_after_a_gap_the_times_go_on_later() -> None:
    firsts, _ = run(ideal(2, start=50.0), SampleClock(RATE, after=50.5))
    assert firsts[0] >= 50.5
