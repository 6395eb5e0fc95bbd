"""Log-mel spectra of a stream of sound, in numpy. Pure: no clock, no device, no change of the sampling rate.

A band's value is the power of the signal in it, in dB relative to a sine of full scale (amplitude 1). The bands overlap
so that all of them together hold the power between the first and the last centre once: a sine of full scale there gives
0 dB as the sum of all bands. No signal within -1...1 gives more than 3.02 dB (a square wave), silence gives `FLOOR_DB`.

The mel scale is that of HTK, 2595 log10(1 + f/700) (O'Shaughnessy 1987; librosa's `htk=True`), with triangles of height
1, which librosa calls `norm=None`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FLOOR_DB = -80.0
LOW_HZ = 20.0
WINDOW_S = 0.025

_Floats = NDArray[np.float64]


def hz_to_mel(hz: float) -> float:
    """HTK's mel of a frequency."""
    return float(2595.0 * np.log10(1.0 + hz / 700.0))


def mel_to_hz(mel: _Floats) -> _Floats:
    """The frequencies of HTK's mels."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_corners(num_bands: int, rate_hz: float) -> _Floats:
    """(num_bands + 2,) Hz, evenly in mel from 20 Hz to half the rate: band b begins at b, is highest at b + 1."""
    return mel_to_hz(np.linspace(hz_to_mel(LOW_HZ), hz_to_mel(rate_hz / 2), num_bands + 2))


class LogMel:
    """Samples in, frames out; what does not fill a frame is kept for the next call.

    num_bands: of each frame. rate_hz: of the samples. hop: samples from frame to frame. The window is a periodic Hann
    window of 25 ms, padded with zeros to the next power of two.

    Raises:
        ValueError: so many bands that one of them has no frequency of the transform in it.
    """

    def __init__(self, num_bands: int, rate_hz: int, *, hop: int) -> None:
        self.num_bands, self.hop = num_bands, hop
        self.window = round(WINDOW_S * rate_hz)
        self._hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        self._size = 1 << (self.window - 1).bit_length()
        self._weights = self._triangles(rate_hz) * self._scale()[:, None]
        self._rest: _Floats = np.zeros(0)
        self._skip = 0
        self.num_frames = 0
        """Frames that came since the start."""

    def push(self, samples: _Floats) -> _Floats:
        """(n,) samples of -1...1 -> the (m, num_bands) frames that are complete now, in dB.

        The result over a stream does not depend on how it is cut. Frame m of a stream is made of its samples
        m * hop ... m * hop + window.
        """
        rest = np.concatenate([self._rest, samples])
        cut = min(self._skip, len(rest))  # where the hop is longer than the window, samples between are in no frame
        self._skip -= cut
        rest = rest[cut:]
        num_frames = max(0, (len(rest) - self.window) // self.hop + 1) if not self._skip else 0
        if not num_frames:
            self._rest = rest
            return np.zeros((0, self.num_bands))
        parts = np.lib.stride_tricks.sliding_window_view(rest, self.window)[:: self.hop][:num_frames]
        self.num_frames += num_frames
        used = num_frames * self.hop
        self._skip = max(0, used - len(rest))
        self._rest = rest[used:].copy()
        spectrum = np.fft.rfft(parts * self._hann, self._size, axis=1)
        power: _Floats = (spectrum.real**2 + spectrum.imag**2) @ self._weights
        level: _Floats = 10.0 * np.log10(np.maximum(power, 10.0 ** (FLOOR_DB / 10)))
        return level

    def _scale(self) -> _Floats:
        """Per bin: from |X|^2 to its part of the mean square (Parseval, one-sided), over a full-scale sine's 1/2."""
        scale = np.full(self._size // 2 + 1, 2.0)
        scale[[0, -1]] = 1.0
        return scale / (self._size * float(np.sum(self._hann**2))) / 0.5

    def _triangles(self, rate_hz: int) -> _Floats:
        """(bins, bands) weights of 0...1."""
        bins = np.arange(self._size // 2 + 1) * rate_hz / self._size
        corners = mel_corners(self.num_bands, rate_hz)
        low, centre, high = corners[:-2], corners[1:-1], corners[2:]
        rising: _Floats = (bins[:, None] - low) / (centre - low)
        falling = (high - bins[:, None]) / (high - centre)
        weights: _Floats = np.maximum(0.0, np.minimum(rising, falling))
        if not bool(weights.any(axis=0).all()):
            raise ValueError(f"{self.num_bands} bands are too many for steps of {rate_hz / self._size:g} Hz")
        return weights
