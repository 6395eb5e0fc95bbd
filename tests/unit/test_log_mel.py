"""Log-mel spectra: levels worked by hand, a slow formula beside the fast one, streams cut anywhere."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blossom_edge.sensors.log_mel import FLOOR_DB, LogMel, hz_to_mel, mel_corners, mel_to_hz

RATE = 16000


def tone(hz: float, seconds: float = 0.2, *, amplitude: float = 1.0) -> NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def power_sum_db(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    return 10 * np.log10((10 ** (frames / 10)).sum(axis=1))


def test_the_mel_scale_is_that_of_htk() -> None:
    assert hz_to_mel(700.0) == pytest.approx(2595 * math.log10(2))  # 781.17
    assert hz_to_mel(1000.0) == pytest.approx(999.99, abs=0.005)
    assert mel_to_hz(np.array([hz_to_mel(440.0)]))[0] == pytest.approx(440.0)


def test_bands_go_from_20_hz_to_half_the_rate() -> None:
    corners = mel_corners(40, RATE)
    assert len(corners) == 42
    assert corners[0] == pytest.approx(20.0)
    assert corners[-1] == pytest.approx(8000.0)


def test_a_second_of_sound_gives_98_frames() -> None:
    assert LogMel(40, RATE, hop=160).push(np.zeros(16000)).shape == (98, 40)  # 1 + (16000 - 400) / 160


def test_silence_is_the_floor() -> None:
    assert (LogMel(40, RATE, hop=160).push(np.zeros(4000)) == FLOOR_DB).all()


def test_a_full_scale_sine_is_0_db_in_the_band_of_its_frequency() -> None:
    # mel: 20 Hz 31.75, 8 kHz 2840.02, a step 68.49; 1 kHz at 999.99 is 14.136 steps up: 0.864 of band 13, 0.136 of 14
    frames = LogMel(40, RATE, hop=160).push(tone(1000))
    assert (frames.argmax(axis=1) == 13).all()
    assert power_sum_db(frames) == pytest.approx(0.0, abs=0.02)
    assert frames[0, 13] == pytest.approx(10 * math.log10(0.864), abs=0.5)  # a window of 25 ms smears it by 40 Hz
    assert frames[0, 14] == pytest.approx(10 * math.log10(0.136), abs=1.2)
    assert (np.delete(frames, [11, 12, 13, 14, 15, 16], axis=1) < -40).all()


def test_half_the_amplitude_is_6_db_less() -> None:
    loud, soft = (LogMel(40, RATE, hop=160).push(tone(300, amplitude=a)) for a in (1.0, 0.5))
    assert power_sum_db(loud) - power_sum_db(soft) == pytest.approx(6.0206, abs=0.001)


def test_no_signal_within_full_scale_is_above_3_db() -> None:
    square = np.sign(tone(437.3) + 1e-9)
    assert 2.5 < power_sum_db(LogMel(40, RATE, hop=160).push(square)).max() < 3.02


def test_frames_are_those_of_the_formula_written_out() -> None:
    noise = np.random.default_rng(5).uniform(-1, 1, 720)
    fast = LogMel(40, RATE, hop=160).push(noise)
    assert fast.shape == (3, 40)
    for m in (0, 2):
        part = noise[m * 160 : m * 160 + 400]
        window = [math.sin(math.pi * n / 400) ** 2 for n in range(400)]
        weighted = [x * w for x, w in zip(part, window, strict=True)]
        power = []
        for k in range(257):
            total = sum(x * cmath.exp(-2j * math.pi * k * n / 512) for n, x in enumerate(weighted))
            power.append(abs(total) ** 2 * (1 if k in (0, 256) else 2) / 512 / sum(w * w for w in window) / 0.5)
        low, high = (2595 * math.log10(1 + hz / 700) for hz in (20, 8000))
        for band in (0, 7, 23, 39):
            a, b, c = (700 * (10 ** ((low + (band + i) * (high - low) / 41) / 2595) - 1) for i in range(3))
            total = 0.0
            for k, value in enumerate(power):
                hz = k * 31.25
                weight = (hz - a) / (b - a) if a < hz <= b else (c - hz) / (c - b) if b < hz < c else 0.0
                total += weight * value
            assert fast[m, band] == pytest.approx(10 * math.log10(total), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 6000), max_size=12), hop=st.sampled_from([160, 320, 1600]))
def test_it_does_not_matter_how_the_stream_is_cut(cuts: list[int], hop: int) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 6000)
    whole = LogMel(40, RATE, hop=hop).push(noise)
    cut = LogMel(40, RATE, hop=hop)
    parts = [cut.push(part) for part in np.split(noise, sorted(cuts))]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-9)
    assert cut.num_frames == len(whole)


def test_a_band_without_a_frequency_is_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        LogMel(128, RATE, hop=160)
