"""Runs without a network: own most frequent label, each client alone, all windows in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.experiments.bench import Bench, Model, Outcome, unseen_counts
from blossom_edge.simulation.experiments.client import ClientWindows, Counts, ExperimentClient
from blossom_edge.simulation.experiments.division import Seat
from blossom_edge.simulation.experiments.fitting import all_private


def majority(bench: Bench) -> dict[str, Outcome]:
    """Each client's most frequent training label, for every window."""
    size = len(bench.dataset.classes)
    found = {}
    for seat in bench.division.seats:
        answer = int(np.bincount(bench.dataset.labels[seat.train], minlength=size).argmax())
        counts = [np.zeros((size, size), dtype=np.int64) for _ in range(2)]
        unseen_rows = _usable_rows(bench, seat)
        for matrix, rows in zip(counts, (seat.test, unseen_rows), strict=True):
            matrix[:, answer] = np.bincount(bench.dataset.labels[rows], minlength=size)
        found[seat.id] = Outcome([counts[0]] * (bench.rounds + 1), counts[1] if len(unseen_rows) else None)
    return found


def _usable_rows(bench: Bench, seat: Seat) -> Any:
    rows = bench.division.unseen
    return rows[np.logical_or.reduce([bench.dataset.modalities[m].present[rows] for m in seat.modalities])]


def local(bench: Bench) -> dict[str, Outcome]:
    """Each client for itself; every block private, with the values it begins with in private head and fusion."""
    own, found = all_private(bench.federation), {}
    for seat in bench.division.seats:
        client = bench.client(seat, own)
        model: Model = DeviceBlocks(bench.federation, seat.modalities, ()).model({}, {})
        model = _train(client, own, model, bench.rounds, client.evaluate)
        found[seat.id] = Outcome(client.confusions, unseen_counts(bench, seat, client, model))
    return found


def centralised(bench: Bench) -> dict[str, Outcome]:
    """One model on the windows of all clients, with the modalities that each has; scored as each client has them."""
    own, keys = all_private(bench.federation), sorted(bench.federation.modalities)
    stages = {seat.id: bench.stages(seat, keys=keys)[0] for seat in bench.division.seats}
    train = WindowSet.joined(stage.train for stage in stages.values())
    one = ExperimentClient(
        own, device_id="all", stages=(ClientWindows(1, train, train),), task=bench.task, seed=bench.seed
    )
    confusions: dict[str, list[Counts]] = {seat: [] for seat in stages}

    def score(model: Model) -> None:
        for seat, stage in stages.items():
            confusions[seat].append(one.confusion(model, stage.test))

    model: Model = DeviceBlocks(bench.federation, tuple(keys), ()).model({}, {})
    model = _train(one, own, model, bench.rounds, score)
    unseen: dict[tuple[str, ...], Counts | None] = {}
    for seat in bench.division.seats:
        if seat.modalities not in unseen:
            unseen[seat.modalities] = unseen_counts(bench, seat, one, model, keys=keys)
    return {s.id: Outcome(confusions[s.id], unseen[s.modalities]) for s in bench.division.seats}


def _train(
    client: ExperimentClient, federation: Federation, model: Model, rounds: int, score: Callable[[Model], object]
) -> Model:
    """Train without a network, scored before the first round and after each."""
    optimizer: Mapping[str, Any] = {}
    for number in range(1, rounds + 1):
        client.go_to(number)
        score(model)
        result = client.train(
            model, federation.local_training(number), round_number=number, frozen=frozenset(), optimizer=optimizer
        )
        model, optimizer = {**model, **result.blocks}, result.optimizer
    score(model)
    return model
