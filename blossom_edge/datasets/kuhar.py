"""KU-HAR (Sikder and Nahid 2021): 90 people, smartphone at the waist, 18 activities, recordings at 100 Hz.

A recording is cut as FedMultimodal does: of every 256 rows the first 128, of those every second, so a window is 64
samples at 50 Hz. Windows are not brought to mean 0 and spread 1 here; that is the federation's part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.datasets.files import find_below, invalid, not_found, read_numbers

FOLDERS = ("2.Trimmed_interpolated_data", "Trimmed_interpolated_data", "2.Trimmed_raw_data", "1.Raw_time_domian_data")
"""Folders with one folder per activity, as the authors spell them; the first that is there is read."""
COLUMNS = 8
STEP, ROWS, EVERY = 256, 128, 2
RATE_HZ = 100.0 / EVERY
LICENCE = "KU-HAR (Sikder and Nahid 2021, data.mendeley.com/datasets/45f952y38r), CC BY 4.0: cite it"
HINT = "blossom-edge data fetch kuhar"


def read_kuhar(path: Path) -> Dataset:
    """Read a folder with `0.Stand` and its sisters, or one at most two above it; of several, as in `FOLDERS`.

    Columns of a file: ms, acceleration x, y, z (m/s2), ms, rate of turn x, y, z (rad/s); its name is
    PERSON_LETTER_NUMBER.csv, its folder NUMBER.ACTIVITY.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    root = _root(path)
    folders = sorted((folder for folder in root.iterdir() if folder.is_dir()), key=_class_key)
    parts: list[NDArray[np.float32]] = []
    labels: list[int] = []
    subjects: list[int] = []
    for label, folder in enumerate(folders):
        for file in sorted(folder.glob("*.csv")):
            person = file.name.partition("_")[0]
            if not person.isdecimal():
                raise invalid(file, f"the name {file.name!r}", "PERSON_LETTER_NUMBER.csv")
            windows = _windows(read_numbers(file, columns=COLUMNS, delimiter=","))
            parts.append(windows)
            labels += [label] * len(windows)
            subjects += [int(person)] * len(windows)
    if not labels:
        raise not_found(root, f"recordings of at least {ROWS} rows in folders of activities", hint=HINT)
    values = np.concatenate(parts)
    present = np.ones(len(values), dtype=bool)
    modalities = {
        "accel": Signals(np.ascontiguousarray(values[:, :, 1:4]), present, RATE_HZ, _xyz("m/s2")),
        "gyro": Signals(np.ascontiguousarray(values[:, :, 5:8]), present, RATE_HZ, _xyz("rad/s")),
    }
    classes = tuple(folder.name.partition(".")[2] or folder.name for folder in folders)
    numbers = np.array(labels, dtype=np.int64)
    return Dataset("ku-har", modalities, numbers, classes, np.array(subjects, dtype=np.int64), None, LICENCE)


def _root(path: Path) -> Path:
    """The folder of folders of activities; archives differ in whether they have a folder above these."""
    for name in FOLDERS:
        if (path / name).is_dir():
            return path / name
    return find_below(path, "0.Stand", expected=f"a folder with 0.Stand, or one of {', '.join(FOLDERS)}", hint=HINT)


def _class_key(folder: Path) -> tuple[int, str]:
    """`10.Sit-up` after `9.Push-up`."""
    number = folder.name.partition(".")[0]
    return (int(number) if number.isdecimal() else 1000, folder.name)


def _windows(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """(rows, 8) -> (n, 64, 8)."""
    starts = range(0, len(rows) - ROWS + 1, STEP)
    if not starts:
        return np.zeros((0, ROWS // EVERY, COLUMNS), dtype=np.float32)
    return np.stack([rows[start : start + ROWS : EVERY] for start in starts]).astype(np.float32)


def _xyz(unit: str) -> tuple[tuple[str, str], ...]:
    return tuple((letter, unit) for letter in "xyz")
