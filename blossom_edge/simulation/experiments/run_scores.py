"""One figure per run out of its clients, and the runs of a comparison by cell, mode and seed. Compares nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from blossom_edge.core.errors import ConfigError
from blossom_edge.simulation.experiments import scores
from blossom_edge.simulation.experiments.records import Cell, ClientRecord, RunRecord
from blossom_edge.simulation.report_svg import Look

Confusion = scores.Confusion
Grouped = Mapping[Cell, Mapping[str, Mapping[int, RunRecord]]]
"""Cell -> mode -> seed -> run."""

WEIGHTINGS = ("windows", "clients")
"""Mean over clients weighted by their test windows, as the paper has it; or every client alike."""

KNOWN: Mapping[str, tuple[str, str]] = {
    "majority": ("own majority label", "m-majority"),
    "local": ("local only", "m-alone"),
    "full": ("full model", "m-full"),
    "private-head": ("private head", "m-private_head"),
    "private-head-fusion": ("private head + fusion", "m-private_head_fusion"),
    "cohort-head-fusion": ("cohort head + fusion", "m-cohort"),
    "dual": ("dual", "m-dual"),
    "centralised": ("centralised", "m-central"),
}
"""Mode -> its name for people and its class in the style; in the order in which they are shown."""
OWN_LOOKS = ("m-x1", "m-x2", "m-x3", "m-x4")
"""Classes of modes that an experiment names itself, by turns."""
NO_CONTENDERS = frozenset({"majority", "centralised"})
"""Bounds from below and above: they cannot be what a federation chooses."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A score from 0 to 1 of a confusion matrix; `unseen`: on people that no device has."""

    title: str
    of: Callable[[Confusion], float]
    unseen: bool = False


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("accuracy", scores.accuracy),
    "macro_f1": Metric("macro F1, absent classes left out", scores.macro_f1),
    "macro_f1_paper": Metric("macro F1 as the paper counts, an absent class being 0", scores.macro_f1_paper),
    "balanced_accuracy": Metric("balanced accuracy", scores.balanced_accuracy),
    "unseen_accuracy": Metric("accuracy on people never seen", scores.accuracy, unseen=True),
    "unseen_macro_f1": Metric("macro F1 on people never seen", scores.macro_f1, unseen=True),
    "unseen_balanced_accuracy": Metric("balanced accuracy on people never seen", scores.balanced_accuracy, unseen=True),
}


def client_score(client: ClientRecord, metric: str) -> float | None:
    """The score of one client; None where it has no such windows."""
    found = METRICS[metric]
    confusion = client.unseen if found.unseen else client.confusion
    return found.of(confusion) if num_windows(confusion) else None


def run_score(record: RunRecord, metric: str, *, weighting: str = "windows") -> float | None:
    """Mean of `metric` over the clients that have such windows; None where no client has.

    Raises:
        KeyError: there is no such metric.
    """
    return _mean(client_scores(record.clients, metric), weighting)


def client_scores(clients: Iterable[ClientRecord], metric: str) -> list[tuple[float, int]]:
    """(score, windows) of each client that has such windows."""
    unseen = METRICS[metric].unseen
    found = [
        (client_score(client, metric), num_windows(client.unseen if unseen else client.confusion)) for client in clients
    ]
    return [(score, windows) for score, windows in found if score is not None]


def mean_score(clients: Iterable[ClientRecord], metric: str, *, weighting: str = "windows") -> float | None:
    """As `run_score`, over these clients alone."""
    return _mean(client_scores(clients, metric), weighting)


def scores_by_seed(runs: Mapping[int, RunRecord], metric: str, *, weighting: str = "windows") -> dict[int, float]:
    """The score of each seed that has one."""
    found = {seed: run_score(record, metric, weighting=weighting) for seed, record in sorted(runs.items())}
    return {seed: score for seed, score in found.items() if score is not None}


def mean_curve(record: RunRecord) -> list[float]:
    """Macro F1 before the first round and after each, mean over clients weighted by test windows."""
    clients = [(client.macro_f1, num_windows(client.confusion)) for client in record.clients if client.macro_f1]
    weight = sum(windows for _, windows in clients)
    if not weight:
        return []
    shortest = min(len(curve) for curve, _ in clients)
    return [sum(curve[i] * windows for curve, windows in clients) / weight for i in range(shortest)]


def num_windows(confusion: Confusion) -> int:
    """How many windows a confusion matrix counts."""
    return sum(sum(row) for row in confusion)


def grouped(records: Iterable[RunRecord]) -> Grouped:
    """The runs by cell, mode and seed, in the order in which they are shown.

    Raises:
        ConfigError: `usage`; two runs claim the same place.
    """
    found: dict[Cell, dict[str, dict[int, RunRecord]]] = {}
    for record in sorted(records, key=_order):
        seeds = found.setdefault(record.cell, {}).setdefault(record.mode, {})
        if record.seed in seeds:
            raise ConfigError(
                "usage",
                f"two results of {record.mode} in {record.cell} with seed {record.seed}: {seeds[record.seed].key} and "
                f"{record.key}, expected one",
                hint="report one experiment at a time, from the folder that it wrote",
            )
        seeds[record.seed] = record
    return found


def modes_of(cells: Grouped) -> list[str]:
    """All modes of a comparison, in the order in which they are shown."""
    return sorted({mode for by_mode in cells.values() for mode in by_mode}, key=mode_order)


def mode_order(mode: str) -> tuple[int, str]:
    """Sorts modes: the known ones first, in their own order."""
    return (list(KNOWN).index(mode), "") if mode in KNOWN else (len(KNOWN), mode)


def mode_name(mode: str) -> str:
    """A mode's name for people."""
    return KNOWN[mode][0] if mode in KNOWN else mode


def looks_of(modes: Iterable[str]) -> tuple[Look, ...]:
    """How these modes are drawn; those that an experiment names itself get the spare colours by turns."""
    ordered = sorted(modes, key=mode_order)
    own = [mode for mode in ordered if mode not in KNOWN]
    return tuple(
        Look(mode, mode_name(mode), KNOWN[mode][1] if mode in KNOWN else OWN_LOOKS[own.index(mode) % len(OWN_LOOKS)])
        for mode in ordered
    )


def _order(run: RunRecord) -> tuple[str, str, bool, str, bool, int, tuple[int, str], int]:
    """IID before other splits, all windows before few."""
    cell = run.cell
    by_cell = (cell.data, cell.mix, cell.split != "iid", cell.split, cell.windows > 0, -cell.windows)
    return (*by_cell, mode_order(run.mode), run.seed)


def _mean(found: Sequence[tuple[float, int]], weighting: str) -> float | None:
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting {weighting!r}, expected one of {', '.join(WEIGHTINGS)}")
    weights = [windows if weighting == "windows" else 1 for _, windows in found]
    return sum(score * w for (score, _), w in zip(found, weights, strict=True)) / sum(weights) if found else None


def complete(by_mode: Mapping[str, Mapping[int, RunRecord]]) -> dict[str, Mapping[int, RunRecord]]:
    """The modes with every seed that any mode of the cell has: means of others say more of their seeds than of them."""
    every = {seed for runs in by_mode.values() for seed in runs}
    return {mode: runs for mode, runs in by_mode.items() if set(runs) == every}
