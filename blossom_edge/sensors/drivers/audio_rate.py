"""Another sampling rate for a stream of sound, through a filter that leaves no aliases. Pure.

A polyphase low-pass: a sinc under a Kaiser window, flat up to 7/8 of the lower Nyquist frequency, from which on it is
70 dB down.
The output is not late: sample m is what the input was at the time m / rate.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, pi

import numpy as np
from numpy.typing import NDArray

STOP_DB = 70.0
PASSED = 7 / 8
"""The part of the lower Nyquist frequency that goes through as it is."""
AT_ONCE = 32
"""Outputs that are made together: their inputs fit into memory that need not be asked of the system each time."""

_Floats = NDArray[np.float64]


class RateChanger:
    """Samples at `given_hz` in, samples at `wanted_hz` out; what the filter still needs is kept for the next call."""

    def __init__(self, given_hz: int, wanted_hz: int) -> None:
        ratio = Fraction(wanted_hz, given_hz)
        self._up, self._down = ratio.numerator, ratio.denominator
        self._half, self._table = _table(given_hz, wanted_hz, self._up)
        self._rest: _Floats = np.zeros(self._half - 1)
        self._first = -(self._half - 1)  # number of the input sample at the front of `rest`
        self._num_out = 0

    def push(self, samples: _Floats) -> _Floats:
        """(n,) input -> (m,) output that is complete now."""
        if self._up == self._down:
            return samples
        self._rest = np.concatenate([self._rest, samples])
        return self._take(self._first + len(self._rest) - self._half)

    def finish(self) -> _Floats:
        """The last output of a stream that ends here, as if silence came after it."""
        if self._up == self._down:
            return np.zeros(0)
        end = self._first + len(self._rest)
        self._rest = np.concatenate([self._rest, np.zeros(self._half)])
        return self._take(end)

    def _take(self, end: int) -> _Floats:
        """Output samples that stand before the input sample `end`."""
        last = -(-end * self._up // self._down)  # the first m with m * down / up >= end
        places = np.arange(self._num_out, max(last, self._num_out), dtype=np.int64) * self._down
        if not len(places):
            return np.zeros(0)
        base, phase = places // self._up, places % self._up
        views = np.lib.stride_tricks.sliding_window_view(self._rest, 2 * self._half)
        rows = base - (self._half - 1) - self._first
        if self._up == 1:
            result: _Floats = views[rows[0] :: self._down][: len(rows)] @ self._table[0]
        else:
            result = np.empty(len(rows))
            for begin in range(0, len(rows), AT_ONCE):
                part = slice(begin, begin + AT_ONCE)
                np.einsum("ij,ij->i", views[rows[part]], self._table[phase[part]], out=result[part])
        self._num_out = last
        keep = last * self._down // self._up - (self._half - 1) - self._first
        if keep > 0:
            self._rest, self._first = self._rest[keep:].copy(), self._first + keep
        return result


def _table(given_hz: int, wanted_hz: int, up: int) -> tuple[int, _Floats]:
    """(half, (up, 2 * half)): per phase the weights of the inputs base - half + 1 ... base + half."""
    nyquist = min(given_hz, wanted_hz) / 2
    width = 2 * pi * (1 - PASSED) * nyquist / given_hz
    half = ceil((STOP_DB - 7.95) / (2.285 * width) / 2)  # Kaiser's estimate of the order, in input samples
    beta = 0.1102 * (STOP_DB - 8.7)  # his formula for more than 50 dB
    cutoff = (1 + PASSED) / 2 * nyquist / given_hz
    distance = np.arange(up)[:, None] / up + (half - 1) - np.arange(2 * half)
    inside = np.sqrt(np.maximum(0.0, 1 - (distance / half) ** 2))
    table = 2 * cutoff * np.sinc(2 * cutoff * distance) * np.i0(beta * inside) / np.i0(beta)
    return half, table / table.sum(axis=1, keepdims=True)
