"""Data sets in one `.npz` file: the project's own layout, and some files whose arrays are known by their names.

Own layout (docs/datasets.md): an array (n, time, channels) or (n, time, ..., channels) for each modality, `label`, and

    subject, is_test, class_names, licence         optional
    rate_hz.M, channels.M, unit.M, scale.M, present.M    of modality M; only rate_hz.M is needed

Every other array of fewer than three dimensions is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.names import PLAIN_NAME_PATTERN
from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.datasets.files import invalid, read_npz

Arrays = Mapping[str, NDArray[np.generic]]
XYZ = ("x", "y", "z")


@dataclass(frozen=True, slots=True)
class KnownPart:
    """What a file does not say of an array of it; factor, or the array named scale: brings values to the unit."""

    key: str
    rate_hz: float
    channels: tuple[tuple[str, str], ...]
    scale: str = ""
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file without units and rates, recognised by the arrays that it has."""

    name: str
    needs: frozenset[str]
    parts: Mapping[str, KnownPart]
    licence: str


def _xyz(unit: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, unit) for name in XYZ)


_GYRO = KnownPart("gyro", 50.0, _xyz("rad/s"))
_STANDARD_GRAVITY = 9.80665
KNOWN_FILES = (
    KnownFile(
        "uci-har",
        frozenset(("acc", "gyro", "total_acc", "label", "subject")),
        {"accel": KnownPart("acc", 50.0, _xyz("g")), "gyro": _GYRO},
        "UCI HAR (Anguita et al. 2013): cite it; the authors allow no commercial use",
    ),
    KnownFile(
        "watch",
        frozenset(("acc", "gyro", "side", "recording", "label", "subject")),
        {"accel": KnownPart("acc", 50.0, _xyz("m/s2"), factor=_STANDARD_GRAVITY), "gyro": _GYRO},  # as `har` has it
        "seglearn watch data (Burns et al., arXiv:1802.01489), BSD-3-Clause",
    ),
    KnownFile(
        "stress",
        frozenset(("acc", "acc_scale", "bvp", "bvp_scale", "eda", "temp", "label", "subject")),
        {
            "accel": KnownPart("acc", 32.0, _xyz("g"), scale="acc_scale"),
            "bvp": KnownPart("bvp", 64.0, (("bvp", "/"),), scale="bvp_scale"),
            "eda": KnownPart("eda", 4.0, (("eda", "uS"),)),
            "temp": KnownPart("temp", 4.0, (("temp", "Cel"),)),
        },
        "Stress-Predict (Iqbal et al., Sensors 2022, 22(21):8135), MIT",
    ),
    KnownFile(
        "ecg-motion",
        frozenset(("ecg", "artefact", "electrode", "sample_rate", "label", "subject")),
        {"ecg": KnownPart("ecg", 250.0, (("ecg", "count"),))},
        "ECG under motion (kalouskova/DP), GPL-3.0",
    ),
)


def read_arrays(path: Path) -> Dataset:
    """Read one `.npz` file.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`.
    """
    arrays = read_npz(path)
    for known in KNOWN_FILES:
        if known.needs <= arrays.keys():
            signals = {name: _known_signals(path, part, arrays) for name, part in known.parts.items()}
            return _dataset(path, known.name, signals, arrays, licence=known.licence)
    names = [name for name in arrays if "." not in name and arrays[name].ndim >= 3]
    if not names:
        raise invalid(path, f"the arrays {', '.join(arrays) or 'none'}", "one (n, time, channels) for each modality")
    signals = {name: _own_signals(path, name, arrays) for name in names}
    return _dataset(path, path.stem, signals, arrays, licence=_text(arrays, "licence"))


def _known_signals(path: Path, part: KnownPart, arrays: Arrays) -> Signals:
    factor = float(_number(path, part.scale, arrays)) if part.scale else part.factor
    values = _floats(path, part.key, arrays[part.key], factor)
    if values.ndim != 3 or values.shape[2] != len(part.channels):
        raise invalid(path, f"{part.key} {arrays[part.key].shape}", f"(n, time, {len(part.channels)})")
    return Signals(values, np.ones(len(values), dtype=bool), part.rate_hz, part.channels)


def _own_signals(path: Path, name: str, arrays: Arrays) -> Signals:
    if re.fullmatch(PLAIN_NAME_PATTERN, name) is None:
        raise invalid(path, f"a modality {name!r}", "a name of small letters, digits and dashes")
    if f"rate_hz.{name}" not in arrays:
        raise invalid(
            path, f"no array rate_hz.{name}", f"how many samples of {name} a second has", hint=f"add rate_hz.{name}"
        )
    rate_hz = float(_number(path, f"rate_hz.{name}", arrays))
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise invalid(path, f"rate_hz.{name} {rate_hz:g}", "a number above 0")
    factor = float(_number(path, f"scale.{name}", arrays)) if f"scale.{name}" in arrays else 1.0
    present = arrays.get(f"present.{name}", np.ones(len(arrays[name]), dtype=bool))
    if present.shape != (len(arrays[name]),) or present.dtype != np.bool_:
        raise invalid(path, f"present.{name} {present.dtype} {present.shape}", f"bool ({len(arrays[name])},)")
    here = np.asarray(present, dtype=bool)
    values = _floats(path, name, arrays[name], factor, here)
    if not values.size:
        raise invalid(path, f"{name} {values.shape}", "at least one window, of at least one value")
    width = values.shape[-1]
    names = _texts(path, f"channels.{name}", arrays, tuple(f"c{i}" for i in range(width)), width)
    units = _texts(path, f"unit.{name}", arrays, ("/",) * width, width)
    shape = values.shape[2:-1]
    flat = np.ascontiguousarray(values.reshape(*values.shape[:2], -1))
    return Signals(flat, here, rate_hz, tuple(zip(names, units, strict=True)), shape)


def _dataset(path: Path, name: str, signals: Mapping[str, Signals], arrays: Arrays, *, licence: str) -> Dataset:
    if "label" not in arrays:
        raise invalid(path, "no array label", "label: one class for each window")
    labels, classes = _classes(path, arrays)
    n = len(labels)
    lengths = {name: len(part.values) for name, part in signals.items() if len(part.values) != n}
    if lengths:
        wrong, length = next(iter(lengths.items()))
        raise invalid(path, f"{length} windows of {wrong}", f"{n}, as many as labels")
    subjects = arrays.get("subject", np.full(n, -1, dtype=np.int64))
    if subjects.shape != (n,) or subjects.dtype.kind not in "iu":
        raise invalid(path, f"subject {subjects.dtype} {subjects.shape}", f"whole numbers ({n},)")
    is_test = arrays.get("is_test")
    if is_test is not None and (is_test.shape != (n,) or is_test.dtype != np.bool_):
        raise invalid(path, f"is_test {is_test.dtype} {is_test.shape}", f"bool ({n},)")
    return Dataset(
        name,
        signals,
        labels,
        classes,
        np.asarray(subjects).astype(np.int64),
        None if is_test is None else np.asarray(is_test, dtype=bool),
        licence,
    )


def _classes(path: Path, arrays: Arrays) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as indexes; labels that are words are sorted, unless `class_names` gives their order."""
    label = arrays["label"]
    if label.ndim != 1 or label.dtype.kind not in "iuU" or not len(label):
        raise invalid(path, f"label {label.dtype} {label.shape}", "(n,) whole numbers or words, n above 0")
    given = tuple(str(name) for name in np.atleast_1d(arrays["class_names"])) if "class_names" in arrays else None
    if label.dtype.kind == "U":
        words = given or tuple(sorted({str(word) for word in label}))
        index = {word: i for i, word in enumerate(words)}
        unknown = sorted({str(word) for word in label} - index.keys())
        if unknown:
            raise invalid(path, f"the label {unknown[0]!r}", f"one of {', '.join(words)}")
        return np.array([index[str(word)] for word in label], dtype=np.int64), words
    labels = np.asarray(label).astype(np.int64)
    count = len(given) if given is not None else int(labels.max(initial=-1)) + 1
    if len(labels) and not (labels.min() >= 0 and labels.max() < count <= 1000):
        raise invalid(path, f"labels {labels.min()} to {labels.max()}", f"0 to {min(count, 1000) - 1}")
    return labels, given if given is not None else tuple(str(i) for i in range(count))


def _floats(
    path: Path, name: str, array: NDArray[np.generic], factor: float, present: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """float32 times the factor; what is not present becomes zeros."""
    if array.dtype.kind not in "fiu" or 0 in array.shape[1:]:
        raise invalid(path, f"{name} {array.dtype} {array.shape}", "numbers")
    values = np.array(array, dtype=np.float32)
    if present is not None:
        values[~present] = 0.0
    if factor != 1.0:
        values *= np.float32(factor)
    if not np.isfinite(values).all():
        raise invalid(path, f"{name} with values that are not finite", "numbers", hint="use present.M for what is lost")
    return values


def _number(path: Path, name: str, arrays: Arrays) -> float:
    array = arrays[name]
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise invalid(path, f"{name} {array.dtype} {array.shape}", "one number")
    return float(array.reshape(-1)[0])


def _texts(path: Path, name: str, arrays: Arrays, default: tuple[str, ...], count: int) -> tuple[str, ...]:
    """As many words as channels; one word stands for all."""
    if name not in arrays:
        return default
    words = tuple(str(word) for word in np.atleast_1d(arrays[name]))
    if arrays[name].dtype.kind != "U" or len(words) not in (1, count):
        raise invalid(path, f"{name} with {len(words)} entries", f"{count} words")
    return words if len(words) == count else words * count


def _text(arrays: Arrays, name: str) -> str:
    return " ".join(str(arrays[name]).split())[:200] if name in arrays and arrays[name].dtype.kind == "U" else ""
