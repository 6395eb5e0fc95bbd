"""One client of a run: its windows by round, its trainer, what it answered; and how it misbehaves where it is told to.

An attack is on what the trainer gives to the session; the product's own code knows nothing of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, BlockId, Tensors
from blossom_edge.core.metrics import Metric, MetricSums
from blossom_edge.core.names import TaskName
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.core.training import Blocks, TrainResult
from blossom_edge.core.windows import WindowSet
from blossom_edge.simulation.experiments.scores import accuracy, macro_f1

if TYPE_CHECKING:
    from blossom_edge.federation.schema import Federation
    from blossom_edge.simulation.experiments.settings import Behaviour

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClientWindows:
    """What a client has from round `since` on."""

    since: int
    train: WindowSet
    test: WindowSet


def windows_at(stages: Sequence[ClientWindows], round_number: int) -> ClientWindows:
    """The windows of this round; stages are sorted by `since`, the first is from round 1."""
    return [stage for stage in stages if stage.since <= round_number][-1]


class ExperimentClient:
    """A `Trainer` that trains on the windows of the round, counts its answers, and attacks where `behaviour` says so.

    stages: sorted by `since`, the first from round 1. `confusions` has one matrix per evaluation, in their order.
    """

    def __init__(
        self,
        federation: Federation,
        *,
        device_id: str,
        stages: tuple[ClientWindows, ...],
        task: str,
        seed: int,
        behaviour: Behaviour | None = None,
    ) -> None:
        from blossom_edge.training.trainer import TorchTrainer

        self.confusions: list[Counts] = []
        self._federation = federation
        self._stages = _flipped(stages, task, len(federation.tasks[task].classes), behaviour)
        self._task = task
        self._seed = seed
        self._behaviour = behaviour
        self._round = 1
        self._device_id = device_id
        self._trainer = TorchTrainer(
            federation,
            device_id=device_id,
            train=lambda: self._now().train,
            holdout=lambda: self._now().test,
            compute="cpu",
            threads=1,
        )

    @property
    def curve(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Accuracy and macro F1 of each evaluation."""
        plain = [confusion.tolist() for confusion in self.confusions]
        return tuple(map(accuracy, plain)), tuple(map(macro_f1, plain))

    @property
    def gate(self) -> float | None:
        """The gate of the last training or scoring; None without dual blocks."""
        return self._trainer.gates.get(TaskName(self._task))

    def present_modalities(self) -> frozenset[str]:
        """As the trainer's."""
        return self._trainer.present_modalities()

    def num_windows(self) -> int:
        """As the trainer's."""
        return self._trainer.num_windows()

    def evaluate(self, blocks: Blocks) -> MetricSums:
        """Count the answers on the test windows, and keep them."""
        confusion = self.confusion(blocks, self._now().test)
        self.confusions.append(confusion)
        return {f"{self._task}.accuracy": Metric(float(np.trace(confusion)), float(confusion.sum()))}

    def confusion(self, blocks: Blocks, windows: WindowSet) -> Counts:
        """(classes, classes) int64: windows by true class and answered class."""
        size = len(self._federation.tasks[self._task].classes)
        found = np.zeros(size * size, dtype=np.int64)
        for outputs, labels in self._trainer.answers(blocks, windows):
            if self._task in outputs:
                answered = outputs[self._task].argmax(dim=1)
                found += np.bincount((labels[self._task] * size + answered).cpu().numpy(), minlength=size * size)
        return found.reshape(size, size)

    def train(
        self,
        blocks: Blocks,
        training: LocalTraining,
        *,
        round_number: int,
        frozen: frozenset[BlockId],
        optimizer: Mapping[str, Array],
        keep_going: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Train on the windows of this round; what leaves the device is then attacked."""
        self._round = round_number
        result = self._trainer.train(
            blocks, training, round_number=round_number, frozen=frozen, optimizer=optimizer, keep_going=keep_going
        )
        attack = self._behaviour.attack if self._behaviour is not None else ""
        if attack not in ("sign-flip", "noise"):
            return result
        return replace(result, blocks=self._attacked(blocks, result.blocks, round_number))

    def go_to(self, round_number: int) -> None:
        """Have the windows of this round from now on."""
        self._round = round_number

    def _now(self) -> ClientWindows:
        return windows_at(self._stages, self._round)

    def _attacked(self, before: Blocks, after: Mapping[BlockId, Tensors], round_number: int) -> dict[BlockId, Tensors]:
        if self._behaviour is None:
            return dict(after)
        rng = np.random.default_rng((self._seed, 6, round_number, zlib.crc32(self._device_id.encode())))
        return {
            block: tensors
            if not self._federation.spec[block].leaves_device
            else {name: _attack(before[block][name], tensors[name], self._behaviour, rng) for name in sorted(tensors)}
            for block, tensors in sorted(after.items())
        }


def _attack(before: Array, after: Array, behaviour: Behaviour, rng: np.random.Generator) -> Array:
    delta = after - before
    if behaviour.attack == "sign-flip":
        return (before - behaviour.strength * delta).astype(np.float32)
    size = behaviour.strength * float(np.sqrt(np.mean(np.square(delta, dtype=np.float64)))) if delta.size else 0.0
    return (before + size * rng.standard_normal(delta.shape)).astype(np.float32)


def _flipped(
    stages: tuple[ClientWindows, ...], task: str, classes: int, behaviour: Behaviour | None
) -> tuple[ClientWindows, ...]:
    """With label-flip, class C-1-y for y in training."""
    if behaviour is None or behaviour.attack != "label-flip":
        return stages
    return tuple(
        replace(stage, train=replace(stage.train, labels={task: classes - 1 - stage.train.labels[task]}))
        for stage in stages
    )
