"""The format of a profile. Sensors and modalities stand apart: one IMU is one sensor and feeds two modalities.

Units are SenML symbols (RFC 8428, section 12.1); "/" is a ratio, for example of digital full scale.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Unit = Literal[
    "m/s2", "rad/s", "rad", "T", "V", "A", "S", "Cel", "Pa", "%RH", "lx", "Hz", "s", "m", "m/s", "dB", "count", "/"
]
UNITS: tuple[str, ...] = get_args(Unit)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
"""Names of sensors and modalities: they become parts of block names, so no dot and no underscore."""
ChannelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]
DriverName = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,30}|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")]
"""A driver that is known by name, or `module:Class` for one of your own."""
ProfileId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,50}$")]
Rate = Annotated[float, Field(gt=0, le=1_000_000, strict=True)]
Samples = Annotated[int, Field(gt=0, le=1_000_000, strict=True)]
Real = Annotated[float, Field(strict=True)]

MAX_SAMPLE_VALUES = 1_000_000
"""A sample of all channels of a framed sensor has at most this many values."""

Tier = Literal["proved", "datasheet"]
TIERS: dict[str, str] = {
    "proved": "tested without its board: fake hardware, recorded traces, in CI",
    "datasheet": "never run on a board; written from data sheets and drivers",
}
"""How far a shipped profile is tested, in words. Profiles of one's own have no tier."""

KeyPath = tuple[str | int, ...]
"""Where a value stands in a table of tables."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ProfileChannel(_Table):
    """One column of a sensor: its unit and the range it can measure, in that unit."""

    name: ChannelName
    unit: Unit
    range: tuple[Real, Real]


class Source(BaseModel):
    """One way to read a sensor. Keys beyond these two are the driver's own and checked by it."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    driver: DriverName
    rate_hz: Rate

    @property
    def options(self) -> dict[str, Any]:
        """The driver's own keys."""
        return dict(self.model_extra or {})


class ProfileSensor(_Table):
    """A piece of hardware: what it yields, and the sources that are tried in this order."""

    channels: Annotated[tuple[ProfileChannel, ...], Field(min_length=1, max_length=64)]
    sources: Annotated[tuple[Source, ...], Field(min_length=1, max_length=16)]
    shape: Annotated[tuple[Samples, ...], Field(max_length=3)] = ()
    """Of one sample of one channel: () for a number, (96, 96) for an image, (40,) for a spectrum."""


class ProfileModality(_Table):
    """Channels of one sensor, cut into windows of `window` samples every `hop` samples at `rate_hz`.

    `resample` in `preprocess` lets the device bring the signal to the federation's rate (low-pass or interpolation).
    """

    sensor: Name
    channels: Annotated[tuple[ChannelName, ...], Field(min_length=1, max_length=64)]
    rate_hz: Rate
    window: Samples
    hop: Samples
    preprocess: tuple[Literal["resample"], ...] = ()


class Hardware(_Table):
    """The board, for people and for later detection. `match` are values of /proc/device-tree/compatible."""

    board: str = "any"
    match: tuple[str, ...] = ()
    arch: Literal["aarch64", "x86_64", "any"] = "any"
    ram_mb: Annotated[int, Field(gt=0, strict=True)] = 1024


class Compute(_Table):
    """What the board does with the model. `threads` unset: as many as there are cores, less one."""

    role: Literal["train", "personalize", "infer"] = "train"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(gt=0, le=1024, strict=True)] | None = None


class Limits(_Table):
    """What the work may take from the board; unset means no limit of ours."""

    memory_mb: Annotated[int, Field(gt=0, strict=True)] | None = None
    max_temp_c: Annotated[float, Field(gt=0, le=120, strict=True)] | None = None
    train_nice: Annotated[int, Field(ge=0, le=19, strict=True)] | None = None
    upload_kbps: Annotated[int, Field(gt=0, strict=True)] | None = None
    min_battery_percent: Annotated[int, Field(ge=0, le=100, strict=True)] | None = None
    """Below it, and without mains, nothing is trained; unset: 20."""


class Transport(_Table):
    """How the board keeps its link. Addresses, names and passwords never stand in a profile."""

    keepalive_s: Annotated[int, Field(ge=5, le=3600, strict=True)] = 30


class Profile(_Table):
    """What a type of device is."""

    schema_: Literal[1] = Field(alias="schema")
    id: ProfileId
    title: Annotated[str, Field(min_length=1, max_length=200)]
    extends: str | None = None
    tier: Tier | None = None
    """Of a shipped profile only, and its own: a child does not inherit it."""
    hardware: Hardware = Hardware()
    compute: Compute = Compute()
    limits: Limits = Limits()
    transport: Transport = Transport()
    sensors: Annotated[dict[Name, ProfileSensor], Field(min_length=1)]
    modalities: Annotated[dict[Name, ProfileModality], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_parts_fit(self) -> Profile:
        found = [f"{'.'.join(map(str, path))}: {what}" for path, what in contradictions(self.to_dict())]
        if found:
            raise ValueError("; ".join(found))
        return self

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain values, resolved: what a TOML file without `extends` would say."""
        table: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude={"extends"}, exclude_none=True)
        for sensor in table["sensors"].values():
            if not sensor["shape"]:  # a profile of before shapes keeps its digest
                del sensor["shape"]
        return table

    @property
    def digest(self) -> str:
        """SHA-256 of all values but the tier: two boards with the same digest are of one type."""
        values = {key: value for key, value in self.to_dict().items() if key != "tier"}
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def contradictions(profile: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What no single key shows: (path, what) for parts that do not fit each other.

    Takes a raw table and passes over what has the wrong type, which the models report themselves.
    """
    sensors, modalities = _table(profile, "sensors"), _table(profile, "modalities")
    for name, sensor in sensors.items():
        channels, shape = _rows(sensor, "channels"), _items(sensor, "shape")
        if shape and all(isinstance(size, int) for size in shape):
            width = math.prod(shape) * len(channels)
            if width > MAX_SAMPLE_VALUES:
                yield (
                    ("sensors", name, "shape"),
                    f"found {width} values in a sample, expected at most {MAX_SAMPLE_VALUES}",
                )
        names = [c.get("name") for c in channels]
        for index, channel in enumerate(channels):
            if channel.get("name") is not None and channel["name"] in names[:index]:
                yield ("sensors", name, "channels", index, "name"), f"a second channel {channel['name']!r}"
            limits = channel.get("range")
            if isinstance(limits, list | tuple) and len(limits) == 2 and all(map(_number, limits)):
                low, high = limits
                if low >= high:
                    yield (
                        ("sensors", name, "channels", index, "range"),
                        f"found [{low}, {high}], expected the lower end first",
                    )
    for name, modality in modalities.items():
        if isinstance(modality, Mapping):
            yield from _modality_contradictions(name, modality, sensors)


def _modality_contradictions(
    name: str, modality: Mapping[str, Any], sensors: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, str]]:
    path: KeyPath = ("modalities", name)
    hop, window = modality.get("hop"), modality.get("window")
    if isinstance(hop, int) and isinstance(window, int) and hop > window:
        yield (*path, "hop"), f"hop {hop} is longer than window {window}, samples would be lost"
    sensor = modality.get("sensor")
    if not isinstance(sensor, str):
        return
    if sensor not in sensors:
        yield (*path, "sensor"), f"there is no sensor {sensor!r} here, only {', '.join(sorted(sensors)) or 'none'}"
        return
    have = [c.get("name") for c in _rows(sensors[sensor], "channels")]
    wanted = _items(modality, "channels")
    for index, channel in enumerate(wanted):
        if channel not in have:
            yield (
                (*path, "channels", index),
                f"sensor {sensor!r} has no channel {channel!r}, only {', '.join(map(str, have))}",
            )
        elif channel in wanted[:index]:
            yield (*path, "channels", index), f"channel {channel!r} stands here twice"
    if _items(sensors[sensor], "shape") and wanted != have and all(c in have for c in wanted):
        yield (
            (*path, "channels"),
            f"found {', '.join(map(str, wanted))}, expected all channels of sensor {sensor!r} in its order, "
            f"because its samples have a shape: {', '.join(map(str, have))}",
        )
    rate, steps = modality.get("rate_hz"), _items(modality, "preprocess")
    for source in _rows(sensors[sensor], "sources"):
        given = source.get("rate_hz")
        if _number(rate) and _number(given) and given != rate and "resample" not in steps:
            yield (
                (*path, "rate_hz"),
                f"found {rate:g} Hz, but source {source.get('driver')!r} of sensor {sensor!r} gives {given:g} Hz: "
                'add preprocess = ["resample"]',
            )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _table(parent: object, key: str) -> Mapping[str, Any]:
    value = parent.get(key) if isinstance(parent, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _items(parent: object, key: str) -> list[Any]:
    value = parent.get(key) if isinstance(parent, Mapping) else None
    return list(value) if isinstance(value, list | tuple) else []


def _rows(parent: object, key: str) -> list[Mapping[str, Any]]:
    return [row if isinstance(row, Mapping) else {} for row in _items(parent, key)]
