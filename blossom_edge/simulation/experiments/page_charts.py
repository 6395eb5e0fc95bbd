"""The charts of one cell: curves with their spread over seeds, bars by modalities, gain over the full model.

Computes means for drawing alone; draws with the renderer of the demo's report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from blossom_edge.console.output import format_bytes
from blossom_edge.simulation.experiments.records import Cell, RunRecord
from blossom_edge.simulation.experiments.run_scores import (
    NO_CONTENDERS,
    Grouped,
    mean_curve,
    mean_score,
    scores_by_seed,
)
from blossom_edge.simulation.experiments.statistics import paired, spread
from blossom_edge.simulation.report_html import figure
from blossom_edge.simulation.report_svg import Line, Look, bar_chart, interval_chart, line_chart

Runs = Mapping[str, Mapping[int, RunRecord]]
"""Mode -> seed -> run, in one cell."""
NO_GAIN = NO_CONTENDERS | {"full"}
"""Modes whose gain over full is not shown: the bounds are far away and say nothing about a choice."""


def cell_charts(name: str, cell: Cell, by_mode: Runs, looks: Sequence[Look]) -> str:
    """Curves, bars and gains of one cell side by side; `name` makes the ids of its charts unique on the page."""
    charts = [
        figure("Macro F1 by round", _curves(f"{name}-curve", cell, by_mode, looks)),
        figure("Macro F1 by modalities", _groups(f"{name}-groups", cell, by_mode, looks)),
    ]
    gains = gains_over_full(by_mode)
    if gains:
        largest = _nice(max(abs(edge) for gain in gains.values() for edge in gain if edge is not None))
        chart = interval_chart(
            f"{name}-gain", f"Gain over the full model, {cell}", gains, looks=looks, largest=largest,
            unit="points of macro F1",
        )  # fmt: skip
        charts.append(figure("Gain over full, 95 % interval", chart))
    return f'<div class="grid three">{"".join(charts)}</div>'


def gains_over_full(by_mode: Runs) -> dict[str, tuple[float, float | None, float | None]]:
    """Mode -> difference to `full` in points of macro F1, with its 95 % interval; empty where there is no full."""
    full = scores_by_seed(by_mode.get("full", {}), "macro_f1")
    found = {}
    for mode, runs in by_mode.items():
        gain = None if mode in NO_GAIN else paired(scores_by_seed(runs, "macro_f1"), full)
        if gain is not None:
            low, high = (None if edge is None else 100 * edge for edge in (gain.low, gain.high))
            found[mode] = (100 * gain.difference, low, high)
    return found


def bytes_chart(cells: Grouped, looks: Sequence[Look]) -> str:
    """Bytes that a device sends and receives per round, by data set and mode; nothing where no mode sends any."""
    sums: dict[str, dict[str, list[float]]] = {}
    for cell, by_mode in cells.items():
        for mode, runs in by_mode.items():
            for client in (client for run in runs.values() for client in run.clients):
                ways = (("sent", client.bytes_up_per_round), ("received", client.bytes_down_per_round))
                for way, amount in ways:
                    sums.setdefault(f"{cell.data}, {way}", {}).setdefault(mode, []).append(amount)
    means = {
        group: {mode: fmean(amounts) for mode, amounts in by_mode.items() if any(amounts)}
        for group, by_mode in sums.items()
    }
    largest = max((value for by_mode in means.values() for value in by_mode.values()), default=0.0)
    if not largest:
        return ""
    return bar_chart(
        "bytes", "Bytes per device and round, mean over devices", {g: m for g, m in means.items() if m}, looks=looks,
        largest=largest, show=format_bytes, labels_above=True,
    )  # fmt: skip


def _curves(name: str, cell: Cell, by_mode: Runs, looks: Sequence[Look]) -> str:
    lines = []
    for look in looks:
        curves = [curve for curve in map(mean_curve, by_mode.get(look.key, {}).values()) if curve]
        points = [spread([curve[i] for curve in curves]) for i in range(min(map(len, curves), default=0))]
        band = [(p.mean - p.sd, p.mean + p.sd) for p in points if p.sd is not None]
        lines.append(Line(look, [p.mean for p in points], band=band))
    edges = [edge for line in lines for points in (line.mean, *zip(*line.band, strict=True)) for edge in points]
    low = max(math.floor(min(edges, default=0.0) * 5) / 5, 0.0)
    high = min(math.ceil(max(edges, default=1.0) * 5) / 5, 1.0)
    told = "; ".join(f"{line.look.name} {line.mean[-1]:.3f}" for line in lines if line.mean)
    limits = (low, high) if high > low else (0.0, 1.0)
    return line_chart(name, f"Macro F1 by round, {cell}", f"After the last round: {told}", lines, limits=limits)


def _groups(name: str, cell: Cell, by_mode: Runs, looks: Sequence[Look]) -> str:
    groups = sorted(
        {client.modalities for runs in by_mode.values() for run in runs.values() for client in run.clients},
        key=lambda modalities: (len(modalities), modalities),
    )
    scores: dict[str, dict[str, float]] = {}
    for modalities in groups:
        for mode, runs in by_mode.items():
            found = [
                mean_score((one for one in run.clients if one.modalities == modalities), "macro_f1")
                for run in runs.values()
            ]
            known = [score for score in found if score is not None]
            if known:
                scores.setdefault(" + ".join(modalities), {})[mode] = fmean(known)
    return bar_chart(name, f"Macro F1 by modalities, {cell}", scores, looks=looks, labels_above=True)


def _nice(value: float) -> float:
    """The next larger of 1, 2, 5, 10, 20, ..."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)
