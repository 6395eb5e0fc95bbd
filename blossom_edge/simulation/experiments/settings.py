"""The file of an experiment: what is compared, on which data, how often. Reads the TOML; opens no data set.

schema = 1
name = "har-small"
data = ["ucihar.npz"]
federation = "har"
mixes = ["3-3-4"]
splits = ["iid", "dirichlet:0.5"]
modes = ["local", "full", "private-head-fusion", "dual"]
seeds = 5
rounds = 60
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from blossom_edge.core.errors import ConfigError
from blossom_edge.core.names import PLAIN_NAME_PATTERN
from blossom_edge.federation.problems import explain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_BYTES = 1 << 20
VISIBILITIES = ("full", "private-head", "private-head-fusion", "private-encoders", "dual", "cohort-head-fusion")
BASELINES = ("local", "majority", "centralised")
"""Modes without a federation: each alone, own most frequent label, all windows in one place."""
DEFAULT_MODES = ("majority", "local", "full", "private-head", "private-head-fusion", "dual", "centralised")
"""Where a file names none: dual, and all that it has to be compared with."""
MIX = re.compile(r"\d{1,3}(-\d{1,3})+")
SPLIT = re.compile(r"iid|by-subject|dirichlet:\d+(\.\d+)?")

Name = Annotated[str, StringConstraints(pattern=PLAIN_NAME_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Sets = Annotated[tuple[Text, ...], Field(strict=False, max_length=100)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Behaviour(_Part):
    """What some clients do that others do not: `count` drawn by the seed, or those with these numbers (from 0).

    attack: `sign-flip` sends -strength times the delta, `noise` normal noise with strength times the size of the delta,
    `label-flip` learns class C-1-y for y, `none` only leaves the client out of the scores, to compare with. Who attacks
    is not scored. join_round: takes part from this round on; after the last one it never trains and is only scored.
    gain, lose: a modality that delivers only from round `at_round` on, or until before it.
    """

    attack: Literal["", "none", "sign-flip", "noise", "label-flip"] = ""
    strength: Annotated[float, Field(gt=0.0, le=1e6)] = 10.0
    count: Annotated[int, Field(ge=0, le=1000)] = 0
    clients: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)] = ()
    join_round: Annotated[int, Field(ge=1)] = 1
    gain: str = ""
    lose: str = ""
    at_round: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _check(self) -> Behaviour:
        if bool(self.count) == bool(self.clients):
            raise ValueError("found count and clients both or neither, expected one: how many, or which")
        if self.gain and self.gain == self.lose:
            raise ValueError(f"found {self.gain} in gain and in lose, expected one of them")
        return self


Behaviours = Annotated[tuple[Behaviour, ...], Field(strict=False, max_length=20)]


class Mode(_Part):
    """A way to learn: a preset of visibility or a baseline, with further settings of the federation.

    reference: the mode of this file that it is held against, seed by seed and device by device.
    """

    visibility: str
    set: Sets = ()
    behaviours: Behaviours = ()
    reference: str = ""

    @field_validator("visibility")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in VISIBILITIES + BASELINES:
            raise ValueError(f"found {value!r}, expected one of {', '.join(VISIBILITIES + BASELINES)}")
        return value


class Source(_Part):
    """A data set by the name that tables show; `federation` and `set` go before those of the file."""

    source: Text
    federation: str = ""
    set: Sets = ()


class Settings(_Part):
    """A whole experiment: every combination of data, mix, split, windows, mode and seed is one run.

    windows: of one client, training and test together; 0: all. unseen: so many people, or these, are kept apart.
    standardise: `pooled` takes mean and spread of each channel from the training windows of all clients, what
    `normalise = "agreed"` finds too; `none` leaves the federation's. Mixes: `3-3-4` (two modalities, by name: three
    clients with the first, three with the second, four with both) or a table [mixes.NAME] of `"accel,gyro" = 4`.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    data: Annotated[dict[str, Source], Field(min_length=1)]
    federation: str = ""
    set: Sets = ()
    mixes: Annotated[dict[str, dict[str, Annotated[int, Field(ge=1, le=1000)]] | None], Field(min_length=1)]
    splits: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("iid",)
    windows: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)] = (0,)
    modes: Annotated[dict[str, Mode], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=1 << 31)], ...], Field(strict=False, min_length=1)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    clients: Annotated[int, Field(ge=1, le=1000)] = 10
    holdout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    unseen: int | Annotated[tuple[int, ...], Field(strict=False)] = 0
    standardise: Literal["pooled", "none"] = "pooled"
    behaviours: Behaviours = ()

    @field_validator("splits")
    @classmethod
    def _splits(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for text in values:
            if not SPLIT.fullmatch(text) or (":" in text and float(text.partition(":")[2]) <= 0):
                raise ValueError(f"found {text!r}, expected iid, by-subject or dirichlet:ALPHA such as dirichlet:0.5")
        return values

    @model_validator(mode="after")
    def _check(self) -> Settings:
        for name, source in self.data.items():
            if not (source.federation or self.federation):
                raise ValueError(f"data {name} has no federation, expected the name of a preset or a file")
        for name, table in self.mixes.items():
            total = sum(table.values()) if table is not None else sum(map(int, name.split("-")))
            if total != self.clients:
                raise ValueError(f"mix {name} has {total} clients, expected clients = {self.clients}")
        for name, mode in self.modes.items():
            if mode.reference and (mode.reference == name or mode.reference not in self.modes):
                others = ", ".join(sorted(set(self.modes) - {name}))
                raise ValueError(f"modes.{name}.reference: found {mode.reference!r}, expected one of {others}")
        for label, values in (("splits", self.splits), ("windows", self.windows), ("seeds", self.seeds)):
            if len(set(values)) != len(values):
                raise ValueError(f"{label} has a value twice")
        return self

    def to_dict(self) -> dict[str, Any]:
        """All keys with their values, ready for JSON; `parse` reads it back."""
        return self.model_dump(mode="json", by_alias=True)


def load_settings(path: Path) -> Settings:
    """Read the file of an experiment.

    Raises:
        ConfigError: `experiment-invalid`; no such file, no TOML, or a rule is broken, with the key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError("experiment-invalid", f"{path}: more than {MAX_FILE_BYTES} bytes, expected a TOML file")
        values = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigError("experiment-invalid", f"{path}: {error.strerror or error}", hint="give a .toml") from None
    except UnicodeDecodeError as error:
        raise ConfigError("experiment-invalid", f"{path}: byte {error.start} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("experiment-invalid", f"{path}: not TOML: {error}") from None
    settings = parse(values, source=str(path))
    beside = {
        name: one.model_copy(update={"federation": _beside(path, one.federation)})
        for name, one in settings.data.items()
    }
    return settings.model_copy(update={"federation": _beside(path, settings.federation), "data": beside})


def _beside(path: Path, federation: str) -> str:
    """A federation's file, relative to that of the experiment; a preset's name stays as it is."""
    is_file = federation.endswith(".toml") or "/" in federation
    return str((path.parent / Path(federation).expanduser()).resolve()) if is_file else federation


def parse(values: Mapping[str, Any], *, source: str = "experiment") -> Settings:
    """Check the values of a file; short forms (lists of names, a number of seeds) are written out.

    Raises:
        ConfigError: `experiment-invalid`, with every rule that is broken.
    """
    full = json.loads(json.dumps(dict(values), default=str))
    try:
        _write_out(full)
        return Settings.model_validate(full)
    except ValidationError as error:
        message = f"{source}: {explain(error, Settings, full)}"
    except ValueError as error:
        message = f"{source}: {error}"
    raise ConfigError("experiment-invalid", message, hint="docs/experiments.md lists the keys")


def _write_out(values: dict[str, Any]) -> None:
    if isinstance(data := values.get("data"), list):
        named = [(_short_name(source), {"source": source}) for source in data if isinstance(source, str)]
        if len(dict(named)) != len(data):
            raise ValueError(
                "data: found two sources of one name, or no text; expected a table [data.NAME] with source"
            )
        values["data"] = dict(named)
    if isinstance(modes := values.setdefault("modes", list(DEFAULT_MODES)), list):
        _no_twice("modes", modes)
        values["modes"] = {str(mode): {"visibility": mode} for mode in modes}
    if isinstance(mixes := values.get("mixes"), list):
        _no_twice("mixes", mixes)
        for mix in mixes:
            if not isinstance(mix, str) or not MIX.fullmatch(mix):
                raise ValueError(f"mixes: found {mix!r}, expected one such as 3-3-4, or a table [mixes.NAME]")
        values["mixes"] = dict.fromkeys(mixes)
    if isinstance(modes := values.get("modes"), dict):
        for name, mode in modes.items():
            if isinstance(mode, dict):
                mode.setdefault("visibility", name)
    if isinstance(seeds := values.get("seeds"), int) and not isinstance(seeds, bool):
        values["seeds"] = list(range(seeds))


def _no_twice(key: str, values: list[Any]) -> None:
    if len({str(value) for value in values}) != len(values):
        raise ValueError(f"{key}: found a name twice")


def _short_name(source: str) -> str:
    """`ucihar:FOLDER` -> ucihar; `FOLDER/watch.npz` -> watch."""
    name, colon, _ = source.partition(":")
    return name if colon and "/" not in name else Path(source).stem
