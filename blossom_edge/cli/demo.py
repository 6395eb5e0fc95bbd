"""`blossom-edge demo`: a whole federation of six devices on this machine, compared with learning alone."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blossom_edge.cli.joining import label_count
from blossom_edge.console.output import Output, format_bytes, format_seconds
from blossom_edge.console.program import command

if TYPE_CHECKING:
    from blossom_edge.simulation.demo import DemoPlan
    from blossom_edge.simulation.results import Results

FOLDER = "demo-report"
ROUNDS = 20


@command("demo", has_json=True, example="blossom-edge demo\nblossom-edge demo --labels-per-class all --rounds 5")
@click.option("--rounds", type=click.IntRange(1, 1000), default=ROUNDS, show_default=True, help="Rounds to run.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of starting values and splits."
)
@click.option(
    "--labels-per-class",
    callback=label_count,
    default="3",
    show_default=True,
    metavar="N|all",
    help="So few labelled windows has each device.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=FOLDER,
    show_default=True,
    metavar="FOLDER",
    help="Where report, blocks and results go.",
)
@click.option("--keep", is_flag=True, help="Keep the folders of gateway and devices, and their logs, too.")
def demo(out: Output, rounds: int, seed: int, labels_per_class: int | None, data_dir: Path, keep: bool) -> None:
    """Run a whole federation on this machine: gateway, broker, six devices.

    Each device is a process that replays one person's smart-watch recordings. Afterwards the same devices are
    compared learning alone, with the full model shared, and with head and fusion private.
    """
    from blossom_edge.simulation.demo_processes import Interrupts

    with Interrupts().caught() as interrupts:
        from blossom_edge.simulation.demo import DemoPlan, demo_folder, keep_results, run_demo
        from blossom_edge.simulation.demo_view import make_view
        from blossom_edge.simulation.report import write_report

        plan = DemoPlan(data_dir.expanduser(), rounds, seed, labels_per_class, keep)
        with demo_folder(plan):
            view = make_view(out)
            try:
                results = run_demo(plan, view, interrupts, say=out.note)
            finally:
                view.close()
            page = write_report(results, plan.folder / "report")
            keep_results(plan, results, report=str(page))
        _tell(out, plan, results, page)


def _tell(out: Output, plan: DemoPlan, results: Results, page: Path) -> None:
    from blossom_edge.simulation.report_words import report_words
    from blossom_edge.simulation.results import MODES

    out.json(results.to_json(report=str(page)))
    out.line()
    for words in report_words(results):
        indent = "  " if words.startswith(" ") else ""
        out.line(textwrap.fill(words.strip(), width=80, initial_indent=indent, subsequent_indent=indent + "  "))
    for title, pick, majority in (
        ("own later recordings", "score", results.majority_score),
        ("four people no device has seen", "new_people_score", results.new_people_majority),
    ):
        out.line(f"\naccuracy on {title}")
        rows: list[tuple[object, ...]] = [
            (d.id, ", ".join(d.modalities), *(getattr(d, pick)[mode] for mode in MODES)) for d in results.devices
        ]
        means = results.mean_score if pick == "score" else results.new_people_score
        rows.append(("mean", "", *(means[mode] for mode in MODES)))
        rows.append(("always one label", "", *(majority for _ in MODES)))
        out.table(rows, ["device", "modalities", "alone", "full model", "private head + fusion"])
    out.line(f"\nbytes of each device and round; its private blocks are below {plan.folder}")
    out.table(
        [
            (
                d.id,
                format_bytes(d.bytes_up_per_round),
                format_bytes(d.bytes_down_per_round),
                d.private_blocks_sent,
                f"{len(d.private_blocks)} in blocks/{d.id}",
            )
            for d in results.devices
        ],
        ["device", "up", "down", "private sent", "private blocks"],
    )
    for warning in results.warnings:
        out.note(f"note: {warning}")
    _say_next(out, plan, results, page)


def _say_next(out: Output, plan: DemoPlan, results: Results, page: Path) -> None:
    out.line(f"\nreport: {page}")
    out.line(f"blocks: {plan.folder / 'blocks'} (safetensors), numbers: {plan.folder / 'results.json'}")
    if plan.keep:
        out.line(f"gateway, devices and logs: {plan.run_folder}")
    out.line(f"took {format_seconds(results.seconds)}; to try next:")
    if plan.labels_per_class is None:
        out.line("  blossom-edge demo                             with three labelled windows per class")
    else:
        out.line("  blossom-edge demo --labels-per-class all      with all labels: who wins then?")
    if plan.keep:
        gateway = shlex.quote(str(plan.run_folder / "gateway"))
        out.line(f"  blossom-aggregator status --data-dir {gateway}")
    else:
        out.line("  blossom-edge demo --keep --rounds 3           and look into its run/")
    out.line("  blossom-edge privacy --profile rpi4-gyro --federation har")
