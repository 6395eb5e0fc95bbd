"""Paired comparisons over seeds: mean, spread, interval and two tests, and the gain as the paper computes it.

Knows scores as numbers by seed. Reads no records, and draws no conclusion from a p-value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
EXACT_PAIRS = 12
"""Up to so many pairs every pattern of signs is tried: 4,096."""
TOLERANCE = 1e-12
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean of n values and their sample standard deviation; None with a single value."""

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.sd is None else f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True, slots=True)
class Paired:
    """One mode minus another over the seeds that both have.

    low, high: 95 % interval of the mean difference (Student t); None with one pair, as are both p-values.
    p_t: two-sided paired t-test. p_permutation: two-sided, exact over all sign flips of the differences; None above
    12 pairs. The smallest possible is 2 / 2**n: 0.0625 with 5 seeds. Where all differences are equal, the interval
    has no width and p_t is 0, or 1 if they are all 0.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    p_t: float | None
    p_permutation: float | None
    won: int
    """Pairs where the first mode is higher."""
    lost: int

    @property
    def is_clear(self) -> bool:
        """Whether the 95 % interval leaves 0 out; False with one pair."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no value, expected at least one")
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), sd, len(values))


def paired(mode: Mapping[int, float], other: Mapping[int, float]) -> Paired | None:
    """Compare two modes seed by seed; seeds that only one of them has are left out. None without a common seed."""
    seeds = sorted(set(mode) & set(other))
    if not seeds:
        return None
    differences = [mode[seed] - other[seed] for seed in seeds]
    found = spread(differences)
    low = high = p_t = p_permutation = None
    if found.sd is not None:
        error = found.sd / math.sqrt(found.n)
        half = student_quantile((1 + CONFIDENCE) / 2, found.n - 1) * error
        low, high = found.mean - half, found.mean + half
        p_t = _t_test(found.mean, error, found.n - 1)
        p_permutation = permutation_p(differences)
    won = sum(difference > TOLERANCE for difference in differences)
    lost = sum(difference < -TOLERANCE for difference in differences)
    return Paired(found.n, found.mean, low, high, p_t, p_permutation, won, lost)


def permutation_p(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of a mean at least as far from 0, over all 2**n sign patterns; None above 12 differences.

    Source: Fisher, The Design of Experiments (1935), section 21.
    """
    n = len(differences)
    if not 1 <= n <= EXACT_PAIRS:
        return None
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    sums = np.abs((1 - 2 * bits) @ np.asarray(differences, dtype=np.float64))
    limit = abs(math.fsum(differences))
    return float(np.mean(sums >= limit - TOLERANCE * max(1.0, limit)))


def relative_gain(personalised: float, full: float) -> float | None:
    """(personalised - full) / full, as the paper counts gain; None where full scored 0."""
    return (personalised - full) / full if full > 0 else None


def student_p(t: float, df: int) -> float:
    """Probability that |T| with `df` degrees of freedom is at least |t|.

    Raises:
        ValueError: df is below 1.
    """
    if df < 1:
        raise ValueError(f"{df} degrees of freedom, expected at least 1")
    return incomplete_beta(df / (df + t * t), df / 2, 0.5)


def student_quantile(probability: float, df: int) -> float:
    """The t below which T with `df` degrees of freedom lies with this probability, to about 1e-10 of it.

    Raises:
        ValueError: the probability is not between 0 and 1, or df is below 1.
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability {probability}, expected between 0 and 1")
    if probability < 0.5:
        return -student_quantile(1 - probability, df)
    both_tails = 2 * (1 - probability)
    low, high = 0.0, 1.0
    while student_p(high, df) > both_tails:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if student_p(middle, df) > both_tails else (low, middle)
    return (low + high) / 2


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), a and b above 0, x from 0 to 1.

    Source: continued fraction of Abramowitz and Stegun 26.5.8, evaluated by the method of Lentz.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a * _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 1000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + step * d)
            c = _not_zero(1 + step / c)
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return result


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _t_test(mean: float, error: float, df: int) -> float:
    if error <= TOLERANCE:
        return 1.0 if abs(mean) <= TOLERANCE else 0.0
    return student_p(mean / error, df)
