"""Robust rules: numbers by hand, what bad updates cannot do, and memory that does not grow with the devices."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from aggregator import robust


@dataclass
class Listed:
    """Updates in memory."""

    values: NDArray[np.float32]

    @property
    def num_rows(self) -> int:
        return len(self.values)

    @property
    def num_values(self) -> int:
        return self.values.shape[1]

    def read(self, row: int, start: int, stop: int) -> NDArray[np.float32]:
        return self.values[row, start:stop]


@dataclass
class Made:
    """Updates that exist only while they are read, like those on a disk; counts the values read."""

    num_rows: int
    num_values: int
    num_read: int = 0
    longest: int = 0

    def read(self, row: int, start: int, stop: int) -> NDArray[np.float32]:
        self.num_read += stop - start
        self.longest = max(self.longest, stop - start)
        return (np.arange(start, stop, dtype=np.float32) * (7 + row)) % 11


def rows(*values: list[float]) -> Listed:
    return Listed(np.array(values, dtype=np.float32))


def test_norm_clip_shortens_what_is_longer_than_the_median_norm() -> None:
    # Norms 5, 1, 10: tau 5. The third is halved. Weights 1, 2, 1: ((3, 4) + 2 * (1, 0) + (0, 5)) / 4
    updates = rows([3, 4], [1, 0], [0, 10])
    assert robust.norm_clip(updates, norms=[5.0, 1.0, 10.0], num_samples=[1, 2, 1]).tolist() == [1.25, 2.25]


def test_clip_factor_is_one_up_to_the_median_and_zero_where_most_learned_nothing() -> None:
    assert robust.clip_factors([1.0, 2.0, 8.0]) == [1.0, 1.0, 0.25]
    assert robust.clip_factors([0.0, 0.0, 8.0]) == [1.0, 1.0, 0.0]


def test_a_device_that_claims_many_samples_weighs_at_most_three_medians() -> None:
    assert robust.capped_weights([10, 1_000_000, 20]) == [10.0, 60.0, 20.0]


def test_median_is_the_middle_of_each_value() -> None:
    assert robust.median(rows([1, 9], [2, -9], [1000, 3])).tolist() == [2.0, 3.0]
    assert robust.median(rows([1, 9], [2, -9], [1000, 3], [4, 5])).tolist() == [3.0, 4.0]
    assert robust.median(rows([7, 8])).tolist() == [7.0, 8.0]


def test_trimmed_mean_leaves_out_the_ends_of_each_value() -> None:
    # First value sorted: -50, 1, 2, 3, 1000; second: 0, 4, 4, 7, 8
    updates = rows([1, 8], [1000, 4], [-50, 0], [2, 7], [3, 4])
    assert robust.trimmed_mean(updates, num_trimmed=1).tolist() == [2.0, 5.0]
    assert robust.trimmed_mean(updates, num_trimmed=2).tolist() == [2.0, 4.0]


def test_krum_leaves_out_the_update_that_is_far_from_all() -> None:
    # On a line: 0, 1, 2, 4, 100; f = 1, so each score is the sum of the 2 nearest squared distances:
    # 1 + 4 = 5; 1 + 1 = 2; 1 + 4 = 5; 4 + 9 = 13; 96^2 + 98^2 = 18820. The mean of the first four is 1.75.
    updates = rows([0, 0], [1, 0], [2, 0], [4, 0], [100, 0])
    distances = robust.squared_distances(updates)
    assert distances[0].tolist() == [0.0, 1.0, 4.0, 16.0, 10000.0]
    assert robust.krum_choice(distances, num_bad=1) == [0, 1, 2, 3]
    assert robust.multi_krum(updates, num_bad=1).tolist() == [1.75, 0.0]


def test_krum_with_two_bad_ones_keeps_n_minus_f() -> None:
    # f = 2 of 7: scores of the 3 nearest; the two at 50 and 51 are near each other but not near enough to a third.
    updates = rows([0], [1], [2], [3], [4], [50], [51])
    assert robust.multi_krum(updates, num_bad=2).tolist() == [2.0]


@pytest.mark.parametrize("num_bad", [-1, 2])
def test_too_few_updates_are_refused(num_bad: int) -> None:
    updates = rows([1.0], [2.0], [3.0], [4.0])
    with pytest.raises(ValueError, match="4 updates"):
        robust.multi_krum(updates, num_bad=num_bad)
    with pytest.raises(ValueError, match="cannot be trimmed"):
        robust.trimmed_mean(updates, num_trimmed=num_bad)
    with pytest.raises(ValueError, match="1 norms"):
        robust.norm_clip(updates, norms=[1.0], num_samples=[1, 1, 1, 1])


@pytest.mark.parametrize("tile_bytes", [1, 8 * 7 * 3, 1 << 20])
def test_the_tile_does_not_change_one_bit(tile_bytes: int) -> None:
    updates = Listed(np.random.default_rng(5).standard_normal((7, 23)).astype(np.float32))
    norms, samples = [float(np.linalg.norm(row)) for row in updates.values], [3, 1, 4, 1, 5, 9, 2]
    for one, other in (
        (robust.median(updates), robust.median(updates, tile_bytes=tile_bytes)),
        (
            robust.trimmed_mean(updates, num_trimmed=2),
            robust.trimmed_mean(updates, num_trimmed=2, tile_bytes=tile_bytes),
        ),
        (robust.multi_krum(updates, num_bad=2), robust.multi_krum(updates, num_bad=2, tile_bytes=tile_bytes)),
        (
            robust.norm_clip(updates, norms=norms, num_samples=samples),
            robust.norm_clip(updates, norms=norms, num_samples=samples, tile_bytes=tile_bytes),
        ),
    ):
        assert one.tobytes() == other.tobytes()


@given(st.integers(0, 2**32), st.integers(5, 12))
def test_the_order_of_the_devices_does_not_matter(seed: int, num_devices: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(-3, 4, (num_devices, 5)).astype(np.float32)
    values[random.random(values.shape) < 0.3] *= -0.0
    updates, shuffled = Listed(values), Listed(values[random.permutation(num_devices)])
    assert robust.median(updates).tobytes() == robust.median(shuffled).tobytes()
    assert (
        robust.trimmed_mean(updates, num_trimmed=1).tobytes() == robust.trimmed_mean(shuffled, num_trimmed=1).tobytes()
    )
    whole = random.standard_normal((num_devices, 5)).astype(np.float32)  # no two of them equally far from the others
    order = random.permutation(num_devices)
    kept = robust.krum_choice(robust.squared_distances(Listed(whole)), num_bad=1)
    again = robust.krum_choice(robust.squared_distances(Listed(whole[order])), num_bad=1)
    assert kept == sorted(int(order[row]) for row in again)


@given(st.integers(0, 2**32), st.integers(5, 15))
def test_flipped_updates_cannot_move_the_result_beyond_the_honest_ones(seed: int, num_devices: int) -> None:
    bad = num_devices // 5
    honest = np.random.default_rng(seed).standard_normal((num_devices - bad, 6)).astype(np.float32) + 1
    updates = Listed(np.concatenate([honest, -10 * honest[:bad]]))
    for found in (robust.median(updates), robust.trimmed_mean(updates, num_trimmed=bad)):
        assert (found >= honest.min(axis=0)).all()
        assert (found <= honest.max(axis=0)).all()


def test_flipped_updates_are_not_among_those_that_krum_keeps() -> None:
    honest = np.random.default_rng(3).standard_normal((8, 50)).astype(np.float32) * 0.3 + 1
    updates = Listed(np.concatenate([honest, -10 * honest[:2]]))
    assert robust.krum_choice(robust.squared_distances(updates), num_bad=2) == list(range(8))


def peak(num_devices: int, rule: str) -> tuple[int, Made]:
    updates = Made(num_devices, 60_000)
    tracemalloc.start()
    if rule == "median":
        robust.median(updates, tile_bytes=1 << 18)
    elif rule == "krum":
        robust.multi_krum(updates, num_bad=1, tile_bytes=1 << 18)
    else:
        robust.norm_clip(updates, norms=[1.0] * num_devices, num_samples=[1] * num_devices, tile_bytes=1 << 18)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, updates


@pytest.mark.parametrize(("rule", "passes"), [("median", 1.0), ("krum", 2.0), ("clip", 1.0)])
def test_fifty_devices_need_no_more_memory_than_five(rule: str, passes: float) -> None:
    few, _ = peak(5, rule)
    many, updates = peak(50, rule)
    result = 8 * 60_000
    assert many < few * 1.1 + 50_000
    assert many < result + 4 * (1 << 18), "the result, and a few tiles"
    assert updates.num_read <= passes * 50 * 60_000
