"""`blossom-edge experiment report`: tables and page of the runs that are finished. Runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from blossom_edge.console.output import Output
from blossom_edge.console.program import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blossom_edge.simulation.experiments.records import RunRecord
    from blossom_edge.simulation.experiments.summary import ResultPaths


@command("report", has_json=True, example="blossom-edge experiment report results/har/")
@click.argument("folder", type=click.Path(path_type=Path))
def report(out: Output, folder: Path) -> None:
    """Write tables and page of the finished runs in FOLDER, and show the scores.

    Writes results.csv, clients.csv, summary.csv, summary.json, tables.md and index.html into FOLDER, as `run` does at
    its end; also while it runs.
    """
    from blossom_edge.simulation.experiments.reading import read_records
    from blossom_edge.simulation.experiments.summary import summarise, write_results

    folder = folder.expanduser()
    records = read_records(folder)
    paths = write_results(records, folder)
    if out.as_json:
        out.json({**summarise(records), "page": str(paths.page)})
    show_results(out, records, paths)


def show_results(out: Output, records: Sequence[RunRecord], paths: ResultPaths) -> None:
    """Print the scores per cell and mode, what the registered rule says where it applies, and where the files are."""
    from blossom_edge.simulation.experiments.judgement import is_registered, judge_dual
    from blossom_edge.simulation.experiments.summary import score_table, short_cells

    out.table(*score_table(records, width=out.width))
    for sentence in short_cells(records):
        out.warn(sentence)
    if is_registered(records):
        out.line()
        _wrapped(out, judge_dual(records).words)
    out.line()
    out.line(f"{len(records)} runs; tables and page are in {paths.page.parent}")
    out.note(f"open {paths.page}")


def _wrapped(out: Output, text: str) -> None:
    import textwrap

    for line in textwrap.wrap(text, out.width):
        out.line(line)
