"""A run of a whole federation: the real session, codec, round machine and averaging, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.learner import Learner
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.experiments.bench import Bench, Model, Outcome, unseen_counts
from blossom_edge.simulation.experiments.client import ExperimentClient
from blossom_edge.simulation.world import SimulatedDevice, World

LONGEST_S = 1e9
KEPT_ROUNDS = 2
"""What older rounds left is dropped: sixty rounds of ten devices would be half a gigabyte of memory."""


def federated(bench: Bench, folder: Path) -> dict[str, Outcome]:
    """The whole federation; who joins after the last round is scored with what the others made."""
    clients = {seat.id: bench.client(seat, bench.federation) for seat in bench.division.seats}
    waiting = {
        seat.id: bench.behaviours[seat.id].join_round
        for seat in bench.division.seats
        if seat.id in bench.behaviours and bench.behaviours[seat.id].join_round > 1
    }
    devices = {
        seat.id: SimulatedDevice(seat.id, "experiment", seat.modalities, _learns_with(clients[seat.id]))
        for seat in bench.division.seats
    }
    first = [device for name, device in devices.items() if name not in waiting]
    world = World(bench.federation, first, folder, seed=bench.seed, retention_rounds=KEPT_ROUNDS)

    def over(running: World) -> bool:
        number = running.truth.machine.state.round
        for client in clients.values():
            client.go_to(max(number, 1))
        for name in [
            name for name, join_round in waiting.items() if number >= join_round - 1 and number < bench.rounds
        ]:
            del waiting[name]
            running.join(devices[name])
        return all(agent.stopped is not None for agent in running.agents)

    try:
        world.run(until=over, longest_s=LONGEST_S)
        return _outcomes(bench, world, clients)
    finally:
        world.close()


def _learns_with(client: ExperimentClient) -> Callable[[Federation], Learner]:
    return lambda federation: Learner(trainer=client)


def _outcomes(bench: Bench, world: World, clients: Mapping[str, ExperimentClient]) -> dict[str, Outcome]:
    agents = {str(agent.session.facts.device): agent for agent in world.agents}
    held = {key: one for agent in agents.values() for key, one in agent.session.downloads.held.items()}
    found = {}
    for seat in bench.division.seats:
        client, agent = clients[seat.id], agents.get(seat.id)
        if agent is None:
            model: Model = DeviceBlocks(bench.federation, seat.modalities, ()).model(held, {})
            client.evaluate(model)
            up = down = 0.0
        else:
            model = agent.session.model()
            rounds = range(1, bench.rounds + 1)
            up = sum(agent.traffic[n].up for n in rounds if n in agent.traffic) / bench.rounds
            down = sum(agent.traffic[n].down for n in rounds if n in agent.traffic) / bench.rounds
        # who came late has no score of the rounds before: the first one stands for them
        missing = max(bench.rounds + 1 - len(client.confusions), 0)
        confusions = client.confusions[:1] * missing + client.confusions
        gate = client.gate
        unseen = unseen_counts(bench, seat, client, model)
        found[seat.id] = Outcome(confusions, unseen, bytes_up=up, bytes_down=down, gate=gate)
    return found
