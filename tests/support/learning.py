"""A federation so small that its blocks can be looked at, and a trainer that only adds noise which can be foretold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from blossom_edge.client.learner import Learner
from blossom_edge.core.blocks import Array, BlockId, Tensors
from blossom_edge.core.metrics import Metric, MetricSums
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.core.training import Blocks, TrainResult
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation

ENCODER = "{type='mlp', widths=[4]}"
TINY = (
    f"blocks.encoder/accel={ENCODER}",
    f"blocks.encoder/gyro={ENCODER}",
    "blocks.fusion/har.width=8",
    "blocks.head/har.hidden=4",
    "modalities.accel.window=8",
    "modalities.accel.hop=8",
    "modalities.gyro.window=8",
    "modalities.gyro.hop=8",
    "rounds={min_devices=2, start_after_s=60.0, deadline_s=120.0, rejoin_s=5.0}",
    "schedule={stop_rounds=3}",
)


def tiny(*sets: str) -> Federation:
    """The preset `har` with encoders of 100 values that ends after 3 rounds; `sets` change it further."""
    return load_federation("har", sets=[*TINY, *sets])


def noise(device: str, round_number: int, block: BlockId, shape: tuple[int, ...], name: str = "") -> Array:
    """What this device learns in this round: the same for the same arguments."""
    text = f"{device} {round_number} {block} {name}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape).astype(np.float32)


@dataclass
class NoiseTrainer:
    """Adds `noise` to every block it is given. `learn` may put something else in the place of a block's new values."""

    device: str
    modalities: tuple[str, ...]
    num_samples: int = 10
    absent: frozenset[str] = frozenset()
    """Modalities without labelled windows."""
    loss: Callable[[int], float] = lambda calls: 1.0 / calls
    """Loss at the n-th evaluation, from 1."""
    seen: Callable[[int], int] = lambda evaluations: 10
    """Labelled windows that ever came, after so many evaluations."""
    learn: Callable[[int, BlockId, Tensors], Tensors | None] = lambda round_number, block, base: None
    work: Callable[[LocalTraining, Callable[[], bool] | None], int] = lambda training, keep_going: 1
    """How many steps a round takes; may let time pass and ask whether to go on."""
    trained: list[tuple[int, dict[BlockId, Tensors], dict[BlockId, Tensors]]] = field(default_factory=list)
    """Of every round: its number, the blocks as given, the blocks as trained."""
    evaluated: list[dict[BlockId, Tensors]] = field(default_factory=list)

    def present_modalities(self) -> frozenset[str]:
        return frozenset(self.modalities) - self.absent

    def num_windows(self) -> int:
        return self.num_samples

    def evaluate(self, blocks: Blocks) -> MetricSums:
        self.evaluated.append(dict(blocks))
        return {"har.loss": Metric(self.loss(len(self.evaluated)), 1.0)}

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
        new: dict[BlockId, Tensors] = {}
        for block, base in blocks.items():
            if any(block.name == m or block.name.endswith(f".{m}") for m in self.absent):
                continue
            learned = self.learn(round_number, block, base)
            new[block] = learned if learned is not None else self._noisy(round_number, block, base)
        self.trained.append((round_number, dict(blocks), new))
        counts = dict.fromkeys(new, self.num_samples)
        return TrainResult(new, counts, self.work(training, keep_going), {}, {"momentum": np.ones(3, np.float32)})

    def _noisy(self, round_number: int, block: BlockId, base: Tensors) -> Tensors:
        return {n: v + noise(self.device, round_number, block, v.shape, n) for n, v in base.items()}

    def learner(self, federation: Federation) -> Learner:
        """What the agent is given."""
        return Learner(self, num_seen=lambda: self.seen(len(self.evaluated)))
