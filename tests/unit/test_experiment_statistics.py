"""Quantiles, tests and intervals against tables and hand calculation."""

from __future__ import annotations

import math

import pytest

from blossom_edge.simulation.experiments.statistics import (
    incomplete_beta,
    paired,
    permutation_p,
    relative_gain,
    spread,
    student_p,
    student_quantile,
)


@pytest.mark.parametrize(
    ("df", "expected"),
    [(1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (10, 2.22814), (30, 2.04227), (200, 1.97190)],
)
def test_quantile_of_the_95_percent_interval_is_that_of_the_tables(df: int, expected: float) -> None:
    assert student_quantile(0.975, df) == pytest.approx(expected, rel=3e-6)
    assert student_quantile(0.025, df) == pytest.approx(-expected, rel=3e-6)


def test_quantile_and_tail_undo_each_other_for_every_degree_of_freedom() -> None:
    for df in range(1, 201):
        for probability in (0.6, 0.975, 0.9995):
            assert student_p(student_quantile(probability, df), df) == pytest.approx(2 * (1 - probability), rel=1e-9)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 40.0])
def test_tail_with_one_and_two_degrees_of_freedom_is_the_closed_form(t: float) -> None:
    assert student_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-13)
    assert student_p(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-13)


def test_incomplete_beta_of_whole_numbers_is_a_sum_of_binomials() -> None:
    # I_0.3(2, 3) = P(at least 2 of 4) = 6*.09*.49 + 4*.027*.7 + .0081 = .2646 + .0756 + .0081
    assert incomplete_beta(0.3, 2, 3) == pytest.approx(0.3483, abs=1e-12)
    assert (incomplete_beta(0.0, 2, 3), incomplete_beta(1.0, 2, 3)) == (0.0, 1.0)


@pytest.mark.parametrize(("probability", "df"), [(0.0, 4), (1.0, 4), (0.975, 0)])
def test_impossible_questions_are_refused(probability: float, df: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        student_quantile(probability, df)


def test_paired_comparison_of_five_seeds_is_as_by_hand() -> None:
    other = {seed: 10.0 * seed for seed in range(5)}
    found = paired({seed: value + seed + 1 for seed, value in other.items()}, other)
    # differences 1 .. 5: mean 3, sd sqrt(2.5), error sqrt(2.5 / 5) = .70711, t = 4.24264 with 4 degrees of freedom;
    # p by the closed form for 4: 2 (1 - 1/2 - 3/8 * 1.809068 * .727273) = .013236
    assert found is not None
    assert (found.n, found.difference, found.won, found.lost) == (5, pytest.approx(3.0), 5, 0)
    assert found.low == pytest.approx(3 - 2.77645 * 0.707107, abs=1e-5)
    assert found.high == pytest.approx(3 + 2.77645 * 0.707107, abs=1e-5)
    assert found.p_t == pytest.approx(0.013236, abs=1e-6)
    assert found.p_permutation == 2 / 32
    assert found.is_clear


def test_only_seeds_that_both_modes_have_are_compared() -> None:
    found = paired({0: 0.5, 1: 0.7, 2: 9.0}, {0: 0.4, 1: 0.8, 3: -9.0})
    assert found is not None
    assert (found.n, found.won, found.lost) == (2, 1, 1)
    assert found.difference == pytest.approx(0.0)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_a_difference_and_no_interval_and_no_p() -> None:
    found = paired({3: 0.75}, {3: 0.5})
    assert found is not None
    assert (found.difference, found.low, found.high, found.p_t, found.p_permutation) == (0.25, None, None, None, None)
    assert not found.is_clear
    assert spread([0.75]).sd is None


@pytest.mark.parametrize(("difference", "p_t"), [(0.25, 0.0), (0.0, 1.0)])
def test_equal_differences_have_an_interval_without_width(difference: float, p_t: float) -> None:
    found = paired({0: difference, 1: difference, 2: difference}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert found is not None
    assert (found.low, found.high, found.p_t) == (difference, difference, p_t)


def test_permutation_p_counts_the_sign_patterns_at_least_as_far_out() -> None:
    # |+-3 +-1 +-2| is 6, 2, 4, 0 and the same again; 3 - 1 + 2 = 4: half of them reach it
    assert permutation_p([3.0, -1.0, 2.0]) == 0.5
    assert permutation_p([0.1] * 12) == 2 / 4096
    assert permutation_p([0.0, 0.0]) == 1.0
    assert permutation_p([0.1] * 13) is None
    assert permutation_p([]) is None


def test_spread_is_that_of_a_sample() -> None:
    found = spread([1.0, 2.0, 3.0, 6.0])
    assert (found.mean, found.sd, found.n) == (3.0, pytest.approx(math.sqrt(14 / 3)), 4)
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_relative_gain_is_of_the_full_model() -> None:
    assert relative_gain(0.6, 0.5) == pytest.approx(0.2)
    assert relative_gain(0.4, 0.5) == pytest.approx(-0.2)
    assert relative_gain(0.4, 0.0) is None
