"""Bounded reading of other people's files: sizes are checked before anything is read, no pickle is ever opened."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError

MAX_TEXT_BYTES = 256 * 1024 * 1024
MAX_ARRAY_BYTES = 8 * 1024**3
"""No array file of a known set is larger; a file that says more is not read."""

_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def not_found(path: Path, expected: str, *, hint: str) -> ConfigError:
    """`data-not-found`: nothing of a data set is at `path`, where `expected` should be."""
    return ConfigError("data-not-found", f"{path}: found nothing of it, expected {expected}", hint=hint)


def invalid(path: Path, found: str, expected: str, *, hint: str = "") -> ConfigError:
    """`data-invalid`: the file is there and not what it should be."""
    hint = hint or "fetch the data set again, or mend the file"
    return ConfigError("data-invalid", f"{path}: found {found}, expected {expected}", hint=hint)


def find_below(path: Path, marker: str, *, expected: str, hint: str, depth: int = 2) -> Path:
    """The folder that has `marker` (a relative path): `path` itself, or one at most `depth` folders below it.

    Raises:
        ConfigError: `data-not-found`.
    """
    level = [path]
    try:
        for _ in range(depth + 1):
            for folder in level:
                if (folder / marker).exists():
                    return folder
            level = sorted(below for folder in level if folder.is_dir() for below in folder.iterdir() if below.is_dir())
    except OSError as error:
        raise not_found(path, f"{expected} ({error.strerror})", hint=hint) from error
    raise not_found(path, expected, hint=hint)


def read_bytes(path: Path, *, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a file of at most `limit` bytes.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    try:
        size = path.stat().st_size
        if size > limit:
            raise invalid(path, f"{size} bytes", f"at most {limit}")
        return path.read_bytes()
    except OSError as error:
        raise not_found(path, f"this file ({error.strerror})", hint="fetch the data set again") from error


def read_text(path: Path) -> str:
    """The text of a file; bytes that are no UTF-8 are replaced, as older sets have some."""
    return read_bytes(path).decode("utf-8-sig", "replace")


def read_numbers(path: Path, *, columns: int, delimiter: str | None = None) -> NDArray[np.float64]:
    """A table of numbers, (rows, columns). Rows at the end that lack a number are left out, with all below them.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`: no number, or another count of columns.
    """
    text = read_text(path)
    if not text.strip():
        return np.zeros((0, columns))
    try:
        table = np.loadtxt(io.StringIO(text), dtype=np.float64, delimiter=delimiter, ndmin=2)
    except ValueError:
        table = np.array(_complete_rows(path, text.splitlines(), columns, delimiter), dtype=np.float64)
    if table.shape[0] and table.shape[1] != columns:
        raise invalid(path, f"{table.shape[1]} columns", f"{columns}")
    table = table.reshape(-1, columns)
    whole = np.isfinite(table).all(axis=1)
    return table if whole.all() else table[: int(np.argmin(whole))]


def _complete_rows(path: Path, lines: Iterable[str], columns: int, delimiter: str | None) -> list[list[float]]:
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split(delimiter)
        if len(fields) > columns:
            raise invalid(path, f"{len(fields)} columns in line {number}", f"{columns}")
        filled = [field for field in fields if field.strip()]
        if len(filled) < columns:
            break
        try:
            rows.append([float(field) for field in filled])
        except ValueError as error:
            raise invalid(path, f"{line[:40]!r} in line {number}", f"{columns} numbers") from error
    return rows


def read_table(path: Path, needs: Iterable[str]) -> list[Mapping[str, str]]:
    """The rows of a CSV file with a header, as column name -> text.

    Raises:
        ConfigError: `data-not-found`; `data-invalid`: a column of `needs` is not there.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = sorted(set(needs) - set(reader.fieldnames or ()))
    if missing:
        raise invalid(path, f"the columns {', '.join(reader.fieldnames or ()) or 'none'}", f"also {', '.join(missing)}")
    try:
        return [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in reader]
    except csv.Error as error:
        raise invalid(path, str(error), "a CSV file") from error


def read_npy(path: Path) -> NDArray[np.generic]:
    """An array of a `.npy` file, mapped: only what is used is read.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    try:
        if path.stat().st_size > MAX_ARRAY_BYTES:
            raise invalid(path, f"{path.stat().st_size} bytes", f"at most {MAX_ARRAY_BYTES}")
        found: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise not_found(path, "an array (.npy)", hint="see docs/datasets.md for the files of each set") from error
    except _UNREADABLE as error:
        raise invalid(path, f"what numpy cannot read ({error})", "an array without pickle") from error
    return found


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of a `.npz` file by name; its unpacked size is checked first.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_ARRAY_BYTES:
            raise invalid(path, f"arrays of {size} bytes", f"at most {MAX_ARRAY_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise not_found(path, "arrays (.npz)", hint="name a file that is there, see docs/datasets.md") from error
    except _UNREADABLE as error:
        raise invalid(path, f"what numpy cannot read ({error})", "arrays without pickle (.npz)") from error
