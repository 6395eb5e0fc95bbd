"""What all modes of one cell and seed stand on, made from a plan. Trains nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.core.errors import ConfigError
from blossom_edge.core.windows import WindowSet
from blossom_edge.datasets.dataset import Dataset
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.experiments.client import ClientWindows, Counts, ExperimentClient
from blossom_edge.simulation.experiments.division import Division, Seat, divide
from blossom_edge.simulation.experiments.fitting import (
    Scales,
    federation_scales,
    pooled_scales,
    scale_federation,
    the_task,
    window_set,
)
from blossom_edge.simulation.experiments.plan import Plan, Run
from blossom_edge.simulation.experiments.settings import Behaviour

Model = Mapping[BlockId, Tensors]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all modes of a run stand on: who has which windows, how they are standardised, who misbehaves."""

    federation: Federation
    dataset: Dataset
    task: str
    division: Division
    scales: Scales
    behaviours: Mapping[str, Behaviour]
    rounds: int
    seed: int

    def windows(
        self, seat: Seat, rows: Any, *, have: Sequence[str] | None = None, keys: Sequence[str] = ()
    ) -> WindowSet:
        """Windows as this client has them, or with the modalities of `have` alone."""
        have = seat.modalities if have is None else have
        return window_set(
            self.dataset, rows, task=self.task, modalities=keys or seat.modalities, have=have, scales=self.scales
        )

    def changes(self, seat: Seat) -> list[tuple[int, tuple[str, ...]]]:
        """(first round, modalities that deliver): one pair, two where a modality comes or goes while it runs."""
        behaviour = self.behaviours.get(seat.id)
        found = [(1, _without(seat.modalities, behaviour.gain if behaviour else ""))]
        if behaviour is not None and (behaviour.gain or behaviour.lose):
            found.append((behaviour.at_round, _without(seat.modalities, behaviour.lose)))
        return found

    def at_end(self, seat: Seat) -> tuple[str, ...]:
        """The modalities that deliver in the last round."""
        return [modalities for since, modalities in self.changes(seat) if since <= self.rounds][-1]

    def stages(self, seat: Seat, *, keys: Sequence[str] = ()) -> tuple[ClientWindows, ...]:
        """The client's windows by round, a stage for each of `changes`."""
        return tuple(
            ClientWindows(
                since,
                self.windows(seat, seat.train, have=have, keys=keys),
                self.windows(seat, seat.test, have=have, keys=keys),
            )
            for since, have in self.changes(seat)
        )

    def client(self, seat: Seat, federation: Federation) -> ExperimentClient:
        """What this client learns with in `federation`."""
        return ExperimentClient(
            federation,
            device_id=seat.id,
            stages=self.stages(seat),
            task=self.task,
            seed=self.seed,
            behaviour=self.behaviours.get(seat.id),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one client reached."""

    confusions: Sequence[Counts]
    unseen: Counts | None
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    gate: float | None = None


def unseen_counts(
    bench: Bench, seat: Seat, client: ExperimentClient, model: Model, *, keys: Sequence[str] = ()
) -> Counts | None:
    """What the client's model answers for people kept apart, with what delivers at the end; None where nobody is."""
    if not len(bench.division.unseen):
        return None
    return client.confusion(model, bench.windows(seat, bench.division.unseen, have=bench.at_end(seat), keys=keys))


def make_bench(plan: Plan, run: Run) -> Bench:
    """Deal the data out and standardise, equal for every mode of this cell and seed.

    Raises:
        ConfigError: `experiment-invalid`; the combination cannot be.
    """
    settings, dataset, federation = plan.settings, plan.dataset(run.cell.data), plan.federation(run)
    modalities = sorted(federation.modalities)
    division = divide(
        dataset,
        modalities,
        split=run.cell.split,
        profiles=plan.profiles(run, federation),
        windows=run.cell.windows,
        holdout=settings.holdout,
        unseen=settings.unseen,
        seed=run.seed,
    )
    if settings.standardise == "pooled":
        owned = [(seat.modalities, seat.train) for seat in division.seats]
        federation = scale_federation(federation, pooled_scales(dataset, owned))
    behaviours = assign(plan.behaviours(run), division.seats, seed=run.seed)
    task = the_task(federation)
    return Bench(
        federation, dataset, task, division, federation_scales(federation), behaviours, settings.rounds, run.seed
    )


def assign(behaviours: Sequence[Behaviour], seats: Sequence[Seat], *, seed: int) -> dict[str, Behaviour]:
    """Client id -> its behaviour. Those that are counted are drawn by the seed among clients that it can apply to.

    Raises:
        ConfigError: `experiment-invalid`; too few clients, two behaviours for one, or a modality it does not have.
    """
    order = [seats[i] for i in np.random.default_rng((seed, 7)).permutation(len(seats))]
    found: dict[str, Behaviour] = {}
    for behaviour in sorted(behaviours, key=lambda one: not one.clients):
        named = [seats[i] for i in behaviour.clients if i < len(seats)]
        free = [
            seat
            for seat in (named if behaviour.clients else order)
            if seat.id not in found and _applies(behaviour, seat)
        ]
        chosen = free[: behaviour.count or len(behaviour.clients)]
        if len(chosen) < (behaviour.count or len(behaviour.clients)):
            raise ConfigError(
                "experiment-invalid",
                f"behaviours: found {len(chosen)} clients that can have {behaviour_words(behaviour, leave_out=())}, "
                f"expected {behaviour.count or len(behaviour.clients)}",
                hint="a client has one behaviour, and to gain or lose a modality it has that and another one",
            )
        found |= {seat.id: behaviour for seat in chosen}
    if all(seat.id in found and found[seat.id].join_round > 1 for seat in seats):
        raise ConfigError("experiment-invalid", "behaviours: every client joins late, expected one from round 1 on")
    return found


def _applies(behaviour: Behaviour, seat: Seat) -> bool:
    return all(not m or (m in seat.modalities and len(seat.modalities) > 1) for m in (behaviour.gain, behaviour.lose))


def _without(modalities: Sequence[str], modality: str) -> tuple[str, ...]:
    return tuple(m for m in modalities if m != modality)


def behaviour_words(behaviour: Behaviour, *, leave_out: Collection[str] = ("count", "clients")) -> str:
    """A behaviour as its keys stand in the file."""
    values = behaviour.model_dump(exclude_defaults=True, exclude=set(leave_out))
    return ", ".join(f"{key} = {value!r}" for key, value in values.items())
