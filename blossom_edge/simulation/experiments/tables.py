"""What a comparison found, as rows of text that a page or a Markdown file shows alike. Draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from blossom_edge.simulation.experiments.gains import ORACLE, Gain, mean_gains
from blossom_edge.simulation.experiments.judgement import MODE, OTHER
from blossom_edge.simulation.experiments.page_charts import NO_GAIN
from blossom_edge.simulation.experiments.records import ClientRecord, RunRecord
from blossom_edge.simulation.experiments.run_scores import (
    NO_CONTENDERS,
    Grouped,
    complete,
    mean_score,
    mode_name,
    modes_of,
    scores_by_seed,
)
from blossom_edge.simulation.experiments.statistics import Paired, paired, spread

MEAN_NOTE = (
    "Points, mean over the seeds ± sample standard deviation. A run's score is the mean over its devices, weighted by "
    "their test windows. The best mode that a federation can choose is marked, among those with all seeds."
)
GAIN_NOTE = (
    "Points of macro F1 above the full model with the same seeds. "
    "In brackets the 95 % interval of the mean (Student t)."
)
TEST_NOTE = (
    "p of the paired t-test / of the exact sign-flip test, both two-sided, not corrected for many comparisons. "
    "With 5 seeds the exact test cannot go below 0.0625."
)
RELATIVE_NOTE = (
    "(mode - full) / full of macro F1 as the paper counts it (an absent class is 0), mean of the cells. "
    "A gain relative to a low score is large: read it beside the points."
)
DUAL_NOTE = "Points of macro F1 of dual above the others with the same seeds, with the 95 % interval."
REFERENCE_NOTE = (
    "Points, mean over the seeds, and the difference to the mode that it is held against, of the same devices with the "
    "same seeds, with the 95 % interval. Devices that behave otherwise stand apart, too; attackers are never scored."
)
SHOWN = {"macro_f1": "macro F1", "balanced_accuracy": "balanced accuracy"}
"""The metrics of that table."""
MODALITIES_NOTE = "Points of macro F1 of the devices that have just these modalities, mean over the seeds."


@dataclass(frozen=True, slots=True)
class Table:
    """Text by rows below headers; `marked` are (row, column)."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[tuple[int, int]] = frozenset()


def score_rows(cells: Grouped, metric: str) -> Table:
    """Cells by modes; the best that a federation can choose is marked."""
    modes = modes_of(cells)
    rows, marked = [], set()
    for number, (cell, by_mode) in enumerate(cells.items()):
        whole = complete(by_mode)
        row = [str(cell)]
        for mode in modes:
            values = [100 * score for score in scores_by_seed(by_mode.get(mode, {}), metric).values()]
            found = spread(values) if values else None
            shown = "" if not found else f"{found.mean:.1f}"
            shown += f" ± {found.sd:.1f}" if found and found.sd is not None else ""
            row.append(shown + (f" ({len(values)} of the seeds)" if found and mode not in whole else ""))
        marked |= {(number, 1 + modes.index(mode)) for mode in best(mode_means(whole, metric))}
        rows.append(row)
    return Table(["cell", *map(mode_name, modes)], rows, frozenset(marked))


def gain_rows(cells: Grouped) -> tuple[Table, Table]:
    """Cells by modes: points of macro F1 above the full model, and the p-values."""
    modes = [mode for mode in modes_of(cells) if mode not in NO_GAIN]
    points, tests = [], []
    for cell, by_mode in cells.items():
        full = scores_by_seed(by_mode.get("full", {}), "macro_f1")
        found = [paired(scores_by_seed(by_mode.get(mode, {}), "macro_f1"), full) for mode in modes]
        points.append([str(cell), *map(points_text, found)])
        tests.append([str(cell), *("" if one is None else f"{_p(one.p_t)} / {_p(one.p_permutation)}" for one in found)])
    heads = ["cell", *map(mode_name, modes)]
    return Table(heads, points), Table(heads, tests)


def dual_rows(cells: Grouped) -> Table | None:
    """Cells by what dual blocks are made of and what they should beat; None without them."""
    others = [mode for mode in ("local", "full", OTHER) if any(mode in by_mode for by_mode in cells.values())]
    rows = []
    for cell, by_mode in cells.items():
        own = scores_by_seed(by_mode.get(MODE, {}), "macro_f1")
        found = [paired(own, scores_by_seed(by_mode.get(other, {}), "macro_f1")) for other in others]
        if any(found):
            rows.append([str(cell), *map(points_text, found)])
    return Table(["cell", *(f"above {mode_name(other)}" for other in others)], rows) if rows else None


def relative_rows(gains: Sequence[Gain]) -> Table:
    """Choices by mixes: the mean relative gain over the full model, with the number of cells."""
    mixes = sorted({gain.cell.mix for gain in gains})
    means = {(row["choice"], row["mix"]): row for row in mean_gains(gains)}
    rows = []
    for choice in dict.fromkeys(choice for choice, _ in means):
        cols = [means.get((choice, mix)) for mix in ("all", *mixes)]
        shown = ["" if col is None else f"{100 * col['gain']:+.1f} % ({col['cells']})" for col in cols]
        rows.append([choice if choice == ORACLE else mode_name(choice), *shown])
    return Table(["mode", "all cells", *(f"mix {mix}" for mix in mixes)], rows)


def modality_rows(cells: Grouped) -> Table | None:
    """Cells and modalities by modes; None where all devices of a cell have the same."""
    modes = modes_of(cells)
    rows = []
    for cell, by_mode in cells.items():
        clients = [client for runs in by_mode.values() for run in runs.values() for client in run.clients]
        combos = sorted({client.modalities for client in clients}, key=lambda combo: (len(combo), combo))
        for combo in combos if len(combos) > 1 else ():
            shown = []
            for mode in modes:
                scores = [_score_of(run, combo) for run in by_mode.get(mode, {}).values()]
                values = [score for score in scores if score is not None]
                shown.append(f"{100 * fmean(values):.1f}" if values else "")
            rows.append([str(cell), " + ".join(combo), *shown])
    return Table(["cell", "modalities", *map(mode_name, modes)], rows) if rows else None


def reference_rows(cells: Grouped) -> Table | None:
    """Modes against the mode that each names, over the devices of both; those that behave otherwise apart, too."""
    rows = []
    for cell, by_mode in cells.items():
        for mode, runs in by_mode.items():
            other = by_mode.get(next((run.reference for run in runs.values() if run.reference), ""), {})
            pairs = {seed: (run, other[seed]) for seed, run in runs.items() if seed in other}
            if not pairs:
                continue
            name = mode_name(next(iter(other.values())).mode)
            rows.append([str(cell), mode_name(mode), name, "all", *_compared(pairs, "")])
            words = sorted({client.behaviour for run, _ in pairs.values() for client in run.clients} - {""})
            rows += [[str(cell), mode_name(mode), name, one, *_compared(pairs, one)] for one in words]
    heads = [
        "cell",
        "mode",
        "held against",
        "devices",
        *(f"{m}{d}" for m in SHOWN.values() for d in ("", ", difference")),
    ]
    return Table(heads, rows) if rows else None


def _compared(pairs: Mapping[int, tuple[RunRecord, RunRecord]], behaviour: str) -> list[str]:
    """Score and difference by metric, of the devices that both runs score and, if given, that behave so."""
    shown = []
    for metric in SHOWN:
        own, other = {}, {}
        for seed, (run, reference) in pairs.items():
            both = {client.id for client in reference.clients}
            both &= {client.id for client in run.clients if not behaviour or client.behaviour == behaviour}
            scores = [mean_score([c for c in one.clients if c.id in both], metric) for one in (run, reference)]
            if scores[0] is not None and scores[1] is not None:
                own[seed], other[seed] = scores[0], scores[1]
        shown += [f"{100 * fmean(own.values()):.1f}" if own else "", points_text(paired(own, other))]
    return shown


def mode_means(by_mode: Mapping[str, Mapping[int, RunRecord]], metric: str) -> dict[str, float]:
    """The mean over its seeds of each mode that has a score."""
    scores = {mode: scores_by_seed(runs, metric) for mode, runs in by_mode.items()}
    return {mode: fmean(values.values()) for mode, values in scores.items() if values}


def best(means: Mapping[str, float]) -> list[str]:
    """The highest of the modes that a federation can choose; several where they are equal to what is shown."""
    open_to = {mode: value for mode, value in means.items() if mode not in NO_CONTENDERS}
    return [mode for mode, value in open_to.items() if max(open_to.values()) - value < 0.0005]


def points_text(gain: Paired | None) -> str:
    """A difference in points with its interval."""
    if gain is None:
        return ""
    return f"{100 * gain.difference:+.1f}" + (f" ({interval_text(gain)})" if gain.low is not None else "")


def interval_text(gain: Paired) -> str:
    """The interval of a difference in points; empty with one pair."""
    return "" if gain.low is None or gain.high is None else f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"


def _score_of(run: RunRecord, combo: tuple[str, ...]) -> float | None:
    clients: list[ClientRecord] = [client for client in run.clients if client.modalities == combo]
    return mean_score(clients, "macro_f1")


def _p(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
