"""One person's recordings as a file: npz (arrays only, never pickled objects) or CSV with units in its header.

An npz holds: `format` ("blossom-recording/1"); per task `labels/TASK`, its class names, or an empty array for numbers;
per stream (channels of one rate) `streams/STREAM/channels`, `.../units`, `.../rate_hz`, and for images and spectra
`.../shape`, that of one sample of one channel; and per recording of it `streams/STREAM/NNNN/values` (n, channel), or
with a shape (n, product of it x channels) with the channel running fastest, `.../start_s`, `.../labels/TASK`: one value
for all or (n,) values, class indices with -1 or numbers with NaN where there is none.

A CSV is one recording of single numbers: `time [s],ax [m/s2],...,label:har`; class names or nothing stand in a label
column, numbers in one with a unit, `label:speed [m/s]`. A folder holds `person.npz`, or CSV files, taken in the order
of their names.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError
from blossom_edge.durable import atomic_write
from blossom_edge.sensors.csv_recordings import read_csv

FORMAT = "blossom-recording/1"
PERSON_FILE = "person.npz"
MAX_FILE_BYTES = 1 << 30
"""A larger file is refused before it is opened."""


@dataclass(frozen=True, slots=True)
class Track:
    """One recording of one stream: values (n, width) float32, labels task -> (n,) int64 or float32."""

    start_s: float
    values: NDArray[np.float32]
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """Channels that were sampled together; `tracks` by number of the recording.

    shape: of one sample of one channel, () for a number. The width of the values is its product times the channels.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    tracks: Mapping[int, Track]
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """All recordings of one person. `label_names`: task -> class names, empty for a task with numbers."""

    source: str
    streams: Mapping[str, Stream]
    label_names: Mapping[str, tuple[str, ...]]


def read_recording(path: Path) -> Recording:
    """Read a person's file or folder.

    Raises:
        ConfigError: `replay-invalid`, naming file, key, what was found and what was expected.
    """
    if path.is_dir():
        if (path / PERSON_FILE).is_file():
            return _read_npz(path / PERSON_FILE)
        files = sorted(path.glob("*.csv"))
        if files:
            return _read_csvs(files, str(path))
        people = _people(path)
        hint = f"name one of them: {', '.join(people)}" if people else "`blossom-edge data sample people/` makes some"
        raise invalid(f"{path}: found neither {PERSON_FILE} nor a .csv file in it", hint=hint)
    if not path.is_file():
        people = _people(path.parent)
        hint = f"there are {', '.join(people)}" if people else "`blossom-edge data sample people/` makes some"
        raise invalid(f"there is no recording {path}", hint=hint)
    if path.suffix == ".csv":
        return _read_csvs([path], str(path))
    return _read_npz(path)


def write_recording(path: Path, recording: Recording) -> None:
    """Write a person's npz whole or not at all; equal recordings give equal bytes."""
    arrays: dict[str, NDArray[Any]] = {"format": np.array(FORMAT)}
    for task, names in recording.label_names.items():
        arrays[f"labels/{task}"] = np.array(names, dtype=str)
    for name, stream in recording.streams.items():
        prefix = f"streams/{name}"
        arrays[f"{prefix}/channels"] = np.array(stream.channels)
        arrays[f"{prefix}/units"] = np.array(stream.units)
        arrays[f"{prefix}/rate_hz"] = np.array(stream.rate_hz, dtype=np.float64)
        if stream.shape:
            arrays[f"{prefix}/shape"] = np.array(stream.shape, dtype=np.int64)
        for number, track in stream.tracks.items():
            arrays[f"{prefix}/{number:04d}/values"] = np.ascontiguousarray(track.values, dtype=np.float32)
            arrays[f"{prefix}/{number:04d}/start_s"] = np.array(track.start_s, dtype=np.float64)
            for task, labels in track.labels.items():
                constant = len(labels) > 0 and bool((labels == labels[0]).all())
                arrays[f"{prefix}/{number:04d}/labels/{task}"] = labels[0] if constant else labels
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes a key for its own option
    atomic_write(path, buffer.getvalue(), name="recording", mode=0o644)


def invalid(message: str, *, hint: str = "") -> ConfigError:
    """The error of everything that is wrong with a recording."""
    return ConfigError("replay-invalid", message, hint=hint)


def _people(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    have = [p.name for p in folder.iterdir() if p.suffix in {".npz", ".csv"} or (p.is_dir() and any(p.glob("*.npz")))]
    return sorted(have, key=lambda name: (len(name), name))[:40]


def _read_npz(path: Path) -> Recording:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise invalid(f"{path}: found {size} bytes, expected at most {MAX_FILE_BYTES}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise invalid(f"{path}: is no npz of plain arrays: {error}") from error
    except AttributeError as error:  # numpy gives an .npy file as a bare array
        raise invalid(f"{path}: found a single array, expected an npz with named arrays") from error
    return _Archive(str(path), arrays).recording()


class _Archive:
    """The arrays of one npz and the checks on them."""

    def __init__(self, source: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._source = source
        self._arrays = arrays

    def recording(self) -> Recording:
        found = self._arrays.get("format")
        if found is None or str(found) != FORMAT:
            shown = "no such key" if found is None else repr(str(found))[:40]
            raise invalid(f"{self._source}: format: found {shown}, expected {FORMAT!r}")
        label_names = {
            key.removeprefix("labels/"): self._words(key) for key in self._arrays if key.startswith("labels/")
        }
        names = sorted({key.split("/")[1] for key in self._arrays if key.startswith("streams/")})
        if not names:
            raise invalid(f"{self._source}: streams: found none, expected one at least")
        return Recording(self._source, {name: self._stream(name, label_names) for name in names}, label_names)

    def _stream(self, name: str, label_names: Mapping[str, tuple[str, ...]]) -> Stream:
        prefix = f"streams/{name}"
        channels, units = self._words(f"{prefix}/channels"), self._words(f"{prefix}/units")
        if len(units) != len(channels) or not all(units):
            raise invalid(
                f"{self._source}: {prefix}/units: found {len([u for u in units if u])} units, "
                f"expected one for each of {', '.join(channels)}"
            )
        rate = float(self._number(f"{prefix}/rate_hz"))
        if not 0 < rate <= 1e6:
            raise invalid(f"{self._source}: {prefix}/rate_hz: found {rate:g}, expected samples per second")
        shape = self._shape(f"{prefix}/shape")
        numbers = sorted(
            {key.split("/")[2] for key in self._arrays if key.startswith(f"{prefix}/") and "/values" in key}
        )
        tracks: dict[int, Track] = {}
        for number in numbers:
            if not number.isdecimal():
                raise invalid(f"{self._source}: {prefix}/{number}: expected the number of a recording, such as 0000")
            tracks[int(number)] = self._track(f"{prefix}/{number}", channels, shape, label_names)
        if not tracks:
            raise invalid(f"{self._source}: {prefix}: found no recording, expected {prefix}/0000/values")
        return Stream(channels, units, rate, tracks, shape)

    def _shape(self, key: str) -> tuple[int, ...]:
        """That of one sample of one channel; a file without the key holds single numbers."""
        if key not in self._arrays:
            return ()
        found = self._array(key)
        whole = found.ndim == 1 and found.size <= 3 and found.dtype.kind in "iu"
        if not whole or (found.size and found.min() < 1):
            raise invalid(f"{self._source}: {key}: found {found.tolist()}, expected up to three sizes from 1 on")
        return tuple(int(size) for size in found)

    def _track(
        self,
        prefix: str,
        channels: tuple[str, ...],
        shape: tuple[int, ...],
        label_names: Mapping[str, tuple[str, ...]],
    ) -> Track:
        values = self._array(f"{prefix}/values")
        width = math.prod(shape) * len(channels)
        if values.ndim != 2 or values.shape[1] != width or values.dtype.kind not in "fiu":
            of = f" of shape {list(shape)}" if shape else ""
            raise invalid(
                f"{self._source}: {prefix}/values: found {values.dtype} {list(values.shape)}, "
                f"expected numbers [samples, {width}] for {', '.join(channels)}{of}"
            )
        check_not_all_nan(self._source, f"{prefix}/values", values, channels)
        labels: dict[str, NDArray[Any]] = {}
        for task, names in label_names.items():
            key = f"{prefix}/labels/{task}"
            if key in self._arrays:
                labels[task] = self._labels(key, len(values), names)
        start_s = float(self._number(f"{prefix}/start_s")) if f"{prefix}/start_s" in self._arrays else 0.0
        return Track(start_s, values.astype(np.float32), labels)

    def _labels(self, key: str, count: int, names: tuple[str, ...]) -> NDArray[Any]:
        labels = self._array(key)
        if labels.shape not in {(), (count,)} or labels.dtype.kind not in ("iu" if names else "fiu"):
            expected = "class indices" if names else "numbers"
            raise invalid(
                f"{self._source}: {key}: found {labels.dtype} {list(labels.shape)}, expected one or {count} {expected}"
            )
        if names and labels.size and (labels.min() < -1 or labels.max() >= len(names)):
            raise invalid(
                f"{self._source}: {key}: found {labels.min()} to {labels.max()}, expected -1 to {len(names) - 1}"
            )
        kind = np.int64 if names else np.float32
        result: NDArray[Any] = np.broadcast_to(labels.astype(kind), (count,)).copy()
        return result

    def _array(self, key: str) -> NDArray[Any]:
        if key not in self._arrays:
            raise invalid(f"{self._source}: {key}: is missing")
        return self._arrays[key]

    def _words(self, key: str) -> tuple[str, ...]:
        array = self._array(key)
        if array.size and array.dtype.kind != "U":
            raise invalid(f"{self._source}: {key}: found {array.dtype}, expected text")
        return tuple(str(word) for word in array.ravel())

    def _number(self, key: str) -> NDArray[Any]:
        array = self._array(key)
        if array.shape != () or array.dtype.kind not in "fiu":
            raise invalid(f"{self._source}: {key}: found {array.dtype} {list(array.shape)}, expected one number")
        return array


def check_not_all_nan(source: str, key: str, values: NDArray[Any], channels: tuple[str, ...]) -> None:
    """Refuse a channel without a single finite value; values (n, width), the channel running fastest.

    Raises:
        ConfigError: `replay-invalid`.
    """
    if not len(values):
        return
    finite = np.isfinite(values).any(axis=0).reshape(-1, len(channels)).any(axis=0)
    dead = [name for name, alive in zip(channels, finite, strict=True) if not alive]
    if dead:
        raise invalid(f"{source}: {key}: found no finite value of {', '.join(dead)}, expected measurements")


def _read_csvs(files: list[Path], source: str) -> Recording:
    tracks: dict[int, Track] = {}
    names: dict[str, list[str]] = {}
    first = None
    for number, file in enumerate(files):
        table = read_csv(file)
        if first is None:
            first = table
        elif (table.channels, table.units, table.label_units) != (first.channels, first.units, first.label_units):
            raise invalid(f"{file}: its header differs from that of {files[0].name}, expected the same columns")
        elif abs(table.rate_hz / first.rate_hz - 1) > 0.02:
            raise invalid(
                f"{file}: found {table.rate_hz:.4g} Hz, expected {first.rate_hz:.4g} Hz as in {files[0].name}"
            )
        check_not_all_nan(str(file), "values", table.values, table.channels)
        labels: dict[str, NDArray[Any]] = dict(table.numbers)
        for task, words in table.words.items():
            known = names.setdefault(task, [])
            known += [word for word in dict.fromkeys(words) if word and word not in known]
            index = {word: i for i, word in enumerate(known)} | {"": -1}
            labels[task] = np.array([index[word] for word in words], dtype=np.int64)
        tracks[number] = Track(table.start_s, table.values, labels)
    if first is None:
        raise invalid(f"{source}: found no .csv file")
    stream = Stream(first.channels, first.units, first.rate_hz, tracks)
    label_names = {task: tuple(words) for task, words in names.items()} | dict.fromkeys(first.numbers, ())
    return Recording(source, {"csv": stream}, label_names)
