"""Relative gain of personalised modes over the full model, counted as the paper counts it. Tests nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from blossom_edge.simulation.experiments.records import Cell
from blossom_edge.simulation.experiments.run_scores import NO_CONTENDERS, Grouped, mode_order, scores_by_seed
from blossom_edge.simulation.experiments.statistics import relative_gain

METRIC = "macro_f1_paper"
FULL = "full"
PERSONALISED = ("private-head", "private-head-fusion")
ORACLE = "best of private head and private head + fusion, chosen after the test (an oracle)"
"""How the paper's headline seems to be made: its mean is above that of either mode, so each cell took the better."""


@dataclass(frozen=True, slots=True)
class Gain:
    """(mode - full) / full in one cell, of the means over the seeds that both have; `choice` is the mode, or ORACLE."""

    cell: Cell
    choice: str
    mode: str
    gain: float


def gains_of(cells: Grouped) -> list[Gain]:
    """The gain of every mode over full in every cell that has full, and of the oracle's choice.

    Macro F1 as the paper counts it, mean over clients weighted by test windows.
    """
    found = []
    for cell, by_mode in cells.items():
        full = scores_by_seed(by_mode.get(FULL, {}), METRIC)
        gains = {}
        for mode in by_mode:
            scores = scores_by_seed(by_mode[mode], METRIC)
            seeds = sorted(set(full) & set(scores))
            if mode == FULL or mode in NO_CONTENDERS or not seeds:
                continue
            gain = relative_gain(*(statistics.fmean(one[seed] for seed in seeds) for one in (scores, full)))
            if gain is not None:
                gains[mode] = gain
                found.append(Gain(cell, mode, mode, gain))
        if all(mode in gains for mode in PERSONALISED):
            best = max(PERSONALISED, key=gains.__getitem__)
            found.append(Gain(cell, ORACLE, best, gains[best]))
    return found


def mean_gains(gains: Sequence[Gain]) -> list[dict[str, Any]]:
    """Mean gain of each choice over all its cells, and over those of each mix of modalities."""
    rows = []
    for choice in sorted({gain.choice for gain in gains}, key=lambda choice: (choice == ORACLE, mode_order(choice))):
        own = [gain for gain in gains if gain.choice == choice]
        rows.append(_mean_row(choice, "all", own))
        rows += [
            _mean_row(choice, mix, [gain for gain in own if gain.cell.mix == mix])
            for mix in sorted({gain.cell.mix for gain in own})
        ]
    return rows


def _mean_row(choice: str, mix: str, gains: Iterable[Gain]) -> dict[str, Any]:
    values = [gain.gain for gain in gains]
    return {"choice": choice, "mix": mix, "cells": len(values), "gain": round(statistics.fmean(values), 6)}
