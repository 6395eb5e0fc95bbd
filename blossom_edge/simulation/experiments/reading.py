"""Reads the files of finished runs back, with bounds. Writes nothing, and skips none that is damaged."""

from __future__ import annotations

import json
from pathlib import Path

from blossom_edge.core.errors import ConfigError, StorageError
from blossom_edge.simulation.experiments.records import RunRecord

RUNS = "runs"
"""Folder of an experiment that has one JSON file per finished run."""
MAX_BYTES = 16_000_000
MAX_RUNS = 100_000


def read_records(folder: Path) -> list[RunRecord]:
    """The records of all finished runs in `folder`/runs, by name of their files.

    Raises:
        ConfigError: `nothing-found`; there is none, or no such folder.
        StorageError: `file-damaged`; a file is no record, or too large.
    """
    paths = sorted((folder / RUNS).glob("*.json"))
    if not paths:
        raise ConfigError(
            "nothing-found",
            f"found no finished run in {folder / RUNS}, expected at least one .json",
            hint="name the folder that `blossom-edge experiment run` wrote",
        )
    if len(paths) > MAX_RUNS:
        raise StorageError("file-damaged", f"{folder / RUNS} has {len(paths)} runs, expected at most {MAX_RUNS}")
    return [read_record(path) for path in paths]


def read_record(path: Path) -> RunRecord:
    """The record in one file.

    Raises:
        StorageError: `file-damaged`; it cannot be read, is too large, or is no record.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        record = RunRecord.from_dict(json.loads(data))
        _check(record)
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise StorageError(
            "file-damaged",
            f"{path} is no record of a run: {reason}",
            hint="delete it and run the experiment again: that run alone is repeated",
        ) from error
    return record


def _check(record: RunRecord) -> None:
    size = len(record.classes)
    for client in record.clients:
        for name, confusion in (("confusion", client.confusion), ("unseen", client.unseen)):
            is_square = len(confusion) == size and all(len(row) == size for row in confusion)
            if not (is_square or (name == "unseen" and not confusion)):
                raise ValueError(f"{name} of {client.id} is not {size} x {size}")
            if not all(isinstance(count, int) and count >= 0 for row in confusion for count in row):
                raise ValueError(f"{name} of {client.id} has counts that are no whole number from 0")
