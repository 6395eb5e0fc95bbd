"""The gate of dual blocks: how much of an answer comes from the shared branch. Pure numpy; sees losses, not windows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

GATES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""What a gate can be: the share of the shared branch in `gate * shared + (1 - gate) * own`, on logits or values."""
MIDDLE = 0.5


def choose_gate(losses: NDArray[np.float64]) -> float:
    """The gate for these losses of validation windows, (len(GATES), windows): one row per gate.

    Of all gates that are not worse than the best one by more than one standard error of the paired difference, the
    one nearest to the middle; of two equally near ones that with the lower loss. So a few windows say little and leave
    the gate in the middle, and many can move it to an end. Without two windows: the middle.
    Source: mixing in the logarithm of probabilities, with the one-standard-error rule of Breiman et al. 1984.

    Raises:
        ValueError: another shape, or losses that are not finite.
    """
    if losses.ndim != 2 or losses.shape[0] != len(GATES):
        raise ValueError(f"losses of shape {losses.shape}, expected ({len(GATES)}, windows)")
    if not np.isfinite(losses).all():
        raise ValueError("a loss is not finite")
    num_windows = losses.shape[1]
    if num_windows < 2:
        return MIDDLE
    means = losses.mean(axis=1)
    best = int(np.argmin(means))
    behind = losses - losses[best]
    errors = behind.std(axis=1, ddof=1) / math.sqrt(num_windows)
    near = [i for i in range(len(GATES)) if means[i] - means[best] <= errors[i]]
    return GATES[min(near, key=lambda i: (abs(GATES[i] - MIDDLE), means[i]))]


def validation_rows(num_windows: int) -> NDArray[np.bool_]:
    """(num_windows,) bool: the windows that choose a gate and are not trained on; two of every ten, in order.

    They lie together, because windows of a recording overlap. Fewer than ten windows have none.
    """
    rows = np.arange(num_windows)
    return (rows % 10 >= 8) if num_windows >= 10 else np.zeros(num_windows, dtype=np.bool_)
