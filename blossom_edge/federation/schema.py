"""The federation: what is learned, by whom, in which rounds. The pydantic face of `federation.toml`; reads no files.

A federation is held by the gateway, sent to devices when they join, and named by its digest.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from blossom_edge.core.blocks import BlockId, BlockKind, ModelSpec, Visibility
from blossom_edge.core.errors import ConfigError
from blossom_edge.core.names import NAME_PATTERN, PLAIN_NAME_PATTERN, Modality, TaskName
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.federation.block_types import Signal
from blossom_edge.federation.problems import explain
from blossom_edge.federation.rules import problems
from blossom_edge.federation.spec import model_spec

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
PlainName = Annotated[str, StringConstraints(pattern=PLAIN_NAME_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=120)]
Preset = Literal["full", "private-head", "private-head-fusion", "private-encoders", "dual", "cohort-head-fusion"]
Rule = Literal["mean", "norm-clip", "median", "trimmed-mean", "multi-krum"]
Count = Annotated[int, Field(ge=1, le=10_000)]
Seconds = Annotated[float, Field(ge=0.0, le=31 * 86_400.0)]
MAX_MODALITIES = 32
MAX_TASKS = 32


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class FederationChannel(_Part):
    """One channel of a modality: what its values mean, and how they are brought to about -1..1.

    The model sees `(value - mean) / spread`, the same on every device and in every window.
    """

    name: Name
    unit: Text
    mean: float = 0.0
    spread: Annotated[float, Field(gt=0.0)] = 1.0


class FederationModality(_Part):
    """One kind of signal: windows of `window` samples at `rate_hz`, a new one every `hop` samples.

    `shape` is that of one sample of one channel: () for a number, (96, 96) for an image, (40,) for a spectrum. A window
    is (window, width); in a sample the channel runs fastest: an image with channels r, g, b is H, W, C in row order.
    `normalise` agreed: over that, channel means and variances that its owners settle in two rounds.
    """

    channels: Annotated[tuple[FederationChannel, ...], Field(strict=False, min_length=1, max_length=256)]
    rate_hz: Annotated[float, Field(gt=0.0, le=1e6)]
    window: Annotated[int, Field(ge=1, le=1_000_000)]
    hop: Annotated[int, Field(ge=1)]
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, max_length=3)] = ()
    normalise: Literal["unit", "agreed"] = "unit"

    @property
    def width(self) -> int:
        """Values of one sample."""
        return self.signal.width

    @property
    def signal(self) -> Signal:
        """What an encoder needs to know of it."""
        return Signal(channels=len(self.channels), window=self.window, shape=self.shape)


class Task(_Part):
    """What is predicted, and from which modalities (empty: all).

    `absent`: a modality that is not there is masked, or (`zero-fill`, as the published code has it) takes part as an
    encoder's answer to zeros.
    """

    type: Literal["classification", "multilabel", "regression"]
    classes: Annotated[tuple[Text, ...], Field(strict=False, max_length=1000)] = ()
    unit: Annotated[str, Field(max_length=32)] = ""
    modalities: Annotated[tuple[PlainName, ...], Field(strict=False)] = ()
    mean: float = 0.0
    spread: Annotated[float, Field(gt=0.0)] = 1.0
    absent: Literal["mask", "zero-fill"] = "mask"

    @property
    def num_outputs(self) -> int:
        """Outputs of the task's head: one per class, one for a regression."""
        return len(self.classes) or 1


class BlockSettings(BaseModel):
    """One block of the file: its type, its options (further keys, checked by the type), who may see it.

    A `fusion/TASK.MODALITY` has no type and no options of its own: they are those of `fusion/TASK`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False, defer_build=True)

    type: Annotated[str, Field(max_length=32)] = ""
    visibility: Literal["shared", "private", "dual", "cohort", ""] = ""
    quorum: Count | None = None
    min_cohort: Count | None = None
    rule: Rule | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the block's type."""
        return dict(self.model_extra or {})


class TrainingSettings(_Part):
    """What a device does in one round: `epochs` passes, or `steps` optimiser steps if `steps` is not 0."""

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0.0, le=100.0)] = 0.05
    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_rounds: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    lr_min: Annotated[float, Field(ge=0.0)] = 0.0
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    epochs: Annotated[int, Field(ge=0, le=10_000)] = 1
    steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    prox_mu: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0
    modality_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class RoundSettings(_Part):
    """When a round opens and ends, how many devices a block needs, and how their updates become its next version.

    `rule` joins the updates of a block; `trusted_share` is what the robust rules may count on: at most so many of the
    updates are bad as a share of 1 - trusted_share allows. `server_optimizer` steps along what the rule gives.
    """

    min_devices: Count = 2
    start_after_s: Seconds = 60.0
    deadline_s: Annotated[float, Field(gt=0.0, le=31 * 86_400.0)] = 120.0
    quorum: Count = 1
    min_cohort: Count = 1
    rejoin_s: Seconds = 10.0
    rule: Rule = "mean"
    trusted_share: Annotated[float, Field(gt=0.5, le=1.0)] = 0.8
    server_optimizer: Literal["avg", "avgm", "adam", "yogi", "adagrad"] = "avg"
    server_lr: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    server_momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    server_beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    server_tau: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3


class ScheduleSettings(_Part):
    """When rounds take place, and when the federation is finished (0 and empty: no such rule)."""

    every_s: Seconds = 0.0
    at: Annotated[str, StringConstraints(pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")] = ""
    hours: Annotated[str, StringConstraints(pattern=r"^(([01]?\d|2[0-3])-([01]?\d|2[0-4]))?$")] = ""
    min_new_windows: Annotated[int, Field(ge=0)] = 0
    stop_rounds: Annotated[int, Field(ge=0)] = 0
    stop_no_gain_rounds: Annotated[int, Field(ge=0)] = 0


class CodecSettings(_Part):
    """How values travel."""

    up: Literal["float32", "float16"] = "float32"
    down: Literal["float32", "float16"] = "float32"


class Federation(_Part):
    """A whole federation, checked; equal content has an equal digest.

    Keys of `blocks` are `encoder/MODALITY`, `fusion/TASK`, `fusion/TASK.MODALITY` and `head/TASK`.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    title: Annotated[str, Field(max_length=200)] = ""
    visibility: Preset = "private-head-fusion"
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    modalities: Annotated[dict[PlainName, FederationModality], Field(min_length=1, max_length=MAX_MODALITIES)]
    tasks: Annotated[dict[PlainName, Task], Field(min_length=1, max_length=MAX_TASKS)]
    blocks: dict[str, BlockSettings]
    training: TrainingSettings = TrainingSettings()
    rounds: RoundSettings = RoundSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    codec: CodecSettings = CodecSettings()

    @model_validator(mode="after")
    def _check(self) -> Federation:
        if found := problems(self):
            raise ValueError("; ".join(found))
        return self

    @cached_property
    def spec(self) -> ModelSpec:
        """Every block of the model with its tensors, sorted by id."""
        return model_spec(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `to_dict()`: names this federation."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """All keys with their values, defaults too, ready for JSON; `from_dict` reads it back.

        Keys that came later are left out while they have their default, so that older federations keep their digest.
        """
        table: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        for name, defaults in _LATER_KEYS.items():
            parts = table[name].values() if name in ("modalities", "tasks", "blocks") else (table[name],)
            for part in parts:
                for key, default in defaults.items():
                    if part[key] == default:
                        del part[key]
        return table

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "federation") -> Federation:
        """Check `values`; `source` names them in the error.

        Raises:
            ConfigError: `federation-invalid`, with every rule that is broken.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError("federation-invalid", f"{source}: {explain(error, cls, values)}") from None

    def local_training(self, round_number: int) -> LocalTraining:
        """What devices do in round `round_number` (from 1); the learning rate is a pure function of it.

        cosine: from `lr` in round 1 to `lr_min` in round `lr_rounds` and after it.
        """
        t = self.training
        lr = t.lr
        if t.lr_schedule == "cosine":
            done = min(max(round_number - 1, 0) / max(t.lr_rounds - 1, 1), 1.0)
            lr = t.lr_min + (t.lr - t.lr_min) * 0.5 * (1.0 + math.cos(math.pi * done))
        return LocalTraining(
            optimizer=t.optimizer,
            lr=lr,
            epochs=0 if t.steps else t.epochs,
            steps=t.steps,
            batch_size=t.batch_size,
            momentum=t.momentum,
            weight_decay=t.weight_decay,
            clip_norm=t.clip_norm,
            seed=self.seed,
            prox_mu=t.prox_mu,
            modality_dropout=t.modality_dropout,
        )

    def task_modalities(self, task: str) -> tuple[Modality, ...]:
        """The modalities that a task uses, sorted."""
        return tuple(Modality(m) for m in sorted(self.tasks[task].modalities or self.modalities))

    def tasks_for(self, modalities: Collection[str]) -> tuple[TaskName, ...]:
        """The tasks that a device with these modalities can serve, sorted: those that use one of them."""
        have = set(modalities)
        return tuple(TaskName(t) for t in sorted(self.tasks) if have & set(self.task_modalities(t)))

    def quorum(self, block: BlockId) -> int:
        """Updates without which a block is held in a round."""
        return next((s.quorum for s in self._settings(block) if s.quorum), self.rounds.quorum)

    def min_cohort(self, block: BlockId) -> int:
        """Owners without which a block is held, because its mean would show too much of one device."""
        return next((s.min_cohort for s in self._settings(block) if s.min_cohort), self.rounds.min_cohort)

    def rule(self, block: BlockId) -> Rule:
        """How the updates of a block are joined."""
        return next((s.rule for s in self._settings(block) if s.rule), self.rounds.rule)

    def visibility_of(self, block: BlockId) -> Visibility:
        """Who may see a block: its own key, else (a part of a fusion) that of its fusion, else the preset."""
        other, kinds = _PRESETS[self.visibility]
        preset = other if block.kind in kinds else Visibility.SHARED
        return next((Visibility(s.visibility) for s in self._settings(block) if s.visibility), preset)

    def _settings(self, block: BlockId) -> list[BlockSettings]:
        """The settings that hold for a block, nearest first."""
        names = [str(block)]
        if block.kind is BlockKind.FUSION and "." in block.name:
            names.append(f"fusion/{block.name.partition('.')[0]}")
        return [self.blocks[name] for name in names if name in self.blocks]


_PRESETS: Mapping[str, tuple[Visibility, tuple[BlockKind, ...]]] = {
    "full": (Visibility.SHARED, ()),
    "private-head": (Visibility.PRIVATE, (BlockKind.HEAD,)),
    "private-head-fusion": (Visibility.PRIVATE, (BlockKind.HEAD, BlockKind.FUSION)),
    "private-encoders": (Visibility.PRIVATE, (BlockKind.ENCODER,)),
    "dual": (Visibility.DUAL, (BlockKind.HEAD, BlockKind.FUSION)),
    "cohort-head-fusion": (Visibility.COHORT, (BlockKind.HEAD, BlockKind.FUSION)),
}
"""What a preset makes of blocks of these kinds; the others are shared."""
_LATER_KEYS: Mapping[str, Mapping[str, Any]] = {
    "modalities": {"shape": [], "normalise": "unit"},
    "tasks": {"absent": "mask"},
    "blocks": {"rule": None},
    "training": {"prox_mu": 0.0, "modality_dropout": 0.0},
    "rounds": {
        "rule": "mean",
        "trusted_share": 0.8,
        "server_momentum": 0.9,
        "server_beta2": 0.99,
        "server_tau": 1e-3,
    },
}
