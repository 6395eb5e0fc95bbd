"""UCI HAR (Anguita et al. 2013): 30 people, smartphone at the waist, six activities, 128 samples at 50 Hz.

Read are `body_acc` (without gravity, g) and `body_gyro` (rad/s), as the paper does, from the folder "UCI HAR Dataset".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.datasets.files import find_below, invalid, read_numbers, read_text

WINDOW, RATE_HZ = 128, 50.0
PARTS = ("train", "test")
SIGNALS = {"accel": ("body_acc", "g"), "gyro": ("body_gyro", "rad/s")}
LICENCE = "UCI HAR (Anguita et al. 2013), CC BY 4.0 at UCI; its README allows no commercial use: cite it"


def read_ucihar(path: Path) -> Dataset:
    """Read the folder as it is unpacked; `path` may be a folder above it.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    root = find_below(
        path, "train/y_train.txt", expected='the folder "UCI HAR Dataset"', hint="blossom-edge data fetch ucihar"
    )
    classes, index = _classes(root / "activity_labels.txt")
    labels: list[NDArray[np.int64]] = []
    subjects: list[NDArray[np.int64]] = []
    for part in PARTS:
        file = root / part / f"y_{part}.txt"
        numbers = _whole(file)
        unknown = sorted(set(numbers.tolist()) - index.keys())
        if unknown:
            raise invalid(file, f"the activity {unknown[0]}", f"one of {', '.join(map(str, index))}")
        labels.append(np.array([index[number] for number in numbers.tolist()], dtype=np.int64))
        subjects.append(_whole(root / part / f"subject_{part}.txt"))
        if len(subjects[-1]) != len(labels[-1]):
            raise invalid(
                root / part / f"subject_{part}.txt",
                f"{len(subjects[-1])} lines",
                f"{len(labels[-1])} as in {file.name}",
            )
    counts = {part: len(found) for part, found in zip(PARTS, labels, strict=True)}
    modalities = {name: _signals(root, stem, unit, counts) for name, (stem, unit) in SIGNALS.items()}
    is_test = np.repeat([False, True], list(counts.values()))
    return Dataset("uci-har", modalities, np.concatenate(labels), classes, np.concatenate(subjects), is_test, LICENCE)


def _classes(path: Path) -> tuple[tuple[str, ...], dict[int, int]]:
    """The names, and number in the files -> index."""
    names: dict[int, str] = {}
    for line in read_text(path).splitlines():
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[0].isdecimal():
            raise invalid(path, repr(line[:40]), "lines like '1 WALKING'")
        names[int(fields[0])] = fields[1]
    return tuple(names[number] for number in sorted(names)), {number: i for i, number in enumerate(sorted(names))}


def _whole(path: Path) -> NDArray[np.int64]:
    return read_numbers(path, columns=1)[:, 0].astype(np.int64)


def _signals(root: Path, stem: str, unit: str, counts: dict[str, int]) -> Signals:
    values = np.empty((sum(counts.values()), WINDOW, 3), dtype=np.float32)
    start = 0
    for part, count in counts.items():
        for axis, letter in enumerate("xyz"):
            path = root / part / "Inertial Signals" / f"{stem}_{letter}_{part}.txt"
            rows = read_numbers(path, columns=WINDOW)
            if len(rows) != count:
                raise invalid(path, f"{len(rows)} windows", f"{count} as in y_{part}.txt")
            values[start : start + count, :, axis] = rows
        start += count
    channels = tuple((letter, unit) for letter in "xyz")
    return Signals(values, np.ones(len(values), dtype=bool), RATE_HZ, channels)
