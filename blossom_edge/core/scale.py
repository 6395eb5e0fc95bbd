"""Agreed normalisation: channel means and variances over all devices' windows. Pure numpy; knows no rounds.

The block `scale/MODALITY` has the tensors `known` (1,), `mean` and `variance` (channels,) and is settled in two steps.
In the first, every device adds the means of its own windows; in the second the mean squared distance of its samples
from the means that came out. Both are weighted by windows, and all windows of a modality have equally many samples:
what comes out is the mean and the variance over all samples of all devices, and no sample leaves. Distances from a mean
keep their digits where mean squares would lose them, also as float16.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, Tensors

STEPS = 2
"""Versions until a scale is settled."""
SMALLEST = 1e-6
"""A channel whose spread is not above this stood still: it is divided by 1, or its first move would be enormous."""


def is_known(scale: Tensors) -> bool:
    """Whether these figures are settled."""
    return bool(scale["known"][0] > STEPS - 0.5)


def own_scale(windows: Array, num_channels: int) -> dict[str, Array]:
    """A settled scale of these windows alone, (n, time, width), the channel running fastest in a sample. n above 0."""
    samples = windows.reshape(-1, num_channels).astype(np.float64)
    return _scale(STEPS, samples.mean(axis=0), samples.var(axis=0))


def next_scale(scale: Tensors, windows: Array) -> dict[str, Array]:
    """What a device adds to a scale that is not settled: the values that its windows alone would give the next version.

    windows as in `own_scale`. In the second step the variance is around the agreed mean, not around the own one.
    """
    samples = windows.reshape(-1, len(scale["mean"])).astype(np.float64)
    if scale["known"][0] < 0.5:
        return _scale(1, samples.mean(axis=0), scale["variance"])
    return _scale(STEPS, scale["mean"], np.square(samples - scale["mean"]).mean(axis=0))


def apply_scale(scale: Tensors, windows: Array) -> Array:
    """Windows (n, time, width) with mean 0 and spread 1 in every channel, over all devices together; float32.

    They stay as they are while the scale is not settled.
    """
    if not is_known(scale):
        return windows
    mean, spread = mean_and_spread(scale)
    repeats = windows.shape[2] // len(mean)
    result: Array = ((windows - np.tile(mean, repeats)) / np.tile(spread, repeats)).astype(np.float32)
    return result


def mean_and_spread(scale: Mapping[str, Array]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel of a settled scale, (channels,) float32; 1 where it stood still."""
    variance = scale["variance"].astype(np.float64)
    spread = np.sqrt(np.where(variance > SMALLEST**2, variance, 1.0))
    return scale["mean"].astype(np.float32), spread.astype(np.float32)


def _scale(known: int, mean: Array, variance: Array) -> dict[str, Array]:
    return {
        "known": np.full(1, known, dtype=np.float32),
        "mean": mean.astype(np.float32),
        "variance": variance.astype(np.float32),
    }
