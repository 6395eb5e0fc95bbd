"""Random words of Philox4x64-10 in plain numpy: the same as numpy.random.Philox, whose import alone takes 5 to 7 MB.

Never for secrets. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); numpy
counts from 1. A test holds it to numpy's words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Words = NDArray[np.uint64]

ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
MASK = (1 << 64) - 1
AT_ONCE = 4096
"""Counters that are worked on together: the few arrays of them stay in a small processor's cache."""

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox_words(key: int, count: int) -> NDArray[np.uint64]:
    """The first `count` words of the stream with this 128-bit key, (count,): `numpy.random.Philox(key=key)`'s raw ones.

    Raises:
        ValueError: a key that is negative or has more than 128 bits, or a negative count.
    """
    if not 0 <= key < 1 << 128 or count < 0:
        raise ValueError(f"a key of 0 to 2**128 - 1 and a count from 0, found {key:#x} and {count}")
    blocks = -(-count // 4)
    words = np.empty((blocks, 4), dtype=np.uint64)
    for start in range(0, blocks, AT_ONCE):
        part = words[start : start + AT_ONCE]
        _fill(part, first=start + 1, key=key)
    return words.reshape(-1)[:count]


def _fill(words: _Words, *, first: int, key: int) -> None:
    """Write the words of the counters from `first` on, four of each."""
    a = np.arange(first, first + len(words), dtype=np.uint64)
    b, c, d = np.zeros_like(a), np.zeros_like(a), np.zeros_like(a)
    keys = [key & MASK, key >> 64]
    for _ in range(ROUNDS):
        (high_a, low_a), (high_c, low_c) = _product(a, MULTIPLIERS[0]), _product(c, MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ np.uint64(keys[0]), low_c, high_a ^ d ^ np.uint64(keys[1]), low_a
        keys = [(k + weyl) & MASK for k, weyl in zip(keys, WEYL, strict=True)]
    for column, values in enumerate((a, b, c, d)):
        words[:, column] = values


def _product(values: _Words, factor: np.uint64) -> tuple[_Words, _Words]:
    """Upper and lower 64 bits of each product, by halves: numpy has no 128-bit integers."""
    low, high = values & _LOW, values >> _HALF
    factor_low, factor_high = factor & _LOW, factor >> _HALF
    middle = high * factor_low + ((low * factor_low) >> _HALF)
    other = low * factor_high + (middle & _LOW)
    return high * factor_high + (middle >> _HALF) + (other >> _HALF), values * factor
