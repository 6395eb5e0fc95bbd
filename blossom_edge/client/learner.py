"""What a device learns with, or runs received versions with, made once the federation is known. Seams, no work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from blossom_edge.client.actions import Held
from blossom_edge.core.blocks import BlockId, BlockKey
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.prediction import Prediction
from blossom_edge.core.training import Trainer


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of received versions: the own score of the model in use now, and why it is not the newest."""

    score: MetricSums
    words: str
    """For people: `version 4 in use`, or what was refused and why."""
    lacks: bool = False
    """Whether skeletons are missing that the gateway may send: no end yet, even if the federation is finished."""


class WindowUser(Protocol):
    """Runs a model on the device's windows as they come."""

    @property
    def score(self) -> MetricSums:
        """Over all labelled windows that were predicted, `TASK.accuracy` and so on."""
        ...

    def update(self, now: float) -> list[Prediction]:
        """What the windows that came since the last call give."""
        ...

    def close(self) -> None:
        """A clean end."""
        ...


class ModelUser(WindowUser, Protocol):
    """Runs the received versions: roles `infer` and `personalize`. Never sees the network.

    Its `update` also learns an own head, and obeys the orders of `blossom-edge blocks`.
    """

    def open(self, place: Path, *, keys: Mapping[BlockId, BlockKey], boot: int) -> None:
        """Go on with what an earlier run left in `place`, the device's folder of this federation."""
        ...

    def lacking(self) -> tuple[str, ...]:
        """Digests of the skeletons that are needed and not here."""
        ...

    def add_skeleton(self, digest: str, data: bytes) -> None:
        """Take a skeleton from the gateway.

        Raises:
            BlossomError: `skeleton-invalid`: it is not what it should be.
        """
        ...

    def take(self, held: Mapping[BlockKey, Held]) -> Taken:
        """Put received versions to use, or go on with the old ones and say why."""
        ...

    def present_modalities(self) -> frozenset[str]:
        """Modalities that deliver right now."""
        ...

    def num_windows(self) -> int:
        """Labelled windows available for training and score."""
        ...

    def status(self) -> dict[str, Any]:
        """What is known of the model in use, for `status`: plain data."""
        ...


@dataclass(frozen=True, slots=True)
class Learner:
    """What a device learns with: a trainer (role `train`) or a user of received versions (the other roles).

    `poll(now)` lets sensors deliver; it is called once before anything is learned.
    """

    trainer: Trainer | None = None
    poll: Callable[[float], None] = lambda now: None
    poll_s: float | None = None
    """Seconds between two polls; None when windows do not come by themselves."""
    num_seen: Callable[[], int] | None = None
    """Labelled windows that ever came, for `min_new_windows`; None: as many as the trainer has."""
    min_new_windows: int = 0
    """Fewer new ones since the last trained round: this device sits a round out, whatever the schedule asks for."""
    compute: str = ""
    """What computes, for people: `cpu, 2 threads`."""
    sensors: Callable[[], Mapping[str, Any]] = dict
    """What is known of the sensors, for `status`: plain data by sensor."""
    close: Callable[[], None] = lambda: None
    user: ModelUser | None = None
    done: Callable[[], bool] = lambda: False
    """Whether no more windows will come: recordings were read to their end."""

    def must_train(self) -> Trainer:
        """The trainer, where there must be one.

        Raises:
            RuntimeError: this learner does not train.
        """
        if self.trainer is None:
            raise RuntimeError("nothing is here that trains")
        return self.trainer

    def count(self) -> int:
        """Labelled windows that ever came."""
        if self.num_seen is not None:
            return self.num_seen()
        return self.trainer.num_windows() if self.trainer is not None else 0


def newest(predictions: Collection[Prediction]) -> dict[str, Prediction]:
    """The last prediction of each task."""
    return {prediction.task: prediction for prediction in predictions}
