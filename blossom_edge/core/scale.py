"""Agreed normalisation: channel means and mean squares of one device's windows. Pure numpy; knows no rounds.

The block `scale/MODALITY` has the tensors `known` (1,), `mean` and `square` (channels,). A device adds its own figures
as it adds any delta, weighted by its windows; all windows of a modality have equally many samples, so the weighted mean
over the devices is the mean over all their samples, and no sample leaves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, Tensors

SMALLEST = 1e-6
"""A channel that hardly moves is divided by no less than this, in its unit's spread."""


def is_known(scale: Tensors) -> bool:
    """Whether a round has settled these figures."""
    return bool(scale["known"][0] >= 0.5)


def measure_scale(windows: Array, num_channels: int) -> dict[str, Array]:
    """The block's values for these windows, (n, time, width), the channel running fastest in a sample. n is above 0.

    The second tensor holds mean squares, not variances: means add up over devices, variances do not.
    """
    samples = windows.reshape(-1, num_channels).astype(np.float64)
    return {
        "known": np.ones(1, dtype=np.float32),
        "mean": samples.mean(axis=0).astype(np.float32),
        "square": np.square(samples).mean(axis=0).astype(np.float32),
    }


def apply_scale(scale: Tensors, windows: Array) -> Array:
    """Windows (n, time, width) with mean 0 and spread 1 in every channel, over all devices together; float32."""
    mean, spread = mean_and_spread(scale)
    repeats = windows.shape[2] // len(mean)
    result: Array = ((windows - np.tile(mean, repeats)) / np.tile(spread, repeats)).astype(np.float32)
    return result


def mean_and_spread(scale: Mapping[str, Array]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel, (channels,) float32."""
    mean = scale["mean"].astype(np.float64)
    variance = scale["square"].astype(np.float64) - np.square(mean)
    spread = np.sqrt(np.maximum(variance, SMALLEST**2))
    return mean.astype(np.float32), spread.astype(np.float32)
