"""Scores of a confusion matrix, worked by hand."""

from __future__ import annotations

import pytest

from blossom_edge.simulation.experiments import scores

CONFUSION = ((3, 1, 0), (1, 1, 0), (0, 0, 0))
"""Class 0: 3 of 4 right; class 1: 1 of 2; class 2 never occurs. F1: 6/8 and 2/4."""


def test_scores_are_those_worked_by_hand() -> None:
    assert scores.accuracy(CONFUSION) == pytest.approx(4 / 6)
    assert scores.balanced_accuracy(CONFUSION) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.macro_f1(CONFUSION) == pytest.approx((6 / 8 + 2 / 4) / 2)


def test_the_paper_counts_an_absent_class_as_zero() -> None:
    assert scores.macro_f1_paper(CONFUSION) == pytest.approx((6 / 8 + 2 / 4) / 3)


def test_a_class_that_is_answered_but_never_true_is_left_out_and_still_costs_the_others() -> None:
    assert scores.macro_f1(((1, 1), (0, 0))) == pytest.approx(2 / 3)


def test_of_no_windows_every_score_is_zero() -> None:
    for score in (scores.accuracy, scores.balanced_accuracy, scores.macro_f1, scores.macro_f1_paper):
        assert score(((0, 0), (0, 0))) == 0.0
        assert score(()) == 0.0
