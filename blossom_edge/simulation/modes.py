"""The same devices learning in several ways, to be compared: alone, with the full model shared, or block-wise.

Every mode has the same people, windows, seeds, rounds and local training. Starting values follow from the
federation's digest and seed: those of `alone` are the block-wise federation's, those of `full` its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.fit import load_device_profile
from blossom_edge.client.learner import Learner
from blossom_edge.core.blocks import BlockId, Tensors, Visibility
from blossom_edge.core.metrics import Metric, MetricSums
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.opening import open_sensors
from blossom_edge.simulation.learner import make_learner
from blossom_edge.simulation.world import SimulatedDevice, World

FEDERATION = "har"
MEASURE = "har.accuracy"
VISIBILITY = {"full": "full", "private_head_fusion": "private-head-fusion"}
NEW_PEOPLE = (7, 8, 9, 10)
"""People whose recordings no device has."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One device of the demo: its profile, and the person whose recordings it replays."""

    id: str
    profile: str
    modalities: tuple[str, ...]
    person: int


CAST = (
    Seat("jetson-imu-1", "jetson-imu", ("accel", "gyro"), 1),
    Seat("jetson-imu-2", "jetson-imu", ("accel", "gyro"), 2),
    Seat("rpi4-accel-3", "rpi4-accel", ("accel",), 3),
    Seat("rpi4-accel-4", "rpi4-accel", ("accel",), 4),
    Seat("rpi4-gyro-5", "rpi4-gyro", ("gyro",), 5),
    Seat("rpi4-gyro-6", "rpi4-gyro", ("gyro",), 6),
)


@dataclass(frozen=True, slots=True)
class Learned:
    """What one device reached in one mode: own score after 0, 1, ... rounds, and the score on new people."""

    curve: tuple[float, ...]
    new_people_score: float


def demo_federation(mode: str, *, rounds: int, seed: int) -> Federation:
    """The demo's federation in this mode; it ends by itself after `rounds`."""
    return load_federation(FEDERATION, sets=demo_sets(mode, rounds=rounds, seed=seed))


def demo_sets(mode: str, *, rounds: int, seed: int) -> tuple[str, ...]:
    """What makes the preset the demo's federation, as `--set` takes it."""
    return (
        f"visibility={VISIBILITY[mode]}",
        f"seed={seed}",
        f"schedule.stop_rounds={rounds}",
        f"rounds.min_devices={len(CAST)}",
    )


def learn(
    mode: str,
    people: Path,
    *,
    rounds: int,
    seed: int,
    labels_per_class: int | None,
    folder: Path,
    on_round: Callable[[int], None] = lambda number: None,
    cast: Sequence[Seat] = CAST,
) -> dict[str, Learned]:
    """Let every device learn in one mode, in this process; by device id. `on_round` hears of each round that ended.

    Raises:
        BlossomError: what stopped a device.
    """
    if mode == "alone":
        return _learn_alone(people, cast, rounds, seed, labels_per_class, on_round)
    federation = demo_federation(mode, rounds=rounds, seed=seed)
    devices = [
        SimulatedDevice(
            seat.id, seat.profile, seat.modalities, _learner(seat, people, seed=seed, labels_per_class=labels_per_class)
        )
        for seat in cast
    ]
    world = World(federation, devices, folder, seed=seed)
    told = 0

    def over(running: World) -> bool:
        nonlocal told
        number = running.truth.machine.state.scores[-1][0] if running.truth.machine.state.scores else 0
        if number > told:
            told = number
            on_round(number)
        return all(agent.stopped is not None for agent in running.agents)

    try:
        world.run(until=over)
        learned = {}
        for seat, agent in zip(cast, world.agents, strict=True):
            curve = tuple(score_of(score) for _, score in sorted(agent.scores.items()))
            learned[seat.id] = Learned(curve, evaluate_model(federation, agent.session.model(), seat.profile, people))
    finally:
        world.close()
    return learned


def evaluate_model(
    federation: Federation,
    blocks: Mapping[BlockId, Tensors],
    profile_name: str,
    people: Path,
    persons: Sequence[int] = NEW_PEOPLE,
) -> float:
    """Share of right answers over all labelled windows of these people, with the modalities of this profile."""
    from blossom_edge.training.trainer import TorchTrainer

    right = count = 0.0
    for person in persons:
        collector = _collector(federation, profile_name, people / str(person))
        trainer = TorchTrainer(
            federation, device_id="new", train=collector.train, holdout=collector.train, compute="cpu", threads=1
        )
        found = trainer.evaluate(blocks)[MEASURE]
        right, count = right + found.total, count + found.count
    return right / count


def majority_scores(
    federation: Federation, people: Path, *, seed: int, labels_per_class: int | None, cast: Sequence[Seat] = CAST
) -> tuple[float, float]:
    """What always naming one label gets: mean over the own holdouts, and over the new people.

    The label is the most frequent one of what is scored, which no device knows: the most that such an answer can get.
    """
    own = []
    for seat in cast:
        collector = _collector(
            federation,
            seat.profile,
            people / str(seat.person),
            holdout=None,
            seed=seed,
            labels_per_class=labels_per_class,
        )
        own.append(_most_frequent([collector.holdout().labels["har"]]))
    new = [_collector(federation, cast[0].profile, people / str(p)).train().labels["har"] for p in NEW_PEOPLE]
    return sum(own) / len(own), _most_frequent(new)


def score_of(score: MetricSums) -> float:
    """The accuracy of an evaluation.

    Raises:
        KeyError: it has none.
    """
    found: Metric = score[MEASURE]
    return found.total / found.count


def _learn_alone(
    people: Path,
    cast: Sequence[Seat],
    rounds: int,
    seed: int,
    labels_per_class: int | None,
    on_round: Callable[[int], None],
) -> dict[str, Learned]:
    """Every block private to its device, with the starting values that it has in the block-wise federation."""
    federation = demo_federation("private_head_fusion", rounds=rounds, seed=seed)
    own = _all_private(federation)
    learners = [_learner(seat, people, seed=seed, labels_per_class=labels_per_class)(own) for seat in cast]
    models = [DeviceBlocks(federation, seat.modalities, ()).model({}, {}) for seat in cast]
    optimizers: list[Mapping[str, Any]] = [{} for _ in cast]
    curves: list[list[float]] = [[] for _ in cast]
    for learner in learners:
        learner.poll(0.0)
    for number in range(1, rounds + 1):
        training: LocalTraining = own.local_training(number)
        for i, learner in enumerate(learners):
            curves[i].append(score_of(learner.must_train().evaluate(models[i])))
            result = learner.must_train().train(
                models[i], training, round_number=number, frozen=frozenset(), optimizer=optimizers[i]
            )
            models[i], optimizers[i] = {**models[i], **result.blocks}, result.optimizer
        on_round(number)
    learned = {}
    for i, seat in enumerate(cast):
        curves[i].append(score_of(learners[i].must_train().evaluate(models[i])))
        learned[seat.id] = Learned(tuple(curves[i]), evaluate_model(own, models[i], seat.profile, people))
    return learned


def _all_private(federation: Federation) -> Federation:
    values = federation.to_dict()
    for block in values["blocks"].values():
        block["visibility"] = Visibility.PRIVATE.value
    return Federation.from_dict(values)


def _learner(seat: Seat, people: Path, *, seed: int, labels_per_class: int | None) -> Callable[[Federation], Learner]:
    return make_learner(
        load_device_profile(seat.profile, sets=("compute.device=cpu", "compute.threads=1")),
        device_id=seat.id,
        replay=people / str(seat.person),
        seed=seed,
        labels_per_class=labels_per_class,
    )


def _collector(
    federation: Federation,
    profile_name: str,
    recording: Path,
    *,
    holdout: float | None = 0.0,
    seed: int = 0,
    labels_per_class: int | None = None,
) -> Collector:
    """All windows of one person, read to the end; holdout None: divided as the device itself does."""
    from blossom_edge.simulation.learner import HOLDOUT

    profile = load_device_profile(profile_name)
    collector = Collector(
        profile,
        federation,
        open_sensors(profile, federation=federation, replay=recording),
        holdout=HOLDOUT if holdout is None else holdout,
        labels_per_class=labels_per_class,
        seed=seed,
    )
    while not collector.finished:
        collector.poll(0.0)
    return collector


def _most_frequent(labels: Sequence[Any]) -> float:
    every = np.concatenate(labels)
    counts = np.bincount(every[every >= 0])
    return float(counts.max() / counts.sum())
