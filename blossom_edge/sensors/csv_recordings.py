"""Reads one recording from a CSV with names and units in its header. Never guesses a unit or a rate."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError

_COLUMN = re.compile(r"^(?P<label>label:)?(?P<name>[a-z0-9][a-z0-9_-]*)(?:\s*\[(?P<unit>[^\]]+)\])?$")
MAX_UNEVEN = 0.5
"""A step may differ from the usual one by this part of it; a longer one is a gap, and a gap needs a file of its own."""


@dataclass(frozen=True, slots=True)
class CsvTable:
    """What one file holds. `words` and `numbers` are the labels, by task; `label_units` those of the numbers."""

    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    start_s: float
    values: NDArray[np.float32]
    words: dict[str, list[str]]
    numbers: dict[str, NDArray[np.float32]]
    label_units: dict[str, str]


def read_csv(path: Path) -> CsvTable:
    """Read one file.

    Raises:
        ConfigError: `replay-invalid`, with file, column or line, what was found, what was expected.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _invalid(f"{path}: cannot be read: {error}") from error
    if len(rows) < 3:
        raise _invalid(f"{path}: found {len(rows)} lines, expected a header and two samples at least")
    header = [_column(path, text.strip()) for text in rows[0]]
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise _invalid(f"{path}: line {line}: found {len(row)} cells, expected {len(header)}")
    times = _times(path, header, rows)
    period = float(np.median(np.diff(times)))
    values = [i for i, (label, name, _unit) in enumerate(header) if not label and name != "time"]
    if not values:
        raise _invalid(f"{path}: found no channel, expected columns such as 'ax [m/s2]'")
    words = {name: [row[i].strip() for row in rows[1:]] for i, (label, name, u) in enumerate(header) if label and not u}
    numbers = {
        name: _numbers(path, i, name, rows).astype(np.float32)
        for i, (label, name, unit) in enumerate(header)
        if label and unit
    }
    return CsvTable(
        channels=tuple(header[i][1] for i in values),
        units=tuple(header[i][2] for i in values),
        rate_hz=_round_rate(1.0 / period),
        start_s=float(times[0]),
        values=np.stack([_numbers(path, i, header[i][1], rows) for i in values], axis=1).astype(np.float32),
        words=words,
        numbers=numbers,
        label_units={name: unit for label, name, unit in header if label and unit},
    )


def _column(path: Path, text: str) -> tuple[bool, str, str]:
    match = _COLUMN.match(text)
    if match is None:
        raise _invalid(f"{path}: column {text!r}: expected 'NAME [UNIT]' or 'label:TASK', in small letters")
    label, name, unit = bool(match["label"]), match["name"], match["unit"] or ""
    if not label and not unit:
        raise _invalid(f"{path}: column {name!r}: found no unit, expected for example '{name} [m/s2]'")
    return label, name, unit.strip()


def _times(path: Path, header: list[tuple[bool, str, str]], rows: list[list[str]]) -> NDArray[np.float64]:
    columns = [i for i, column in enumerate(header) if column == (False, "time", "s")]
    if len(columns) != 1:
        raise _invalid(f"{path}: found {len(columns)} columns 'time [s]', expected one")
    times = _numbers(path, columns[0], "time", rows)
    steps = np.diff(times)
    if not (steps > 0).all():
        line = int(np.argmin(steps > 0)) + 3
        raise _invalid(f"{path}: line {line}: time does not rise, expected seconds that do")
    uneven = np.abs(steps / np.median(steps) - 1) > MAX_UNEVEN
    if uneven.any():
        line = int(np.argmax(uneven)) + 3
        raise _invalid(
            f"{path}: line {line}: found a step of {steps[line - 3]:.4g} s where {np.median(steps):.4g} s is usual",
            hint="put what follows a gap into a file of its own",
        )
    return times


def _numbers(path: Path, column: int, name: str, rows: list[list[str]]) -> NDArray[np.float64]:
    result = np.empty(len(rows) - 1)
    for i, row in enumerate(rows[1:]):
        text = row[column].strip()
        try:
            result[i] = float(text) if text else np.nan
        except ValueError as error:
            raise _invalid(f"{path}: line {i + 2}: {name}: found {text!r}, expected a number") from error
    return result


def _round_rate(rate_hz: float) -> float:
    """The nearest round rate if it is within 0.1 %: times in a CSV are rounded."""
    near = round(rate_hz)
    return float(near) if near and abs(rate_hz / near - 1) < 1e-3 else rate_hz


def _invalid(message: str, *, hint: str = "") -> ConfigError:
    return ConfigError("replay-invalid", message, hint=hint)
