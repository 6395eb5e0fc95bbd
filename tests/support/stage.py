"""A simulated world whose links, gateway and devices can be broken, with all that passed the broker kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aggregator.recovery import open_truth
from aggregator.round_state import RoundState
from aggregator.service import Service
from blossom_edge.client.agent import Agent
from blossom_edge.codec.envelope import decode
from blossom_edge.codec.messages import CAST, DOWN, UP, WireMessage
from blossom_edge.core.blocks import BlockKey
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.world import SHORTEST_S, SimulatedDevice, World
from blossom_edge.transport.topics import Topic
from support.learning import NoiseTrainer

BOTH = ("accel", "gyro")
ACCEL = ("accel",)
GYRO = ("gyro",)
KINDS = {"up": {m.NAME: m for m in UP}, "down": {m.NAME: m for m in DOWN}, "cast": {m.NAME: m for m in CAST}}


class Stage:
    """A `World` of devices with `NoiseTrainer`s, and the means to break it."""

    def __init__(
        self,
        folder: Path,
        federation: Federation,
        devices: Sequence[tuple[str, tuple[str, ...]]],
        *,
        seed: int = 0,
        tasks: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.trainers = {device: NoiseTrainer(device, modalities) for device, modalities in devices}
        self._tasks = tasks or {}
        self.traffic: list[tuple[str, bytes]] = []
        self.world = World(federation, [], folder, seed=seed)
        self.world.broker.watch(lambda topic, payload: self.traffic.append((topic, payload)))
        for device, _ in devices:
            self.join(device)

    # ---- the cast

    def add(self, device: str, modalities: tuple[str, ...]) -> Agent:
        """A device that comes now."""
        self.trainers[device] = NoiseTrainer(device, modalities)
        return self.join(device)

    def join(self, device: str) -> Agent:
        """A device of the cast starts."""
        trainer = self.trainers[device]
        tasks = self._tasks.get(device, ())
        return self.world.join(SimulatedDevice(device, "test", trainer.modalities, trainer.learner, tasks=tasks))

    def agent(self, device: str) -> Agent:
        """The running agent of a device."""
        return next(a for a in self.world.agents if a.session.facts.device == device)

    def kill(self, device: str) -> None:
        """A device's process dies: its will is delivered, its folder stays as it is."""
        agent = self.agent(device)
        self.world.broker.cut(device)
        agent.store.close()
        self.world.agents.remove(agent)

    def restart_gateway(self) -> None:
        """The gateway's process died and starts again on what is on its disk."""
        world = self.world
        world.truth.ledger.close()
        world.truth = open_truth(world.folder / "gateway", world.federation)
        world.service = Service(world.truth, world.broker.link("gateway"), clock=world.clock)

    # ---- time

    def run(self, until: Callable[[], bool] | None = None, *, longest_s: float = 3600.0) -> None:
        """Run until `until` says so, else until every device has ended."""
        self.world.run(until=None if until is None else lambda world: until(), longest_s=longest_s)

    def run_for(self, seconds: float) -> None:
        """Let exactly so much virtual time pass."""
        clock = self.world.clock
        end = clock.now + seconds
        while clock.now < end:
            due = self.world.next_due()
            if not self.world.step():
                clock.now = min(end, max(due if due is not None else end, clock.now + SHORTEST_S))
        while self.world.step():
            pass

    def count_steps(self, until: Callable[[], bool]) -> int:
        """Run until `until` says so; how often everybody was asked for something to do."""
        steps = 0

        def counted() -> bool:
            nonlocal steps
            steps += 1
            return until()

        self.run(counted)
        return steps

    def until_round(self, number: int) -> None:
        """Run until this round is open."""
        self.run(lambda: self.state.current is not None and self.state.round == number)

    # ---- what happened

    @property
    def state(self) -> RoundState:
        """The gateway's state."""
        return self.world.truth.machine.state

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The ledger's records of a type."""
        return [dict(r) for r in self.world.truth.ledger.records if r["type"] == kind]

    def versions(self) -> dict[str, tuple[int, str]]:
        """Number and hash of every block's newest version."""
        return {str(k): (v.number, v.sha256) for k, v in sorted(self.state.versions.items())}

    def members(self, block: str) -> list[tuple[int, list[str]]]:
        """Round and members of every commit of a block."""
        return [(r["round"], r["blocks"][block]["members"]) for r in self.records("commit") if block in r["blocks"]]

    def sent(self, direction: str, kind: str, device: str = "") -> list[WireMessage]:
        """Messages that reached the broker, decoded."""
        found = []
        for topic, payload in self.traffic:
            parsed = Topic.parse(topic)
            if parsed is not None and (parsed.direction, parsed.kind, parsed.device) == (direction, kind, device):
                found.append(decode(payload, allowed=(KINDS[direction][kind],)).message)
        return found

    def wire_hash(self) -> str:
        """SHA-256 over everything that passed the broker."""
        whole = hashlib.sha256()
        for topic, payload in self.traffic:
            whole.update(topic.encode() + b"\0" + hashlib.sha256(payload).digest())
        return whole.hexdigest()

    def close(self) -> None:
        """Close all files."""
        self.world.close()


def key(text: str) -> BlockKey:
    """A block key from its text."""
    return BlockKey.parse(text)
