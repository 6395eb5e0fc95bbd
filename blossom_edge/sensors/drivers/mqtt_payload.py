"""Samples in the payload of an MQTT message: JSON or CSV, as whoever publishes them likes it. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MAX_BYTES = 256 * 1024
"""Longer payloads are not read: no sample of a sensor that can be written as numbers in text is so long."""


class WrongPayload(ValueError):
    """A payload that is not of the format; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One sample. time: as the publisher tells it, in seconds, or None. label: "" for none."""

    time: float | None
    values: tuple[float, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """How a payload is read.

    columns: what the values are called. time: "s" or "ms" of the publisher's time, "none": not read.
    """

    columns: tuple[str, ...]
    kind: Literal["json", "csv"] = "json"
    time: Literal["s", "ms", "none"] = "s"
    label: bool = False

    def read(self, payload: bytes) -> list[Item]:
        """The samples of a payload: one, or as many as a JSON array or the lines of a CSV text hold.

        Raises:
            WrongPayload: nothing of it is used.
        """
        if len(payload) > MAX_BYTES:
            raise WrongPayload(f"found {len(payload)} bytes, expected at most {MAX_BYTES}")
        try:
            text = bytes(payload).decode("utf-8")
        except UnicodeDecodeError:
            raise WrongPayload("it is no text") from None
        if self.kind == "csv":
            return [self._of_line(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise WrongPayload(f"it is no JSON: {error}") from None
        return [self._of_object(part) for part in (found if isinstance(found, list) else [found])]

    def _of_object(self, found: Any) -> Item:
        if not isinstance(found, Mapping):
            raise WrongPayload('expected an object like {"t": 1.5, "values": [0.1]}')
        values = found.get("values")
        if values is None:
            absent = [name for name in self.columns if name not in found]
            if absent:
                raise WrongPayload(f"there is no {absent[0]!r}")
            values = [found[name] for name in self.columns]
        elif not isinstance(values, list):
            raise WrongPayload("values: expected an array")
        label = found.get("label") if self.label else None
        return self._item(found.get("t"), values, "" if label is None else str(label))

    def _of_line(self, line: str) -> Item:
        fields: list[Any] = [field.strip() for field in line.split(",")]
        label = fields.pop() if self.label else ""
        time = fields.pop(0) if self.time != "none" and fields else None
        return self._item(time, fields, label)

    def _item(self, time: Any, values: Sequence[Any], label: str) -> Item:
        if len(values) != len(self.columns):
            raise WrongPayload(f"found {len(values)} values, expected {len(self.columns)}")
        if time is None or self.time == "none":
            seconds = None
        else:
            seconds = _number(time) * (1e-3 if self.time == "ms" else 1.0)
            if not math.isfinite(seconds):
                raise WrongPayload(f"t: found {time!r}, expected a time")
        return Item(seconds, tuple(map(_number, values)), label)


def _number(value: Any) -> float:
    """A number as a float; null is none, thus not a number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        raise WrongPayload(f"found {value!r}, expected a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise WrongPayload(f"found {value!r}, expected a number") from None
