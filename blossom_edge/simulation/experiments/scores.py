"""Scores of a confusion matrix, counts by (true class, answered class). Pure; of no windows every score is 0."""

from __future__ import annotations

from collections.abc import Sequence

Confusion = Sequence[Sequence[int]]


def accuracy(confusion: Confusion) -> float:
    """Share of windows that were answered rightly."""
    total = sum(map(sum, confusion))
    return sum(confusion[i][i] for i in range(len(confusion))) / total if total else 0.0


def balanced_accuracy(confusion: Confusion) -> float:
    """Mean over the classes that occur among the true labels of the share of their windows answered rightly."""
    shares = [row[i] / sum(row) for i, row in enumerate(confusion) if sum(row)]
    return sum(shares) / len(shares) if shares else 0.0


def macro_f1(confusion: Confusion) -> float:
    """Mean F1 over the classes that occur among the true labels; absent classes are left out."""
    found = [_f1(confusion, i) for i, row in enumerate(confusion) if sum(row)]
    return sum(found) / len(found) if found else 0.0


def macro_f1_paper(confusion: Confusion) -> float:
    """Mean F1 over all classes, as the paper counts: a class without windows is 0 and lowers the mean."""
    return sum(_f1(confusion, i) for i in range(len(confusion))) / len(confusion) if confusion else 0.0


def _f1(confusion: Confusion, i: int) -> float:
    """2 TP / (2 TP + FP + FN); 0 where the class neither occurs nor is answered."""
    both = sum(confusion[i]) + sum(row[i] for row in confusion)
    return 2 * confusion[i][i] / both if both else 0.0
