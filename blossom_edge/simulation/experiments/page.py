"""A comparison as one HTML page: no network, no script. Assumes no winner; every sentence follows from the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from blossom_edge.console.output import format_bytes, format_seconds
from blossom_edge.durable import atomic_write
from blossom_edge.simulation.experiments.gains import ORACLE, Gain, gains_of, mean_gains
from blossom_edge.simulation.experiments.judgement import MODE, OTHER, is_registered, judge_dual
from blossom_edge.simulation.experiments.page_charts import NO_GAIN, bytes_chart, cell_charts, gains_over_full
from blossom_edge.simulation.experiments.records import RunRecord
from blossom_edge.simulation.experiments.run_scores import (
    METRICS,
    NO_CONTENDERS,
    Grouped,
    complete,
    grouped,
    looks_of,
    mode_name,
    modes_of,
    scores_by_seed,
)
from blossom_edge.simulation.experiments.statistics import Paired, paired, spread
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
        for mode in _best(_means(complete(by_mode), "macro_f1")):
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
                interval = f"95 % interval {_interval(gain.low, gain.high)}, " if gain.low is not None else ""
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
        _bytes(cells, looks),
        section(
            "What does not work",
            bullets(weak) if weak else "<p>No mode is below what it should beat in any cell.</p>",
        ),
        section("Other scores", _others(cells)),
    ]
    foot = (
        "Same windows, splits, starting values and batch order in every mode of a seed. "
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
            shown += f"{NBSP}±{NBSP}{found.sd:.1f}" if found and found.sd is not None else ""
            row.append(shown + (f" ({len(values)} of the seeds)" if found and mode not in whole else ""))
        marked |= {(number, 1 + modes.index(mode)) for mode in _best(_means(whole, metric))}
        rows.append(row)
    heads = ["cell", *map(mode_name, modes)]
    return f"<p>{MEAN_NOTE}</p>{table(heads, rows, numbers_from=1, marked=frozenset(marked), whole_names=True)}"


def _gains(cells: Grouped, gains: Sequence[Gain]) -> str:
    if not any(gains_over_full(by_mode) for by_mode in cells.values()):
        return ""
    modes = [mode for mode in modes_of(cells) if mode not in NO_GAIN]
    points, tests = [], []
    for cell, by_mode in cells.items():
        full = scores_by_seed(by_mode.get("full", {}), "macro_f1")
        found = [paired(scores_by_seed(by_mode.get(mode, {}), "macro_f1"), full) for mode in modes]
        points.append([str(cell), *(_points(gain) for gain in found)])
        tests.append([str(cell), *("" if one is None else f"{_p(one.p_t)} / {_p(one.p_permutation)}" for one in found)])
    heads = ["cell", *map(mode_name, modes)]
    body = (
        f"<p>{GAIN_NOTE}</p>{table(heads, points, numbers_from=1, whole_names=True)}"
        f"<details><summary>Paired tests</summary><p>{TEST_NOTE}</p>"
        f"{table(heads, tests, numbers_from=1, whole_names=True)}</details>"
    )
    if gains:
        mixes = sorted({gain.cell.mix for gain in gains})
        means = {(row["choice"], row["mix"]): row for row in mean_gains(gains)}
        relative = []
        for choice in dict.fromkeys(choice for choice, _ in means):
            cols = [means.get((choice, mix)) for mix in ("all", *mixes)]
            shown = ["" if col is None else f"{100 * col['gain']:+.1f} % ({col['cells']})" for col in cols]
            relative.append([choice if choice == ORACLE else mode_name(choice), *shown])
        heads = ["mode", "all cells", *(f"mix {mix}" for mix in mixes)]
        body += f"<h3>Relative gain, as the paper counts it</h3><p>{RELATIVE_NOTE} In brackets: cells.</p>"
        body += table(heads, relative, numbers_from=1)
    return section("Gain over the full model", body)


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
        if metric != "macro_f1" and any(_means(by_mode, metric) for by_mode in cells.values()):
            parts.append(f"<details><summary>{escape(about.title)}</summary>{_scores(cells, metric)}</details>")
    return "".join(parts)


def _means(by_mode: Mapping[str, Mapping[int, RunRecord]], metric: str) -> dict[str, float]:
    scores = {mode: scores_by_seed(runs, metric) for mode, runs in by_mode.items()}
    return {mode: fmean(values.values()) for mode, values in scores.items() if values}


def _best(means: Mapping[str, float]) -> list[str]:
    """The highest of the modes that a federation can choose; several where they are equal to what is shown."""
    open_to = {mode: value for mode, value in means.items() if mode not in NO_CONTENDERS}
    return [mode for mode, value in open_to.items() if max(open_to.values()) - value < 0.0005]


def _points(gain: Paired | None) -> str:
    if gain is None:
        return ""
    interval = f" ({_interval(gain.low, gain.high)})".replace(" to ", f"{NBSP}to{NBSP}") if gain.low is not None else ""
    return f"{100 * gain.difference:+.1f}{interval}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


def _p(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
