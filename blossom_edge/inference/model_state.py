"""What is in use, kept, pinned and refused on a torch-free device, as data and as JSON. No I/O, no sessions.

Every change gives a new `ModelState`; who asks for it writes it down before anything else happens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blossom_edge.codec.strict_json import parse_object
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import BlossomError, ConfigError
from blossom_edge.core.names import is_name
from blossom_edge.inference.generation import Used

SCHEMA = 1
MAX_REFUSED = 64
"""The newest refusals that are kept; older versions are not offered any more."""
MAX_STARTS = 3
"""Starts that may end without proof before the generation before is restored."""
CRASH_LOOP = f"crash loop: {MAX_STARTS} starts without 10 predictions"
_SHA = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Kept:
    """One generation as it is on disk: its blocks, and its own heads by task with the SHA-256 of their files."""

    number: int
    versions: Mapping[BlockKey, Used]
    head_number: int = 0
    heads: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """A version that is not tried again: why, and by what (`check`, `canary`, `crash-loop`, `person`)."""

    key: BlockKey
    used: Used
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A generation that has not proved itself: the starts (boot counts) that used it and did not end cleanly."""

    number: int
    boots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelState:
    """Everything that model.json says. `number` is that of the newest exchange; `since` its stamp by block.

    gates: by task with a dual head, the share of the shared head in what a device with an own one says, 0 to 1.
    """

    number: int = 0
    in_use: Kept | None = None
    previous: Kept | None = None
    pinned: Mapping[BlockKey, Used] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    trial: Trial | None = None
    since: Mapping[BlockKey, str] = field(default_factory=dict)
    gates: Mapping[str, float] = field(default_factory=dict)

    @property
    def versions(self) -> Mapping[BlockKey, Used]:
        """What is in use, empty if nothing is."""
        return self.in_use.versions if self.in_use is not None else {}

    @property
    def next_head_number(self) -> int:
        """The number of the next set of own heads."""
        return 1 + max((kept.head_number for kept in (self.in_use, self.previous) if kept is not None), default=0)

    def refusal(self, key: BlockKey, used: Used) -> Refused | None:
        """Why a version is not tried, None if it may be."""
        return next((r for r in self.refused if r.key == key and r.used == used), None)

    def refuse(self, versions: Mapping[BlockKey, Used], reason: str, *, by: str) -> ModelState:
        """These versions are not tried again."""
        new = tuple(Refused(key, used, reason, by) for key, used in sorted(versions.items()))
        old = tuple(r for r in self.refused if (r.key, r.used) not in {(n.key, n.used) for n in new})
        return replace(self, refused=(*old, *new)[-MAX_REFUSED:])

    def exchange(
        self, versions: Mapping[BlockKey, Used], *, head_number: int, heads: Mapping[str, str], boot: int, stamp: str
    ) -> ModelState:
        """`versions` are in use now, on trial from this start on; what was in use is the one before."""
        old, number = self.versions, self.number + 1
        since = {key: stamp if old.get(key) != used else self.since.get(key, "") for key, used in versions.items()}
        return replace(
            self,
            number=number,
            in_use=Kept(number, dict(versions), head_number, dict(heads)),
            previous=self.in_use,
            trial=Trial(number, (boot,)),
            since=since,
        )

    def roll_back(
        self, keys: Collection[BlockKey] | None, reason: str, *, by: str, boots: tuple[int, ...] = (), stamp: str = ""
    ) -> ModelState:
        """Back to the generation before, or only these blocks; what is left is refused. A new number, and on trial.

        The own heads go back too if all blocks do; else those in use stay, until they are fitted anew.

        Raises:
            ConfigError: `nothing-found`: nothing is there to go back to; `usage`: a block is pinned.
        """
        before = self.previous.versions if self.previous is not None else {}
        changed = {key for key, used in self.versions.items() if before.get(key) not in (None, used)}
        wanted = changed if keys is None else set(keys)
        if self.in_use is None or self.previous is None or not wanted or not wanted <= changed:
            which = ", ".join(map(str, sorted(wanted - changed))) or "this device"
            raise ConfigError(
                "nothing-found",
                f"{which}: no version before the one in use is kept",
                hint="see `blossom-edge blocks list`",
            )
        if held := sorted(wanted & set(self.pinned)):
            raise ConfigError(
                "usage",
                f"{held[0]} is pinned to version {self.pinned[held[0]].version}",
                hint=f"let go of it first: blossom-edge blocks pin --off {held[0]}",
            )
        left = {key: self.versions[key] for key in wanted}
        versions = {**self.versions, **{key: before[key] for key in wanted}}
        number = self.number + 1
        source = self.previous if wanted == changed else self.in_use
        in_use = Kept(number, versions, source.head_number, source.heads)
        return replace(
            self.refuse(left, reason, by=by),
            number=number,
            in_use=in_use,
            previous=None if wanted == changed else self.previous,
            trial=Trial(number, boots),
            since={**self.since, **dict.fromkeys(wanted, stamp)},
        )

    def give_up(self, reason: str, *, by: str, boots: tuple[int, ...] = (), stamp: str = "") -> ModelState:
        """Leave what is in use whatever is pinned: back to the generation before, or to nothing if there is none."""
        free = replace(self, pinned={})
        before = self.previous.versions if self.previous is not None else {}
        changed = {key: used for key, used in self.versions.items() if before.get(key) != used}
        state = free.refuse(changed, reason, by=by)
        kept = {key: used for key, used in self.pinned.items() if key not in changed}
        number = self.number + 1
        if self.previous is None:
            return replace(state, number=number, in_use=None, trial=None, pinned=kept, since={})
        return replace(
            state,
            number=number,
            in_use=replace(self.previous, number=number),
            previous=None,
            trial=Trial(number, boots),
            pinned=kept,
            since={key: stamp if key in changed else self.since.get(key, "") for key in before},
        )

    def lose(self) -> ModelState:
        """What is in use cannot be read: the generation before takes its place, or nothing. Nothing is refused."""
        if self.previous is None:
            return replace(self, in_use=None, trial=None, since={})
        number = self.number + 1
        return replace(self, number=number, in_use=replace(self.previous, number=number), previous=None, trial=None)

    def pin(self, key: BlockKey) -> ModelState:
        """The block stays at the version in use, whatever comes.

        Raises:
            ConfigError: `nothing-found`: it is not in use.
        """
        if key not in self.versions:
            raise ConfigError("nothing-found", f"{key} is not in use, so there is no version to stay at")
        return replace(self, pinned={**self.pinned, key: self.versions[key]})

    def unpin(self, key: BlockKey) -> ModelState:
        """The block follows the gateway again; its refused versions may be tried again, too."""
        return replace(
            self,
            pinned={k: used for k, used in self.pinned.items() if k != key},
            refused=tuple(r for r in self.refused if r.key != key),
        )

    def new_heads(self, head_number: int, heads: Mapping[str, str]) -> ModelState:
        """Other own heads on the same blocks."""
        if self.in_use is None:
            return self
        return replace(self, in_use=replace(self.in_use, head_number=head_number, heads=dict(heads)))

    def start(self, boot: int, *, stamp: str = "") -> ModelState:
        """A process starts: one start more for a trial, or the end of a crash loop."""
        if self.trial is None or boot in self.trial.boots:
            return self
        if len(self.trial.boots) >= MAX_STARTS:
            return self.give_up(CRASH_LOOP, by="crash-loop", boots=(boot,), stamp=stamp)
        return replace(self, trial=replace(self.trial, boots=(*self.trial.boots, boot)))

    def prove(self) -> ModelState:
        """What is in use has worked."""
        return replace(self, trial=None)

    def end(self) -> ModelState:
        """The process ends as it should: the starts so far were no crashes."""
        return self if self.trial is None else replace(self, trial=replace(self.trial, boots=()))

    def to_json(self) -> bytes:
        """As model.json has it."""
        in_use = self.in_use
        values = {
            "schema": SCHEMA,
            "number": self.number,
            "in_use": _plain_versions(self.versions),
            "heads": dict(in_use.heads) if in_use is not None else {},
            "head_number": in_use.head_number if in_use is not None else 0,
            "previous": _plain_kept(self.previous),
            "pinned": _plain_versions(self.pinned),
            "refused": [
                {"key": str(r.key), "version": r.used.version, "sha256": r.used.sha256, "reason": r.reason, "by": r.by}
                for r in self.refused
            ],
            "trial": None if self.trial is None else {"number": self.trial.number, "boots": list(self.trial.boots)},
            "since": {str(key): stamp for key, stamp in sorted(self.since.items())},
            **({"gates": dict(sorted(self.gates.items()))} if self.gates else {}),
        }
        return json.dumps(values, indent=1).encode()


def read_state(data: bytes) -> ModelState:
    """Read what `to_json` wrote.

    Raises:
        ValueError: it is something else, or damaged.
    """
    try:
        values = parse_object(data, "model.json")
        if values.get("schema") != SCHEMA:
            raise ValueError(f"schema {values.get('schema')!r}, expected {SCHEMA}")
        number, versions = _count(values["number"]), _versions(values["in_use"])
        in_use = Kept(number, versions, _count(values["head_number"]), _heads(values["heads"])) if versions else None
        previous, trial = values["previous"], values["trial"]
        return ModelState(
            number=number,
            in_use=in_use,
            previous=None if previous is None else _kept(previous),
            pinned=_versions(values["pinned"]),
            refused=tuple(map(_refused, values["refused"])),
            trial=None if trial is None else Trial(_count(trial["number"]), tuple(map(_count, trial["boots"]))),
            since={BlockKey.parse(key): _text(stamp) for key, stamp in values["since"].items()},
            gates={_checked(task, is_name): _share(gate) for task, gate in values.get("gates", {}).items()},
        )
    except (BlossomError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def _plain_versions(versions: Mapping[BlockKey, Used]) -> dict[str, Any]:
    return {str(key): {"version": used.version, "sha256": used.sha256} for key, used in sorted(versions.items())}


def _plain_kept(kept: Kept | None) -> dict[str, Any] | None:
    if kept is None:
        return None
    blocks = _plain_versions(kept.versions)
    return {"number": kept.number, "blocks": blocks, "heads": dict(kept.heads), "head_number": kept.head_number}


def _kept(values: Mapping[str, Any]) -> Kept:
    versions, heads = _versions(values["blocks"]), _heads(values["heads"])
    return Kept(_count(values["number"]), versions, _count(values["head_number"]), heads)


def _versions(values: Mapping[str, Any]) -> dict[BlockKey, Used]:
    return {BlockKey.parse(key): _used(entry) for key, entry in values.items()}


def _used(entry: Mapping[str, Any]) -> Used:
    return Used(_count(entry["version"]), _checked(entry["sha256"], lambda text: _SHA.match(text) is not None))


def _heads(values: Mapping[str, Any]) -> dict[str, str]:
    return {_checked(task, is_name): _checked(sha, lambda text: bool(_SHA.match(text))) for task, sha in values.items()}


def _refused(entry: Mapping[str, Any]) -> Refused:
    return Refused(BlockKey.parse(entry["key"]), _used(entry), _text(entry["reason"]), _text(entry["by"]))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{value!r} is no share")
    return float(value)


def _text(value: Any) -> str:
    return _checked(value, lambda text: True)


def _checked(value: Any, is_good: Callable[[str], bool]) -> str:
    if not isinstance(value, str) or not is_good(value):
        raise ValueError(f"{value!r} stands where it should not")
    return value
