"""What a comparison found, as tables: one row per run, per client, per cell and mode, per pair of modes.

Writes CSV and JSON. Runs nothing, and leaves out no run that it is given.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from blossom_edge.core.errors import ConfigError
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.simulation.experiments.gains import Gain, gains_of, mean_gains
from blossom_edge.simulation.experiments.judgement import is_registered, judge_dual
from blossom_edge.simulation.experiments.markdown import markdown
from blossom_edge.simulation.experiments.page import write_page
from blossom_edge.simulation.experiments.records import Cell, ClientRecord, RunRecord
from blossom_edge.simulation.experiments.run_scores import (
    METRICS,
    WEIGHTINGS,
    client_score,
    complete,
    grouped,
    mode_name,
    modes_of,
    num_windows,
    run_score,
    scores_by_seed,
)
from blossom_edge.simulation.experiments.statistics import paired, spread

__all__ = ["ResultPaths", "score_table", "short_cells", "summarise", "write_results"]

FORMAT = 1
PLAIN_METRICS = ("accuracy", "macro_f1")
"""Compared with every client weighing the same, too."""
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class ResultPaths:
    """The files that `write_results` wrote."""

    results: Path
    clients: Path
    summary_csv: Path
    summary_json: Path
    tables: Path
    page: Path


def write_results(records: Sequence[RunRecord], folder: Path) -> ResultPaths:
    """Write results.csv, clients.csv, summary.csv, summary.json, tables.md and index.html into `folder`.

    Equal records give equal bytes.

    Raises:
        ConfigError: `usage`; there is no run, or two runs claim the same place.
        StorageError: the disk refuses.
    """
    if not records:
        raise ConfigError("usage", "no result to report, expected at least one run", hint="wait until a run has ended")
    cells = grouped(records)
    ordered = [run for by_mode in cells.values() for runs in by_mode.values() for run in runs.values()]
    summary = summarise(records)
    make_folder(folder)
    names = ("results.csv", "clients.csv", "summary.csv", "summary.json", "tables.md", "index.html")
    paths = ResultPaths(*(folder / name for name in names))
    _write(paths.results, _csv([_run_row(run) for run in ordered]))
    _write(paths.clients, _csv([_client_row(run, client) for run in ordered for client in run.clients]))
    _write(paths.summary_csv, _csv([*summary["scores"], *summary["pairs"]]))
    _write(paths.summary_json, json.dumps(summary, indent=1, allow_nan=False) + "\n")
    _write(paths.tables, markdown(records))
    write_page(records, paths.page)
    return paths


def summarise(records: Sequence[RunRecord]) -> dict[str, Any]:
    """The whole summary as plain values: scores per cell and mode, pairs of modes, gains over full, the rule.

    Scores, differences and intervals are fractions from 0 to 1, not points; `difference` is `mode` minus `other`.
    """
    cells = grouped(records)
    gains = gains_of(cells)
    return {
        "format": FORMAT,
        "experiments": sorted({record.experiment for record in records}),
        "num_runs": len(records),
        "metrics": {name: metric.title for name, metric in METRICS.items()},
        "scores": [row for cell, by_mode in cells.items() for row in _score_rows(cell, by_mode)],
        "pairs": [row for cell, by_mode in cells.items() for row in _pair_rows(cell, by_mode)],
        "gains_over_full": [_gain_row(gain) for gain in gains],
        "mean_gains_over_full": mean_gains(gains),
        "dual_rule": judge_dual(records).to_json() if is_registered(records) else None,
    }


def score_table(records: Sequence[RunRecord], *, width: int) -> tuple[list[list[object]], list[str]]:
    """Rows and headers for a terminal: macro F1 in points, with its spread and the seeds where they are not all there.

    One column per mode, or one row where so many do not fit.
    """
    cells = grouped(records)
    modes = modes_of(cells)
    fits = width >= 24 + 11 * len(modes)
    rows: list[list[object]] = []
    for cell, by_mode in cells.items():
        shown = [_shown(by_mode, mode, with_spread=not fits or width >= 24 + 16 * len(modes)) for mode in modes]
        if fits:
            rows.append([str(cell), *shown])
        else:
            rows += [[str(cell), mode_name(mode), one] for mode, one in zip(modes, shown, strict=True) if one != "-"]
    return rows, ["macro F1, points", *map(mode_name, modes)] if fits else ["cell", "mode", "macro F1, points"]


def short_cells(records: Sequence[RunRecord]) -> list[str]:
    """A sentence for each cell that asks for more windows of a client than some client has."""
    found: dict[Cell, set[int]] = {}
    for record in records:
        for client in record.clients:
            size = client.num_train + num_windows(client.confusion)
            if size < record.cell.windows:
                found.setdefault(record.cell, set()).add(size)
    return [f"{cell}: some clients have fewer windows, the least {min(sizes)}" for cell, sizes in found.items()]


def _shown(by_mode: Mapping[str, Mapping[int, RunRecord]], mode: str, *, with_spread: bool) -> str:
    values = [100 * score for score in scores_by_seed(by_mode.get(mode, {}), "macro_f1").values()]
    if not values:
        return "-"
    found = spread(values)
    text = f"{found.mean:.1f}" + (f" ± {found.sd:.1f}" if with_spread and found.sd is not None else "")
    return text if mode in complete(by_mode) else f"{text} (n={len(values)})"


def _run_row(run: RunRecord) -> Row:
    num = max(len(run.clients), 1)
    return {
        "experiment": run.experiment,
        **_cell_row(run.cell),
        "mode": run.mode,
        "seed": run.seed,
        "rounds": run.rounds,
        **{name: _round(run_score(run, name)) for name in METRICS},
        "accuracy_plain": _round(run_score(run, "accuracy", weighting="clients")),
        "macro_f1_plain": _round(run_score(run, "macro_f1", weighting="clients")),
        "bytes_up": round(sum(client.bytes_up_per_round for client in run.clients) / num),
        "bytes_down": round(sum(client.bytes_down_per_round for client in run.clients) / num),
        "cpu_s": round(run.cpu_s, 2),
        "software": run.software,
        "digest": run.digest,
    }


def _client_row(run: RunRecord, client: ClientRecord) -> Row:
    return {
        "experiment": run.experiment,
        **_cell_row(run.cell),
        "mode": run.mode,
        "seed": run.seed,
        "client": client.id,
        "modalities": "+".join(client.modalities),
        "num_train": client.num_train,
        "num_test": num_windows(client.confusion),
        "num_unseen": num_windows(client.unseen),
        **{name: _round(client_score(client, name)) for name in METRICS},
        "bytes_up": round(client.bytes_up_per_round),
        "bytes_down": round(client.bytes_down_per_round),
        "gate": client.gate,
        "join_round": client.join_round,
        "behaviour": client.behaviour,
        "train_labels": " ".join(map(str, client.train_labels)),
        "confusion": "; ".join(" ".join(map(str, row)) for row in client.confusion),
    }


def _score_rows(cell: Cell, by_mode: Mapping[str, Mapping[int, RunRecord]]) -> list[Row]:
    rows = []
    for mode, runs in by_mode.items():
        for metric in METRICS:
            for weighting in WEIGHTINGS:
                values = list(scores_by_seed(runs, metric, weighting=weighting).values())
                if values:
                    found = spread(values)
                    rows.append(_row(cell, mode, "", metric, weighting, n=found.n, mean=found.mean, sd=found.sd))
    return rows


def _pair_rows(cell: Cell, by_mode: Mapping[str, Mapping[int, RunRecord]]) -> list[Row]:
    rows = []
    for metric in METRICS:
        for weighting in WEIGHTINGS if metric in PLAIN_METRICS else WEIGHTINGS[:1]:
            scores = {mode: scores_by_seed(runs, metric, weighting=weighting) for mode, runs in by_mode.items()}
            for other, mode in combinations(by_mode, 2):
                found = paired(scores[mode], scores[other])
                if found is not None:
                    rows.append(
                        _row(
                            cell, mode, other, metric, weighting, n=found.n, difference=found.difference,
                            low=found.low, high=found.high, p_t=found.p_t, p_permutation=found.p_permutation,
                            won=found.won, lost=found.lost,
                        )
                    )  # fmt: skip
    return rows


def _row(cell: Cell, mode: str, other: str, metric: str, weighting: str, **figures: float | None) -> Row:
    names = ("n", "mean", "sd", "difference", "low", "high", "p_t", "p_permutation", "won", "lost")
    values = {name: _round(figures.get(name)) for name in names}
    return {**_cell_row(cell), "mode": mode, "other": other, "metric": metric, "weighting": weighting, **values}


def _gain_row(gain: Gain) -> Row:
    return {**_cell_row(gain.cell), "choice": gain.choice, "mode": gain.mode, "gain": _round(gain.gain)}


def _cell_row(cell: Cell) -> Row:
    return {"data": cell.data, "mix": cell.mix, "split": cell.split, "windows": cell.windows}


def _round(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else round(value, 6)


def _csv(rows: Sequence[Row]) -> str:
    """Rows of the same keys as CSV; None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    atomic_write(path, text.encode("utf-8"), name="results", mode=0o644)
