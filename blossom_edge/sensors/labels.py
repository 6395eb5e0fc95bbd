"""What is going on right now, told by a person: labels for live sensors, which have none of their own.

`blossom-edge label har=walk` writes the file that a running `join` reads; both mean the same moment by the monotonic
clock of this boot. Never guesses a label: before the first one and after an empty one there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from blossom_edge.core.errors import ConfigError
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Reading, Sensor

FILE = "label.json"
BOOT_ID = "proc/sys/kernel/random/boot_id"
KEEP_S = 1800.0
"""What was said is forgotten after this time, once something newer was said: no sensor delivers samples that old."""


class Label(BaseModel):
    """What is going on since `since_s` (monotonic seconds of the boot `boot`): task -> class name or number as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    since_s: float
    boot: str
    values: dict[str, str]


def boot_id(root: Path) -> str:
    """The kernel's name of this boot; empty where it has none."""
    try:
        return (root / BOOT_ID).read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def parse_labels(words: Sequence[str]) -> dict[str, str]:
    """TASK=CLASS each, a task once; an empty class ends the label.

    Raises:
        ConfigError: `usage`.
    """
    values: dict[str, str] = {}
    for word in words:
        task, equals, value = word.partition("=")
        if not equals or not task:
            raise ConfigError("usage", f"found {word!r}, expected TASK=CLASS", hint="for example har=walk")
        if task.strip() in values:
            found = f"{values[task.strip()]!r} and {value.strip()!r}"
            raise ConfigError("usage", f"task {task.strip()}: found {found}, expected one class", hint="leave one out")
        values[task.strip()] = value.strip()
    return values


def check_labels(values: Mapping[str, str], federation: Federation) -> None:
    """Hold labels against the federation's tasks.

    Raises:
        ConfigError: `usage`: no such task or class, or no number for a regression.
    """
    for name, value in values.items():
        task = federation.tasks.get(name)
        if task is None:
            known = ", ".join(sorted(federation.tasks))
            raise ConfigError("usage", f"label {name}={value}: there is no task {name!r}", hint=f"there are {known}")
        if not value:
            continue
        wrong = set(value.split("+") if task.type == "multilabel" else [value]) - set(task.classes)
        if task.type != "regression" and wrong:
            raise ConfigError(
                "usage",
                f"label {name}={value}: found {', '.join(sorted(wrong))}, expected one of {', '.join(task.classes)}",
            )
        if task.type == "regression" and not _is_number(value):
            raise ConfigError("usage", f"label {name}={value}: found no number, expected a value in {task.unit}")


def keep_label(folder: Path, label: Label) -> None:
    """Write what is going on from now on."""
    make_folder(folder)
    atomic_write(folder / FILE, label.model_dump_json().encode(), name="label")


def read_label(folder: Path) -> Label | None:
    """The label of a device's folder; None where there is none, or none that can be read."""
    try:
        return Label.model_validate(json.loads((folder / FILE).read_text("utf-8")))
    except (OSError, ValueError, ValidationError):
        return None


@dataclass(frozen=True, slots=True)
class _Change:
    since_s: float
    values: Mapping[str, str]


class LabelTrack:
    """What was going on when. Looks into the file of `folder` whenever it is asked; keeps the changes it saw.

    values: the labels from the start on (those of `--label`). A label of an earlier boot is not taken.
    """

    def __init__(
        self, folder: Path, federation: Federation, *, values: Mapping[str, str], now: float, boot: str
    ) -> None:
        check_labels(values, federation)
        self._folder = folder
        self._federation = federation
        self._boot = boot
        self._changes = [_Change(now, dict(values))]
        self._seen: Label | None = read_label(folder) if values else None  # an older one does not replace --label

    def look(self) -> None:
        """Take in what a person said since the last time."""
        label = read_label(self._folder)
        if label is None or label == self._seen:
            return
        self._seen = label
        if label.boot != self._boot:
            return
        try:
            check_labels(label.values, self._federation)
        except ConfigError:
            return  # written for another federation
        since = max(label.since_s, self._changes[-1].since_s)
        self._changes.append(_Change(since, {**self._changes[-1].values, **label.values}))
        while self._changes[1].since_s < since - KEEP_S:
            del self._changes[0]

    def at(self, times: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """The labels at each time, in the form of `Reading.labels`."""
        starts = np.array([change.since_s for change in self._changes])
        place = np.searchsorted(starts, times, side="right") - 1
        result: dict[str, NDArray[Any]] = {}
        for name, task in self._federation.tasks.items():
            words = [change.values.get(name, "") for change in self._changes]
            if not any(words):
                continue
            if task.type == "regression":
                numbers = np.array([float(word) if word else np.nan for word in words] + [np.nan])
                result[name] = numbers[place]
            elif task.type == "multilabel":
                rows = np.array([_set_of(word, task.classes) for word in words] + [_set_of("", task.classes)])
                result[name] = rows[place]
            else:
                result[name] = np.array([*words, ""])[place]
        return result


class LabelledSensor:
    """A live sensor whose samples carry what a person said; labels that its source brings itself stay."""

    def __init__(self, sensor: Sensor, track: LabelTrack) -> None:
        self._sensor = sensor
        self._track = track

    live = True

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self._sensor.channels

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each column."""
        return self._sensor.units

    @property
    def rate_hz(self) -> float:
        """Samples per second of the source in use."""
        return self._sensor.rate_hz

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more."""
        return self._sensor.exhausted

    def open(self) -> None:
        """Open the sensor."""
        self._sensor.open()

    def close(self) -> None:
        """Close the sensor."""
        self._sensor.close()

    def read(self, now: float) -> Sequence[Reading]:
        """The sensor's readings, labelled."""
        readings = self._sensor.read(now)
        if readings:
            self._track.look()
        return [Reading(r.times, r.values, {**self._track.at(r.times), **r.labels}, r.recording) for r in readings]


def _set_of(word: str, classes: Sequence[str]) -> list[float]:
    if not word:
        return [float("nan")] * len(classes)
    chosen = set(word.split("+"))
    return [float(name in chosen) for name in classes]


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
