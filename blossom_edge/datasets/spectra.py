"""Mel spectra as torchaudio's `MelSpectrogram` makes them, in numpy. Pure; for recordings that are there as a whole.

Unlike `sensors.log_mel` (a stream, in dB of full scale) these are what the paper's data sets were made with: HTK mels
from 0 Hz to half the rate, triangles of height 1, a periodic Hann window, frames centred on their sample by reflection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mel_filters(num_bins: int, num_bands: int, rate_hz: float) -> Floats:
    """(num_bins, num_bands) weights; a band between two bins of the transform may be all zeros, as in torchaudio."""
    bins = np.linspace(0.0, rate_hz / 2, num_bins)
    top = 2595.0 * np.log10(1.0 + rate_hz / 2 / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top, num_bands + 2) / 2595.0) - 1.0)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (centre - low)
    falling = (high - bins[:, None]) / (high - centre)
    weights: Floats = np.maximum(0.0, np.minimum(rising, falling))
    return weights


def mel_power(samples: Floats, rate_hz: float, *, size: int, hop: int, num_bands: int) -> Floats:
    """(n,) samples -> (1 + n // hop, num_bands) power, no logarithm.

    Raises:
        ValueError: fewer than two samples.
    """
    if len(samples) < 2:
        raise ValueError(f"found {len(samples)} samples, expected at least 2")
    padded = np.pad(samples, size // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    spectrum = np.fft.rfft(frames * window, axis=1)
    power: Floats = (spectrum.real**2 + spectrum.imag**2) @ mel_filters(size // 2 + 1, num_bands, rate_hz)
    return power


def power_to_db(power: Floats, *, top_db: float = 80.0) -> Floats:
    """10 log10, at least 1e-10 and at most `top_db` below the loudest value, as torchaudio's `AmplitudeToDB`."""
    level: Floats = 10.0 * np.log10(np.maximum(power, 1e-10))
    floored: Floats = np.maximum(level, level.max() - top_db)
    return floored
