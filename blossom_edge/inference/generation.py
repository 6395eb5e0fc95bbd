"""What a torch-free device runs at one moment: the blocks with their versions, and its own heads. Never changes.

A prediction takes the current `Generation` once and works with it to its end, so it cannot mix versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, BlockKey

if TYPE_CHECKING:
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.head_values import HeadValues


@dataclass(frozen=True, slots=True, order=True)
class Used:
    """One version of one block: its number and the SHA-256 of its bytes."""

    version: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Received:
    """A version as it was received: `data` are the bytes of the codec, not yet looked at."""

    version: int
    sha256: str
    data: bytes

    @property
    def used(self) -> Used:
        """Its number and hash."""
        return Used(self.version, self.sha256)


@dataclass(frozen=True, slots=True)
class Generation:
    """Blocks and own heads that belong together.

    number: rises by 1 with each exchange of blocks, from 1; versions: what `model` is made of. heads: this device's
    own heads by task, fitted to these encoders; head_number rises by 1 with each new set of them, from 1 (0: none).
    """

    number: int
    versions: Mapping[BlockKey, Used]
    model: OnnxModel
    heads: Mapping[str, HeadValues] = field(default_factory=dict)
    head_number: int = 0

    def shown(self) -> dict[str, int]:
        """The version of each block, as a prediction tells them; of a cohort block this device has one copy."""
        return {str(key.block): used.version for key, used in sorted(self.versions.items())}


@dataclass(frozen=True, slots=True)
class Swap:
    """How an exchange went.

    changed: the blocks whose version is another now; empty if nothing was taken. reason: why (a part of) it was not
    taken, empty if all was; nothing new at all is no reason. seconds: from bytes to a session, by block. canary_s: the
    trial run on stored windows. A refusal is told once, in the swap that found it.
    """

    taken: bool
    changed: tuple[BlockKey, ...] = ()
    reason: str = ""
    seconds: Mapping[BlockKey, float] = field(default_factory=dict)
    canary_s: float = 0.0


def own_name(task: str) -> str:
    """The name of what an own head says of a task, beside that of the shared one."""
    return f"{task} (own head)"


def with_gates(outputs: Mapping[str, Array], gates: Mapping[str, float]) -> dict[str, Array]:
    """Outputs as `run_model` gives them; of a task with a gate, the own head's is mixed with the shared one's.

    `gate * shared + (1 - gate) * own`, on logits or on values in the task's unit. Where only one of both is there it
    stays as it is.
    """
    found = dict(outputs)
    for task, gate in gates.items():
        own = own_name(task)
        if task in outputs and own in outputs:
            found[own] = np.asarray(gate * outputs[task] + (1.0 - gate) * outputs[own], np.float32)
    return found


def run_model(
    model: OnnxModel,
    heads: Mapping[str, HeadValues],
    inputs: Mapping[str, Array],
    present: Mapping[str, NDArray[np.bool_]],
) -> dict[str, Array]:
    """Outputs of `n` windows by name, (n, outputs) each: `TASK` by the shared blocks, `own_name(TASK)` by own heads.

    Each encoder runs once for all of them. An own head sees the modalities of its task that have an encoder here, and
    gives a regression in units of the task's spread; here its value is in the task's unit. One that was fitted to other
    encoders than these is left out, and so is a task none of whose modalities is present in any window.
    """
    embeddings = model.embed(inputs, present)
    found: dict[str, Array] = dict(model.outputs(inputs, present, embeddings))
    if not heads:
        return found
    from blossom_edge.inference.features import head_features
    from blossom_edge.inference.head import apply_head

    for task, head in heads.items():
        settings = model.federation.tasks[task]
        modalities = [m for m in model.federation.task_modalities(task) if m in embeddings]
        if not any(m in present and present[m].any() for m in modalities):
            continue
        features = head_features(embeddings, present, modalities)
        if head.num_features == features.shape[1]:
            values = apply_head(head, features)
            in_unit = settings.type == "regression"
            found[own_name(task)] = values * settings.spread + settings.mean if in_unit else values
    return found
