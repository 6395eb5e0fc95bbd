"""The rule that was registered before any result: whether `dual` becomes the default of new federations.

The rule and its numbers stand in the registration; they may not follow from what was found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from blossom_edge.simulation.experiments.records import Cell, RunRecord
from blossom_edge.simulation.experiments.run_scores import grouped, mode_name, scores_by_seed
from blossom_edge.simulation.experiments.statistics import Paired, paired

REGISTERED = "registered"
"""The experiment that the rule is about: examples/paper/registered.toml and registered-iid.toml."""
MODE, OTHER = "dual", "private-head-fusion"
METRIC = "macro_f1"
NEEDED_GAIN = 2.0
"""Mean over the cells of dual minus private head + fusion, in points of macro F1, absent classes left out."""
LARGEST_LOSS = -0.5
"""No cell's 95 % interval may lie wholly below this."""
ROUNDING = 1e-9
"""Sums of fractions are not exact: 2 points to the last digit are 2 points."""
REGISTERED_CELLS, REGISTERED_SEEDS = 16, 5
"""2 data sets, 2 mixes, 2 splits, 2 sizes."""


@dataclass(frozen=True, slots=True)
class CellGain:
    """Dual minus private head + fusion in one cell, in points."""

    cell: Cell
    gain: Paired

    @property
    def is_loss(self) -> bool:
        """Whether the 95 % interval lies wholly below -0.5 points; False without an interval."""
        return self.gain.high is not None and self.gain.high < LARGEST_LOSS - ROUNDING


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule says.

    is_default: True or False by the rule; None while cells or seeds of the registration are missing.
    losses: the cells that forbid it; missing: what the registration has and the results have not, in words.
    """

    is_default: bool | None
    mean_gain: float | None
    cells: tuple[CellGain, ...]
    missing: tuple[str, ...]

    @property
    def losses(self) -> tuple[CellGain, ...]:
        """Cells whose interval lies wholly below -0.5 points."""
        return tuple(cell for cell in self.cells if cell.is_loss)

    @property
    def words(self) -> str:
        """The verdict in one sentence, with the figures and cells that decide."""
        if self.mean_gain is None:
            return f"The registered rule decides nothing here: no cell has both {MODE} and {mode_name(OTHER)}."
        figures = (
            f"its mean gain over {mode_name(OTHER)} is {self.mean_gain:+.2f} points over {len(self.cells)} cells "
            f"({NEEDED_GAIN:+.1f} needed), and "
        )
        if self.losses:
            named = ", ".join(f"{one.cell} ({_interval(one.gain)})" for one in self.losses)
            figures += f"the 95 % interval lies wholly below {LARGEST_LOSS} in {named}"
        else:
            figures += f"no cell's 95 % interval lies wholly below {LARGEST_LOSS}"
        if self.is_default is None:
            return f"Not decided yet ({'; '.join(self.missing)}). So far: {figures}."
        return f"Dual {'becomes the default' if self.is_default else 'stays an option'}: {figures}."

    def to_json(self) -> dict[str, Any]:
        """For summary.json and `--json`."""
        cells = [
            {
                "cell": str(one.cell), "n": one.gain.n, "difference": one.gain.difference, "low": one.gain.low,
                "high": one.gain.high, "is_loss": one.is_loss,
            }
            for one in self.cells
        ]  # fmt: skip
        return {
            "is_default": self.is_default,
            "mean_gain": self.mean_gain,
            "missing": list(self.missing),
            "words": self.words,
            "cells": cells,
        }


def is_registered(records: Iterable[RunRecord]) -> bool:
    """Whether all of these are runs of the registered experiment; of others the rule says nothing."""
    return {record.experiment for record in records} == {REGISTERED}


def judge_dual(
    records: Iterable[RunRecord], *, cells: int = REGISTERED_CELLS, seeds: int = REGISTERED_SEEDS
) -> Verdict:
    """Apply the registered rule: a mean gain of at least 2 points, and no cell wholly below -0.5.

    Each cell weighs the same; a run's score is the mean over its clients, weighted by test windows. cells, seeds: how
    many the registration asks for; with fewer the rule says nothing yet.

    Raises:
        ConfigError: `usage`; two runs claim the same place.
    """
    gains = []
    for cell, by_mode in grouped(records).items():
        points = [
            {seed: 100 * score for seed, score in scores_by_seed(by_mode.get(mode, {}), METRIC).items()}
            for mode in (MODE, OTHER)
        ]
        gain = paired(*points)
        if gain is not None:
            gains.append(CellGain(cell, gain))
    missing = [f"{len(gains)} of {cells} cells"] if len(gains) < cells else []
    missing += [f"{one.cell}: {one.gain.n} of {seeds} seeds" for one in gains if one.gain.n < seeds]
    mean = sum(one.gain.difference for one in gains) / len(gains) if gains else None
    verdict = Verdict(None, mean, tuple(gains), tuple(missing))
    if missing or mean is None:
        return verdict
    return Verdict(mean >= NEEDED_GAIN - ROUNDING and not verdict.losses, mean, verdict.cells, ())


def _interval(gain: Paired) -> str:
    return f"{gain.low:+.2f} to {gain.high:+.2f}" if gain.low is not None and gain.high is not None else "no interval"
