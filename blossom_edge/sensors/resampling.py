"""From the times at which a sensor was read to the federation's grid: low-pass, linear, or the nearest frame. Pure.

A sensor that is faster than the federation passes a low-pass first, or what lies above the new Nyquist frequency would
come back as something that was never there. No method delays: each output is centred on its own time.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

STOP_DB = 60.0
"""Everything from the federation's Nyquist frequency on is weaker by at least this much."""
PASS_EDGE = 0.8
"""Up to this part of the federation's Nyquist frequency amplitudes stay within 1 %; between it and 1 they fall."""
_TRANSITION = (1 - PASS_EDGE) / 2  # in cycles per period of the federation
_CUTOFF = (1 + PASS_EDGE) / 4  # the middle of the transition, same unit
_BETA = 0.1102 * (STOP_DB - 8.7)  # Kaiser's formulas for the window's shape and length
HALF_WIDTH = (STOP_DB - 7.95) / (2.285 * 2 * math.pi * _TRANSITION) / 2
"""Periods of the federation on either side of a sample that the low-pass looks at: about 18."""
_STEPS = 8192

_Floats = NDArray[np.float64]


def _half_kernel() -> _Floats:
    """The windowed sinc from its middle to its end, in `_STEPS` steps."""
    place = np.linspace(0.0, 1.0, _STEPS + 1)
    window = np.i0(_BETA * np.sqrt(1 - place**2)) / np.i0(_BETA)
    kernel: _Floats = np.sinc(2 * _CUTOFF * HALF_WIDTH * place) * window
    return kernel


_KERNEL = _half_kernel()
_PLACES = np.linspace(0.0, 1.0, _STEPS + 1)


def margin_s(rate_hz: float) -> float:
    """Seconds on either side of a window that the low-pass to `rate_hz` looks at."""
    return HALF_WIDTH / rate_hz


def low_pass(times: _Floats, values: NDArray[np.floating], wanted: _Floats, rate_hz: float) -> _Floats:
    """Values at the times `wanted`, spaced by 1 / `rate_hz`, without what a signal of that rate cannot hold.

    times (n,) rising, also unevenly; values (n, width); every wanted time lies within `times`. Where less than
    `margin_s` lies around the window the signal is turned about its end, so that a level and a slope go on.
    """
    reach = margin_s(rate_hz)
    times, extended = _extend(times, np.asarray(values, dtype=np.float64), wanted[0] - reach, wanted[-1] + reach)
    weight = np.gradient(times) if len(times) > 1 else np.ones(1)  # what lies densely does not count twice
    first = np.searchsorted(times, wanted - reach)
    taps = int((np.searchsorted(times, wanted + reach, side="right") - first).max())
    index = first[:, None] + np.arange(taps)
    inside = index < len(times)
    index = np.minimum(index, len(times) - 1)
    distance = np.abs(times[index] - wanted[:, None]) / reach
    weights = np.where(inside & (distance <= 1), np.interp(distance, _PLACES, _KERNEL) * weight[index], 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    result: _Floats = np.einsum("kt,ktc->kc", weights, extended[index])
    return result


def linear(times: _Floats, values: NDArray[np.floating], wanted: _Floats) -> _Floats:
    """Values (len(wanted), width) on the straight lines between samples."""
    return np.stack([np.interp(wanted, times, column) for column in values.T], axis=1)


def nearest(times: _Floats, wanted: _Floats) -> NDArray[np.intp]:
    """For each wanted time the index of the sample that is nearest, of two equally near ones the earlier."""
    after = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    if len(times) == 1:
        return np.zeros(len(wanted), dtype=np.intp)
    return np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after)


def _extend(times: _Floats, values: _Floats, begin_s: float, end_s: float) -> tuple[_Floats, _Floats]:
    """Continue the signal to [begin_s, end_s] by its point reflection about the first and the last sample."""
    if len(times) < 2:
        return times, values
    while times[0] > begin_s:  # more than once where the signal is shorter than what is missing
        part = slice(1, int(np.searchsorted(times, 2 * times[0] - begin_s, side="right")) + 1)
        values = np.concatenate([2 * values[0] - values[part][::-1], values])
        times = np.concatenate([2 * times[0] - times[part][::-1], times])
    while times[-1] < end_s:
        part = slice(max(0, int(np.searchsorted(times, 2 * times[-1] - end_s)) - 1), len(times) - 1)
        values = np.concatenate([values, 2 * values[-1] - values[part][::-1]])
        times = np.concatenate([times, 2 * times[-1] - times[part][::-1]])
    return times, values
