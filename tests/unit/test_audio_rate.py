"""Another sampling rate for sound: nothing late, no aliases, cut anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blossom_edge.sensors.drivers.audio_rate import RateChanger


def tone(hz: float, rate: int, seconds: float = 0.5) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def changed(sound: NDArray[np.float64], given_hz: int, wanted_hz: int) -> NDArray[np.float64]:
    changer = RateChanger(given_hz, wanted_hz)
    return np.concatenate([changer.push(sound), changer.finish()])


@pytest.mark.parametrize("given_hz", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_a_tone_stays_what_and_when_it_is(given_hz: int) -> None:
    result = changed(tone(1000, given_hz), given_hz, 16000)
    assert len(result) == pytest.approx(8000, abs=1)
    np.testing.assert_allclose(result[500:7000], tone(1000, 16000)[500:7000], atol=2e-3)


@pytest.mark.parametrize("given_hz", [44100, 48000])
@pytest.mark.parametrize("hz", [8100, 9000, 15000, 16000, 20000])
def test_what_the_new_rate_cannot_carry_is_gone(given_hz: int, hz: int) -> None:
    result = changed(tone(hz, given_hz), given_hz, 16000)
    assert np.sqrt(2) * result[500:7000].std() < 10 ** (-65 / 20)


@pytest.mark.parametrize(("hz", "least"), [(100, 0.998), (5000, 0.998), (7000, 0.99)])
def test_what_it_can_carry_goes_through(hz: int, least: float) -> None:
    result = changed(tone(hz, 44100), 44100, 16000)
    assert least < np.sqrt(2) * result[500:7000].std() < 1.005


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 5000), max_size=10), given_hz=st.sampled_from([8000, 44100, 48000]))
def test_it_does_not_matter_how_the_sound_is_cut(cuts: list[int], given_hz: int) -> None:
    noise = np.random.default_rng(2).normal(size=5000)
    changer = RateChanger(given_hz, 16000)
    parts = [changer.push(part) for part in np.split(noise, sorted(cuts))]
    np.testing.assert_allclose(np.concatenate([*parts, changer.finish()]), changed(noise, given_hz, 16000), atol=1e-12)


def test_a_constant_keeps_its_value() -> None:
    assert changed(np.full(44100, 0.25), 44100, 16000)[1000:-1000] == pytest.approx(0.25, abs=1e-12)
