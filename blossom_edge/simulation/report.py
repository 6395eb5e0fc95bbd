"""The result of a comparison as one HTML page: no network, no script. Takes its words from `report_words`."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from statistics import stdev

from blossom_edge.console.output import format_bytes, format_seconds
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.simulation.report_html import bullets, figure, header, page, section, table
from blossom_edge.simulation.report_svg import bar_chart, curve_chart
from blossom_edge.simulation.report_words import report_words, verdict
from blossom_edge.simulation.results import MODE_NAMES, MODES, Results

__all__ = ["report_words", "write_report"]

ABOUT_MODES: Mapping[str, str] = {
    "alone": "every device learns by itself",
    "full": "all blocks are averaged over the devices that have them",
    "private_head_fusion": "encoders are averaged, fusion and head never leave their device",
}
NEXT = (
    ("blossom-edge demo --labels-per-class all", "the same people with all their labels"),
    ("blossom-edge demo --seed 1", "another draw of labels and starting values"),
    ("blossom-edge demo --rounds 20", "longer than the default"),
    ("blossom-edge privacy --profile rpi4-gyro --federation har", "what leaves a device and what stays"),
)


def write_report(results: Results, folder: Path) -> Path:
    """Write `folder/index.html`; returns its path.

    Raises:
        StorageError: the disk refuses.
    """
    make_folder(folder)
    path = folder / "index.html"
    atomic_write(path, _page(results).encode("utf-8"), name="report", mode=0o644)
    return path


def _page(results: Results) -> str:
    labels = "all labels" if results.labels_per_class is None else f"{results.labels_per_class} labels per class"
    about = f"{len(results.devices)} devices, {results.rounds} rounds, {labels}, seed {results.seed}"
    parts = [
        header(f"blossom-edge &#183; federation {escape(results.federation)} &#183; {about}", verdict(results)),
        _cards(results),
        section("What was found", bullets(report_words(results))),
        section("How each mode learned", _curves(results)),
        section("Every device", _legend() + _bars(results)),
        section("The figures", _figures(results)),
        section("What was sent, and what stayed", _privacy(results)),
        section("What to try next", _next()),
    ]
    foot = (
        "Same people, windows, labels, seeds and local training in every mode. "
        f"Federation {escape(results.federation)} {escape(results.digest[:12])}. "
        f"Took {escape(format_seconds(results.seconds))}."
    )
    return page("blossom-edge: one federation, three ways to learn", parts, foot=foot)


def _cards(results: Results) -> str:
    cards = []
    for mode in MODES:
        cards.append(
            f'<div class="card m-{mode}"><h3>{escape(MODE_NAMES[mode])}</h3><p class="about">{ABOUT_MODES[mode]}</p>'
            f"<p><b>{results.mean_score[mode]:.3f}</b> own later recordings</p>"
            f"<p><b>{results.new_people_score[mode]:.3f}</b> people never seen</p></div>"
        )
    return f'<div class="grid three">{"".join(cards)}</div>'


def _legend() -> str:
    keys = "".join(f'<span class="key m-{mode}">{escape(MODE_NAMES[mode])}</span>' for mode in MODES)
    return f'<p class="legend">{keys}<span class="key base">naming one label always</span></p>'


def _curves(results: Results) -> str:
    charts = []
    for mode in MODES:
        chart = curve_chart(mode, [device.curve[mode] for device in results.devices], base=results.majority_score)
        charts.append(figure(MODE_NAMES[mode], chart))
    note = (
        "Accuracy on own later recordings after each round. Bold: mean; thin: each device; "
        "dashed: naming the most frequent label always."
    )
    return f'<p>{note}</p><div class="grid three">{"".join(charts)}</div>'


def _bars(results: Results) -> str:
    own = bar_chart(
        "bars-own",
        "Accuracy on own later recordings, by device and mode",
        {device.id: device.score for device in results.devices},
        base=results.majority_score,
    )
    new = bar_chart(
        "bars-new",
        "Accuracy on people no device has seen, by device and mode",
        {device.id: device.new_people_score for device in results.devices},
        base=results.new_people_majority,
    )
    both = figure("Own later recordings", own) + figure("People no device has seen", new)
    return f'<div class="grid two">{both}</div>'


def _figures(results: Results) -> str:
    heads = ["device", "profile", "modalities", "person", *(MODE_NAMES[mode] for mode in MODES)]
    tables = []
    for title, own in (("Own later recordings", True), ("People no device has seen", False)):
        rows = []
        for device in results.devices:
            score = device.score if own else device.new_people_score
            row = [device.id, device.profile, " + ".join(device.modalities), str(device.person)]
            rows.append([*row, *(f"{score[mode]:.3f}" for mode in MODES)])
        means = results.mean_score if own else results.new_people_score
        base = results.majority_score if own else results.new_people_majority
        rows.append(["mean", "", "", "", *(f"{means[mode]:.3f}" for mode in MODES)])
        if len(results.devices) > 1:
            spreads = [
                stdev((device.score if own else device.new_people_score)[mode] for device in results.devices)
                for mode in MODES
            ]
            rows.append(["spread over the devices", "", "", "", *(f"{spread:.3f}" for spread in spreads)])
        rows.append(["naming one label always", "", "", "", *(f"{base:.3f}" for _ in MODES)])
        tables.append(f"<h3>{title}</h3>{table(heads, rows, numbers_from=3)}")
    return "".join(tables)


def _privacy(results: Results) -> str:
    rows = [
        [
            device.id,
            ", ".join(device.private_blocks),
            device.private_place,
            str(device.private_blocks_sent),
            format_bytes(device.bytes_up_per_round),
            format_bytes(device.bytes_down_per_round),
        ]
        for device in results.devices
    ]
    heads = ["device", "private blocks", "kept in", "of them sent", "up per round", "down per round"]
    shared = [f"{block}: {sha256[:16]}" for block, sha256 in results.versions.items()]
    versions = f"<h3>Shared blocks, last version (sha256)</h3>{bullets(shared)}" if shared else ""
    note = f"Of the run with {MODE_NAMES['private_head_fusion']}. Raw signals are in no message at all."
    return f"<p>{escape(note)}</p>{table(heads, rows, numbers_from=3)}{versions}"


def _next() -> str:
    return f"<dl>{''.join(f'<dt><code>{escape(line)}</code></dt><dd>{escape(why)}</dd>' for line, why in NEXT)}</dl>"
