"""Small models, windows that can be learned, and one round of training on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, BlockId
from blossom_edge.core.metrics import Metric
from blossom_edge.core.training import Blocks, TrainResult
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.training.trainer import TorchTrainer

MLP = "{type='mlp', widths=[16, 12]}"
SMALL = [
    "training={optimizer='sgd', lr=0.05, batch_size=16}",
    f"blocks.encoder/accel={MLP}",
    f"blocks.encoder/gyro={MLP}",
    "blocks.fusion/har.width=16",
    "blocks.head/har.hidden=16",
    "modalities.accel.window=8",
    "modalities.accel.hop=8",
    "modalities.gyro.window=8",
    "modalities.gyro.hop=8",
]


def small(*sets: str) -> Federation:
    return load_federation("har", sets=[*SMALL, *sets])


def make_windows(
    labels: NDArray[Any], present: Mapping[str, list[int]] | None = None, *, task: str = "har", seed: int = 0
) -> WindowSet:
    """Windows with a bump whose place is the class, so that they can be learned."""
    generator = np.random.Generator(np.random.Philox(seed))
    shown = present or {"accel": [1] * len(labels), "gyro": [1] * len(labels)}
    inputs: dict[str, Array] = {}
    for modality in shown:
        values = 0.1 * generator.standard_normal((len(labels), 8, 3))
        values[np.arange(len(labels)), np.nan_to_num(labels).astype(int), 0] += 2.0
        inputs[modality] = values.astype(np.float32)
    masks = {m: np.array(rows, dtype=np.bool_) for m, rows in shown.items()}
    return WindowSet(inputs, masks, {task: labels}, np.arange(len(labels), dtype=np.float64))


EMPTY = make_windows(np.zeros(0, dtype=np.int64))
CLASSES = make_windows(np.arange(21, dtype=np.int64) % 7)


def trainer_of(
    federation: Federation, windows: WindowSet = CLASSES, holdout: WindowSet = EMPTY, device: str = "d1"
) -> TorchTrainer:
    return TorchTrainer(
        federation, device_id=device, train=lambda: windows, holdout=lambda: holdout, compute="cpu", threads=1
    )


def first_blocks(federation: Federation, *modalities: str) -> dict[BlockId, Mapping[str, Array]]:
    owned = federation.spec.owned(modalities or federation.modalities, federation.tasks)
    return {s.id: initial_block(s, federation.digest, 0) for s in owned}


def run(
    federation: Federation,
    trainer: TorchTrainer,
    blocks: Blocks | None = None,
    *,
    round_number: int = 1,
    frozen: tuple[str, ...] = (),
    optimizer: Mapping[str, Array] | None = None,
) -> TrainResult:
    return trainer.train(
        blocks or first_blocks(federation),
        federation.local_training(round_number),
        round_number=round_number,
        frozen=frozenset(BlockId.parse(b) for b in frozen),
        optimizer=optimizer or {},
    )


def mean(metric: Metric) -> float:
    assert metric.mean is not None
    return metric.mean


def raw(blocks: Blocks) -> dict[str, bytes]:
    return {f"{b}:{n}": v.tobytes() for b, tensors in blocks.items() for n, v in tensors.items()}
