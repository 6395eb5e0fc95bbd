"""Runs without a network: own most frequent label, each client alone, all windows in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.experiments.bench import Bench, Model, Outcome, unseen_counts
from blossom_edge.simulation.experiments.client import ClientWindows, Counts, ExperimentClient, windows_at
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
    return rows[np.logical_or.reduce([bench.dataset.modalities[m].present[rows] for m in bench.at_end(seat)])]


def local(bench: Bench) -> dict[str, Outcome]:
    """Each client for itself; every block private, with the values it begins with in private head and fusion."""
    own, found = all_private(bench.federation), {}
    for seat in bench.division.seats:
        client = bench.client(seat, own)
        model: Model = DeviceBlocks(bench.federation, seat.modalities, ()).model({}, {})
        model = _train(client, own, model, bench.rounds, _own_score(client))
        found[seat.id] = Outcome(client.confusions, unseen_counts(bench, seat, client, model))
    return found


def _own_score(client: ExperimentClient) -> Callable[[Model, int], object]:
    return lambda model, number: client.evaluate(model)


def centralised(bench: Bench) -> dict[str, Outcome]:
    """One model on the windows of all clients, with the modalities that each has in the round; scored so, too."""
    own, keys = all_private(bench.federation), sorted(bench.federation.modalities)
    stages = {seat.id: bench.stages(seat, keys=keys) for seat in bench.division.seats}
    joined = []
    for since in sorted({stage.since for each in stages.values() for stage in each}):
        train = WindowSet.joined(windows_at(each, since).train for each in stages.values())
        joined.append(ClientWindows(since, train, train))
    one = ExperimentClient(own, device_id="all", stages=tuple(joined), task=bench.task, seed=bench.seed)
    confusions: dict[str, list[Counts]] = {seat: [] for seat in stages}

    def score(model: Model, number: int) -> None:
        for seat, each in stages.items():
            confusions[seat].append(one.confusion(model, windows_at(each, number).test))

    model: Model = DeviceBlocks(bench.federation, tuple(keys), ()).model({}, {})
    model = _train(one, own, model, bench.rounds, score)
    unseen: dict[tuple[str, ...], Counts | None] = {}
    for seat in bench.division.seats:
        if bench.at_end(seat) not in unseen:
            unseen[bench.at_end(seat)] = unseen_counts(bench, seat, one, model, keys=keys)
    return {s.id: Outcome(confusions[s.id], unseen[bench.at_end(s)]) for s in bench.division.seats}


def _train(
    client: ExperimentClient, federation: Federation, model: Model, rounds: int, score: Callable[[Model, int], object]
) -> Model:
    """Train without a network; `score` is called with the number of the round before each and after the last."""
    optimizer: Mapping[str, Any] = {}
    for number in range(1, rounds + 1):
        client.go_to(number)
        score(model, number)
        result = client.train(
            model, federation.local_training(number), round_number=number, frozen=frozenset(), optimizer=optimizer
        )
        model, optimizer = {**model, **result.blocks}, result.optimizer
    score(model, rounds)
    return model
