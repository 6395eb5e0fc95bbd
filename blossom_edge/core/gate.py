"""The gate of dual blocks: how much of an answer comes from the shared branch. Pure numpy; sees losses, not windows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

GATES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""What a gate can be: the share of the shared branch in `gate * shared + (1 - gate) * own`, on logits or values."""
MIDDLE = 0.5
MOST_REMEMBERED = 1 << 16
"""Windows whose place is remembered; more than a device keeps at any time."""


def choose_gate(losses: NDArray[np.float64]) -> float:
    """The gate for these losses of validation windows, (len(GATES), windows): one row per gate.

    Of all gates that are not worse than the best one by more than one standard error of the paired difference, the
    one nearest to the middle; of two equally near ones that with the lower loss. So a few windows say little and leave
    the gate in the middle, and many can move it to an end. A gate with a loss that is not finite is out of the
    question. Without two windows, or a gate that is left: the middle.
    Source: mixing in the logarithm of probabilities, with the one-standard-error rule of Breiman et al. 1984.

    Raises:
        ValueError: another shape.
    """
    if losses.ndim != 2 or losses.shape[0] != len(GATES):
        raise ValueError(f"losses of shape {losses.shape}, expected ({len(GATES)}, windows)")
    num_windows, finite = losses.shape[1], np.flatnonzero(np.isfinite(losses).all(axis=1))
    if num_windows < 2 or not len(finite):
        return MIDDLE
    gates, kept = [GATES[i] for i in finite], losses[finite]
    means = kept.mean(axis=1)
    best = int(np.argmin(means))
    behind = kept - kept[best]
    errors = behind.std(axis=1, ddof=1) / math.sqrt(num_windows)
    near = [i for i in range(len(gates)) if means[i] - means[best] <= errors[i]]
    return gates[min(near, key=lambda i: (abs(gates[i] - MIDDLE), means[i]))]


class ValidationWindows:
    """Which windows choose a gate and are not trained on: two of every ten as they come, as long as they are kept.

    A window is known by the time at which it begins. That it validates is decided when it is seen first: where old
    windows make room for new ones, what was trained on must not come to validate. Nothing is kept on disk.
    """

    def __init__(self) -> None:
        self._validates: dict[float, bool] = {}
        self._num_seen = 0

    def rows(self, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) bool: the validating ones of the windows that begin at these times, (n,), in order.

        The two of ten lie together, because windows of a recording overlap. Fewer than ten windows have none, and what
        is seen among so few never validates.
        """
        if len(self._validates) > MOST_REMEMBERED:
            self._validates = {t: self._validates[t] for t in times.tolist() if t in self._validates}
        for time in times.tolist():
            if time not in self._validates:
                self._validates[time] = len(times) >= 10 and self._num_seen % 10 >= 8
                self._num_seen += 1
        found = np.array([self._validates[time] for time in times.tolist()], dtype=np.bool_)
        return found if len(times) >= 10 else np.zeros(len(times), dtype=np.bool_)
