"""A comparison as one HTML page: no network, no script. Assumes no winner; every sentence follows from the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from blossom_edge.console.output import format_bytes, format_seconds
from blossom_edge.durable import atomic_write
from blossom_edge.simulation.experiments.gains import Gain, gains_of
from blossom_edge.simulation.experiments.judgement import MODE, OTHER, is_registered, judge_dual
from blossom_edge.simulation.experiments.page_charts import bytes_chart, cell_charts, gains_over_full
from blossom_edge.simulation.experiments.records import RunRecord
from blossom_edge.simulation.experiments.run_scores import (
    METRICS,
    Grouped,
    complete,
    grouped,
    looks_of,
    mode_name,
    modes_of,
    scores_by_seed,
)
from blossom_edge.simulation.experiments.statistics import paired
from blossom_edge.simulation.experiments.tables import (
    GAIN_NOTE,
    MEAN_NOTE,
    REFERENCE_NOTE,
    RELATIVE_NOTE,
    TEST_NOTE,
    Table,
    best,
    gain_rows,
    interval_text,
    mode_means,
    reference_rows,
    relative_rows,
    score_rows,
)
from blossom_edge.simulation.report_html import bullets, header, page, section, table
from blossom_edge.simulation.report_svg import Look

ABOUT_MODES: Mapping[str, str] = {
    "majority": "every device answers its own most frequent label",
    "local": "every device learns by itself",
    "full": "all blocks are averaged over the devices that have them",
    "private-head": "all but the head is averaged",
    "private-head-fusion": "encoders are averaged, fusion and head never leave their device",
    "cohort-head-fusion": "fusion and head are averaged among devices with the same modalities",
    "dual": "fusion and head in a shared and a private copy, mixed on the device",
    "centralised": "one model on all windows, an upper bound that no federation can choose",
}
NBSP = "\u00a0"


def write_page(records: Sequence[RunRecord], path: Path) -> None:
    """Write the page of these runs to `path`.

    Raises:
        ConfigError: `usage`; two runs claim the same place.
        StorageError: the disk refuses.
    """
    atomic_write(path, _page(records).encode("utf-8"), name="report", mode=0o644)


def headline(cells: Grouped) -> str:
    """In how many cells each mode is the best that a federation can choose, in one line."""
    won: dict[str, int] = {}
    for by_mode in cells.values():
        for mode in best(mode_means(complete(by_mode), "macro_f1")):
            won[mode] = won.get(mode, 0) + 1
    if not won:
        return "No score to compare yet"
    ranked = sorted(won, key=lambda mode: -won[mode])
    if len(cells) == 1:
        return f"Best macro F1: {', '.join(map(mode_name, ranked[:3]))}" + (" and others alike" if ranked[3:] else "")
    return f"Best macro F1 in {len(cells)} cells: {', '.join(f'{mode_name(mode)} in {won[mode]}' for mode in ranked)}"


def weak_points(cells: Grouped) -> list[str]:
    """Where a mode is below what it should beat: learning alone, the own majority label, and for dual both parts."""
    words = []
    for cell, by_mode in cells.items():
        scores = {mode: scores_by_seed(runs, "macro_f1") for mode, runs in by_mode.items()}
        for mode in by_mode:
            for other in _to_beat(mode):
                gain = paired(scores[mode], scores.get(other, {}))
                if gain is None or gain.difference >= 0:
                    continue
                interval = f"95 % interval {interval_text(gain)}, " if gain.low is not None else ""
                words.append(
                    f"{cell}: {mode_name(mode)} is {-100 * gain.difference:.1f} points below {mode_name(other)} "
                    f"({interval}{gain.lost} of {gain.n} seeds lost)."
                )
    return words


def _to_beat(mode: str) -> tuple[str, ...]:
    if mode in ("local", "majority"):
        return ("majority",) if mode == "local" else ()
    return ("local", "majority", "full", OTHER) if mode == MODE else ("local", "majority")


def _page(records: Sequence[RunRecord]) -> str:
    cells = grouped(records)
    looks = looks_of(modes_of(cells))
    gains = gains_of(cells)
    names = ", ".join(sorted({record.experiment for record in records}))
    seeds = {record.seed for record in records}
    rounds = sorted({record.rounds for record in records})
    about = f"{len(records)} runs, {len(cells)} cells, {len(seeds)} seeds, {' and '.join(map(str, rounds))} rounds"
    top, found = headline(cells), []
    if is_registered(records):
        verdict = judge_dual(records)
        found = [f"Registered rule: {verdict.words}"]
        if verdict.is_default is not None:
            top, found = verdict.words, [top, *found]
    if len(seeds) == 1:
        found.append("One seed shows no spread and no interval: another seed moves the figures.")
    weak = weak_points(cells)
    parts = [
        header(f"blossom-edge &#183; experiment {escape(names)} &#183; {escape(about)}", top),
        section("What was found", bullets(found)) if found else "",
        section("Macro F1 of every cell and mode", _modes(looks) + _scores(cells, "macro_f1")),
        _gains(cells, gains),
        *(
            section(str(cell), _legend(looks, by_mode) + cell_charts(f"cell{i}", cell, by_mode, looks))
            for i, (cell, by_mode) in enumerate(cells.items())
        ),
        _references(cells),
        _bytes(cells, looks),
        section(
            "What does not work",
            bullets(weak) if weak else "<p>No mode is below what it should beat in any cell.</p>",
        ),
        section("Other scores", _others(cells)),
    ]
    foot = (
        "Same devices, windows and modalities in every mode of a seed; starting values differ between modes. "
        f"The runs took {escape(format_seconds(sum(record.cpu_s for record in records)))} of CPU. "
        f"Software {escape(', '.join(sorted({record.software for record in records})))}."
    )
    return page(f"blossom-edge: {names}", parts, foot=foot)


def _modes(looks: Sequence[Look]) -> str:
    rows = "".join(
        f'<div><span class="key {look.css}">{escape(look.name)}</span>'
        f'<br/><span class="about">{escape(ABOUT_MODES.get(look.key, "settings of this experiment"))}</span></div>'
        for look in looks
    )
    return f'<div class="grid two">{rows}</div>'


def _legend(looks: Sequence[Look], modes: Mapping[str, object]) -> str:
    keys = "".join(f'<span class="key {look.css}">{escape(look.name)}</span>' for look in looks if look.key in modes)
    return f'<p class="legend">{keys}</p>'


def _scores(cells: Grouped, metric: str) -> str:
    return f"<p>{MEAN_NOTE}</p>{_table(score_rows(cells, metric))}"


def _gains(cells: Grouped, gains: Sequence[Gain]) -> str:
    if not any(gains_over_full(by_mode) for by_mode in cells.values()):
        return ""
    points, tests = gain_rows(cells)
    body = (
        f"<p>{GAIN_NOTE}</p>{_table(points)}"
        f"<details><summary>Paired tests</summary><p>{TEST_NOTE}</p>{_table(tests)}</details>"
    )
    if gains:
        relative = relative_rows(gains)
        body += f"<h3>Relative gain, as the paper counts it</h3><p>{RELATIVE_NOTE} In brackets: cells.</p>"
        body += table(relative.heads, relative.rows, numbers_from=1)
    return section("Gain over the full model", body)


def _table(found: Table, *, numbers_from: int = 1) -> str:
    rows = [[row[0], *(text.replace(" ± ", f"{NBSP}±{NBSP}").replace(" to ", f"{NBSP}to{NBSP}") for text in row[1:])]
            for row in found.rows]  # fmt: skip
    return table(found.heads, rows, numbers_from=numbers_from, marked=found.marked, whole_names=True)


def _references(cells: Grouped) -> str:
    found = reference_rows(cells)
    if found is None:
        return ""
    return section("What the change of each mode costs", f"<p>{REFERENCE_NOTE}</p>{_table(found, numbers_from=4)}")


def _bytes(cells: Grouped, looks: Sequence[Look]) -> str:
    chart = bytes_chart(cells, looks)
    if not chart:
        return ""
    amounts: dict[tuple[str, tuple[str, ...]], dict[str, list[tuple[float, float]]]] = {}
    for cell, by_mode in cells.items():
        for mode, runs in by_mode.items():
            for client in (client for run in runs.values() for client in run.clients):
                by = amounts.setdefault((cell.data, client.modalities), {})
                by.setdefault(mode, []).append((client.bytes_up_per_round, client.bytes_down_per_round))
    sending = [look for look in looks if any(any(map(any, by.get(look.key, ()))) for by in amounts.values())]
    rows = []
    for (data, modalities), by in sorted(amounts.items()):
        row = [data, " + ".join(modalities)]
        for look in sending:
            pairs = by.get(look.key, [])
            means = [format_bytes(fmean(one[way] for one in pairs)) for way in (0, 1)] if pairs else []
            row.append(" / ".join(means))
        rows.append(row)
    note = "<p>Mean per device and round, sent / received. Modes that send nothing are left out.</p>"
    heads = ["data", "modalities", *(look.name for look in sending)]
    body = _legend(sending, {look.key: None for look in sending}) + chart + note + table(heads, rows, numbers_from=2)
    return section("Bytes per device and round", body)


def _others(cells: Grouped) -> str:
    parts = []
    for metric, about in METRICS.items():
        if metric != "macro_f1" and any(mode_means(by_mode, metric) for by_mode in cells.values()):
            parts.append(f"<details><summary>{escape(about.title)}</summary>{_scores(cells, metric)}</details>")
    return "".join(parts)
