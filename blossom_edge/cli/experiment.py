"""`blossom-edge experiment`: compare ways of learning on recorded data, again and again with other seeds."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from blossom_edge.console.output import Output, format_seconds
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import BlossomError, ConfigError

if TYPE_CHECKING:
    from blossom_edge.simulation.experiments.processes import Progress

HERE = "blossom_edge.cli.experiment"

experiment = LazyGroup(
    "experiment",
    help="Compare ways of learning on recorded data: many runs, resumable, on all cores.",
    targets={
        "run": (f"{HERE}:run", "Do the runs of a file that are not done yet."),
        "list": (f"{HERE}:list_command", "Show what a file asks for and what is done."),
        "report": ("blossom_edge.cli.experiment_report:report", "Write tables and page of what is done."),
    },
)

out_option = click.option(
    "--out", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help="Results [default: FILE without .toml]."
)
data_option = click.option(
    "--data-folder", type=click.Path(path_type=Path), metavar="FOLDER", help="Data is here [default: beside FILE]."
)


@command(
    "run",
    has_json=True,
    example="blossom-edge experiment run har.toml\n"
    "blossom-edge experiment run har.toml --data-folder ~/data --workers 2",
)
@click.argument("file", type=click.Path(path_type=Path))
@out_option
@data_option
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Processes [default: one for each core].")
def run(out: Output, file: Path, folder: Path | None, data_folder: Path | None, workers: int | None) -> None:
    """Do every run that FILE asks for and that has no result yet, then write tables and page.

    Stop it with Ctrl-C whenever you like: the same command goes on, also on another day. A run that fails is named,
    and the others go on.
    """
    import importlib
    from time import monotonic

    from blossom_edge.cli.experiment_report import show_results
    from blossom_edge.durable.lock import FolderLock
    from blossom_edge.simulation.experiments.plan import Plan
    from blossom_edge.simulation.experiments.processes import missing_runs, run_missing
    from blossom_edge.simulation.experiments.reading import read_records
    from blossom_edge.simulation.experiments.settings import load_settings
    from blossom_edge.simulation.experiments.summary import summarise, write_results

    plan = Plan(load_settings(file.expanduser()), folder=_data_folder(file, data_folder))
    if any(mode.visibility != "majority" for mode in plan.settings.modes.values()):
        importlib.import_module("blossom_edge.training.trainer")  # said once and now, not by every run
    place, count, done = _place(file, folder), workers or os.cpu_count() or 1, 0
    with FolderLock.acquire(place, what=f"experiment run {file.name}", option="--out"):
        keys = missing_runs(plan, place)
        plan.forget_data()
        found = len(plan.runs) - len(keys)
        out.note(f"{len(plan.runs)} runs, {found} of them done before; results go to {place}")
        began = monotonic()

        def tell(progress: Progress) -> None:
            nonlocal done
            done += bool(progress.ended) and progress.failure is None  # one that failed is done again
            _tell(out, progress, monotonic() - began)

        failures = []
        try:
            with _ended_by_sigterm():
                if keys:
                    data = _data_folder(file, data_folder)
                    failures = run_missing(plan, place, keys, folder=data, workers=count, tell=tell)
        except (KeyboardInterrupt, SystemExit):
            out.note(f"stopped with {found + done} of {len(plan.runs)} runs done; the same command goes on from there")
            raise
    if len(failures) < len(plan.runs):
        records = read_records(place)
        paths = write_results(records, place)
        if out.as_json and not failures:
            out.json({**summarise(records), "page": str(paths.page)})
        show_results(out, records, paths)
    if failures:
        raise BlossomError(
            "experiment-failed",
            f"{len(failures)} of {len(keys)} runs failed, the first is {failures[0].key}: {failures[0].message}",
            hint="the same command does them again",
        )


@command("list", has_json=True, example="blossom-edge experiment list har.toml")
@click.argument("file", type=click.Path(path_type=Path))
@out_option
@data_option
def list_command(out: Output, file: Path, folder: Path | None, data_folder: Path | None) -> None:
    """Show the runs that FILE asks for, by cell and mode, and how many of each are done.

    Whether a result is of these settings and data can only be told where the data are; else it counts as done.
    """
    from blossom_edge.simulation.experiments.plan import Plan
    from blossom_edge.simulation.experiments.processes import sort_runs
    from blossom_edge.simulation.experiments.settings import load_settings
    from blossom_edge.simulation.experiments.worker import record_path

    plan = Plan(load_settings(file.expanduser()), folder=_data_folder(file, data_folder))
    place = _place(file, folder)
    done, other, unchecked = {key for key in plan.runs if record_path(place, key).exists()}, set[str](), ""
    if done:
        try:
            other = set(sort_runs(plan, place)[1])
        except ConfigError as error:
            unchecked = str(error)
    done -= other
    rows: dict[tuple[str, str], list[int]] = {}
    for key, one in plan.runs.items():
        row = rows.setdefault((str(one.cell), one.mode), [0, 0, 0])
        row[0] += 1
        row[1] += key in done
        row[2] += key in other
    out.json(
        {
            "name": plan.settings.name,
            "folder": str(place),
            "num_runs": len(plan.runs),
            "num_done": len(done),
            "num_changed": None if unchecked else len(other),
            "runs": [
                {"key": key, "cell": str(one.cell), "mode": one.mode, "seed": one.seed, "done": key in done}
                for key, one in plan.runs.items()
            ],
        }
    )
    headers = ["cell", "mode", "runs", "done", *(["changed"] if other else [])]
    out.table([(*where, *counts)[: len(headers)] for where, counts in rows.items()], headers)
    out.line()
    out.line(f"{len(done)} of {len(plan.runs)} runs are done, in {place}")
    if other:
        out.line(f"{len(other)} results there are of other settings or data: name another folder with --out")
    if unchecked:
        out.note(f"not checked whether they are of these settings and data: {unchecked}")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let an order to end unwind as Ctrl-C does, so that workers and what they keep in memory are cleared away."""

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(out: Output, progress: Progress, seconds: float) -> None:
    left = seconds / progress.done * (progress.total - progress.done) if progress.done else None
    words = f"{format_seconds(seconds)}" + (f", about {format_seconds(left)} left" if left is not None else "")
    if progress.failure is not None:
        out.warn(f"{progress.failure.key} failed: {progress.failure.message} [{progress.failure.error_id}]")
    if not sys.stderr.isatty() and progress.ended and progress.failure is None:
        out.note(f"{progress.done}/{progress.total} {progress.ended}; {words}")
    out.progress(progress.done, progress.total, f"runs, {words}")


def _place(file: Path, folder: Path | None) -> Path:
    return (folder if folder is not None else file.with_suffix("")).expanduser()


def _data_folder(file: Path, folder: Path | None) -> Path:
    return (folder if folder is not None else file.parent).expanduser().resolve()
