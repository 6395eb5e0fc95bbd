"""Joins the updates of one block so that a few bad ones cannot steer it. Pure: no files, no clock, no randomness.

Every rule works in tiles: of each update only a stretch of values is in memory at a time, and the stretch is the
shorter the more updates there are, so that memory does not grow with their number. Sums are float64 and run in the
order of the rows. How many may be bad is the caller's word (`num_trimmed`, `num_bad`).

    rows = ...                                     # `Rows`: one row per update, read piece by piece
    delta = median(rows)                           # float64, as long as the block has values
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median as middle
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
TILE_BYTES = 16 << 20
"""Memory for the values that a rule looks at together."""
_WEIGHT_CAP = 3.0
_SCORE_DIGITS = 9
"""Krum scores are compared to so many digits: the last bits of a sum must not decide between equals."""


class Rows(Protocol):
    """The updates of one block, each as one row of all its values in the order of the spec."""

    @property
    def num_rows(self) -> int:
        """Updates."""
        ...

    @property
    def num_values(self) -> int:
        """Values of the block."""
        ...

    def read(self, row: int, start: int, stop: int) -> NDArray[np.floating]:
        """Values `start` to `stop` of one update."""
        ...


def capped_weights(num_samples: Sequence[int]) -> list[float]:
    """Weights that no device can raise at will, since it alone says how many samples it has: at most 3 x the median."""
    most = _WEIGHT_CAP * middle(num_samples)
    return [min(float(n), most) for n in num_samples]


def clip_factors(norms: Sequence[float]) -> list[float]:
    """min(1, tau / norm) of each update, tau being the median of their norms.

    Source: Sun et al. 2019 (arXiv:1911.07963), norm thresholding; the threshold from the round itself is ours.
    """
    tau = middle(norms)
    return [1.0 if norm <= tau else tau / norm for norm in norms]


def norm_clip(
    rows: Rows, *, norms: Sequence[float], num_samples: Sequence[int], tile_bytes: int = TILE_BYTES
) -> Values:
    """sum(w_i * min(1, tau / norm_i) * d_i) / sum(w_i), with `clip_factors` and `capped_weights`.

    Raises:
        ValueError: not one norm and one number of samples per row.
    """
    if not len(norms) == len(num_samples) == rows.num_rows:
        raise ValueError(f"{rows.num_rows} updates, {len(norms)} norms and {len(num_samples)} numbers of samples")
    weights = capped_weights(num_samples)
    factors = [w * c for w, c in zip(weights, clip_factors(norms), strict=True)]
    return _weighted(rows, dict(enumerate(factors)), divisor=math.fsum(weights), tile_bytes=tile_bytes)


def median(rows: Rows, *, tile_bytes: int = TILE_BYTES) -> Values:
    """The median of each value over the updates, unweighted; of an even number the mean of the middle two.

    Source: Yin et al. 2018 (arXiv:1803.01498), Definition 1.
    """
    n = rows.num_rows
    return trimmed_mean(rows, num_trimmed=(n - 1) // 2, tile_bytes=tile_bytes)


def trimmed_mean(rows: Rows, *, num_trimmed: int, tile_bytes: int = TILE_BYTES) -> Values:
    """The mean of each value without its `num_trimmed` largest and smallest, unweighted.

    Source: Yin et al. 2018 (arXiv:1803.01498), Definition 2.

    Raises:
        ValueError: nothing would be left.
    """
    n = rows.num_rows
    if num_trimmed < 0 or 2 * num_trimmed >= n:
        raise ValueError(f"{num_trimmed} of {n} updates cannot be trimmed on both sides")
    result = np.empty(rows.num_values, dtype=np.float64)
    for start, tile in _tiles(rows, tile_bytes):
        tile.sort(axis=0)
        part = result[start : start + tile.shape[1]]
        np.copyto(part, tile[num_trimmed])
        for row in range(num_trimmed + 1, n - num_trimmed):
            np.add(part, tile[row], out=part)
        np.divide(part, float(n - 2 * num_trimmed), out=part)
    return result


def multi_krum(rows: Rows, *, num_bad: int, tile_bytes: int = TILE_BYTES) -> Values:
    """The unweighted mean of the n - f updates that lie closest to others (`krum_choice`), f being `num_bad`.

    Two passes over the updates. Source: Blanchard et al. 2017 (arXiv:1703.02757), section 4 and Multi-Krum.

    Raises:
        ValueError: fewer than 2f + 3 updates.
    """
    chosen = krum_choice(squared_distances(rows, tile_bytes=tile_bytes), num_bad=num_bad)
    return _weighted(rows, dict.fromkeys(chosen, 1.0), divisor=float(len(chosen)), tile_bytes=tile_bytes)


def squared_distances(rows: Rows, *, tile_bytes: int = TILE_BYTES) -> Values:
    """(n, n): squared Euclidean distance between each two updates, from their scalar products, in one pass."""
    n = rows.num_rows
    gram = np.zeros((n, n), dtype=np.float64)
    for _, tile in _tiles(rows, tile_bytes):
        gram += tile @ tile.T
    squares = gram.diagonal()
    distances: Values = np.maximum(squares[:, None] + squares[None, :] - 2.0 * gram, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def krum_choice(distances: Values, *, num_bad: int) -> list[int]:
    """The rows that Multi-Krum keeps, ascending: the n - f with the smallest sum of n - f - 2 nearest distances.

    Of equal ones the first is kept.

    Raises:
        ValueError: fewer than 2f + 3 updates.
    """
    n = len(distances)
    if num_bad < 0 or n < 2 * num_bad + 3:
        raise ValueError(f"{n} updates, multi-krum with {num_bad} bad ones needs {2 * num_bad + 3}")
    scores = []
    for row in range(n):
        others = sorted(float(d) for column, d in enumerate(distances[row]) if column != row)
        scores.append(float(f"{math.fsum(others[: n - num_bad - 2]):.{_SCORE_DIGITS}g}"))
    return sorted(sorted(range(n), key=lambda row: (scores[row], row))[: n - num_bad])


def _weighted(rows: Rows, factors: dict[int, float], *, divisor: float, tile_bytes: int) -> Values:
    """sum(factor * row) / divisor over the rows that have a factor, one row at a time."""
    result = np.zeros(rows.num_values, dtype=np.float64)
    width = max(1, tile_bytes // 8 // 2)
    for start in range(0, rows.num_values, width):
        part = result[start : start + width]
        for row, factor in sorted(factors.items()):
            np.add(part, np.multiply(rows.read(row, start, start + part.size), factor, dtype=np.float64), out=part)
        np.divide(part, divisor, out=part)
    return result


def _tiles(rows: Rows, tile_bytes: int) -> Iterator[tuple[int, Values]]:
    """(start, values of all updates from there), each (num_rows, width) in the same memory. To be used at once."""
    width = min(rows.num_values, max(1, tile_bytes // 8 // rows.num_rows)) if rows.num_rows else 0
    memory = np.empty((rows.num_rows, width), dtype=np.float64)
    for start in range(0, rows.num_values if width else 0, max(1, width)):
        stop = min(start + width, rows.num_values)
        tile = memory[:, : stop - start]
        for row in range(rows.num_rows):
            # 0.0 is added so that a negative zero cannot sort before or after a zero by chance
            np.add(rows.read(row, start, stop), 0.0, out=tile[row], dtype=np.float64)
        yield start, tile
