"""Boards that learn one class first: their updates fade to nothing; what comes with the second class is learned."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from small_model import make_windows, small

from aggregator.admission import NORM_HISTORY_MIN, judge_norm
from aggregator.recovery import open_truth
from aggregator.round_state import OUTGROWN_ROUNDS
from blossom_edge.client.learner import Learner
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.world import SimulatedDevice, World
from blossom_edge.training.trainer import TorchTrainer

pytestmark = [pytest.mark.torch, pytest.mark.timeout(120)]

ENCODER = BlockKey.parse("encoder/accel")
FIRST, LAST = 25, 45
"""The last round with one class, and the last of all."""


class People:
    """Two boards whose person does one exercise, then two."""

    def __init__(self) -> None:
        self.num_classes = 1

    def windows(self, seed: int) -> WindowSet:
        labels = np.arange(24, dtype=np.int64) % self.num_classes
        return make_windows(labels, {"accel": [1] * len(labels)}, seed=seed)

    def learner(self, name: str, federation: Federation) -> Learner:
        seed = int(name[-1])
        trainer = TorchTrainer(
            federation,
            device_id=name,
            train=partial(self.windows, seed),
            holdout=partial(self.windows, seed + 10),
            compute="cpu",
            threads=1,
        )
        return Learner(trainer)


def world_of(folder: Path, people: People) -> World:
    training = "training={optimizer='adam', lr=0.02, epochs=4, batch_size=8}"
    federation = small(training, "schedule.stop_rounds=0", "rounds.min_devices=2")
    devices = [
        SimulatedDevice(name, "test", ("accel",), partial(people.learner, name), tasks=("har",))
        for name in ("board-1", "board-2")
    ]
    return World(federation, devices, folder)


def run_to(world: World, number: int) -> None:
    world.run(until=lambda w: w.truth.machine.state.round > number)


def accuracy(world: World) -> float:
    (found,) = [score["har.accuracy"].mean for number, score in world.truth.machine.state.scores[-1:]]
    assert found is not None
    return found


def test_a_second_class_is_learned_after_a_first_one_that_left_nothing_to_learn(tmp_path: Path) -> None:
    people = People()
    world = world_of(tmp_path, people)
    state = world.truth.machine.state
    run_to(world, FIRST)
    assert np.median(state.norms[ENCODER]) < 1e-3, "nothing is left to learn"

    people.num_classes = 2
    run_to(world, LAST)
    assert accuracy(world) > 0.9
    assert world.truth.machine.refusals["norm"] <= OUTGROWN_ROUNDS * 2, "refused until the old norms are forgotten"
    loud = [norm for norm in state.norms[ENCODER] if norm > 0.01]
    found = judge_norm(state, ENCODER, 1000 * max(loud))
    assert len(loud) >= NORM_HISTORY_MIN
    assert found is not None
    assert found.type == "norm"

    records = world.truth.ledger.records
    world.close()
    truth = open_truth(tmp_path / "gateway", world.federation)
    truth.ledger.close()
    assert len(records) > LAST
    assert (truth.machine.state.norms, truth.machine.state.outgrown) == (state.norms, state.outgrown)
