"""A gateway and its devices in one process, on loopback and in virtual time: the real service, agents and codecs.

Everybody steps in a fixed order until nobody has anything to do; then the clock jumps to the next due time.
Equal arguments give equal bytes on the wire and equal versions: the keys come from the seed, so they protect nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from aggregator.recovery import KEY_FILE as GATEWAY_KEY_FILE
from aggregator.recovery import open_truth
from aggregator.service import Service
from blossom_edge.client.actions import DeviceFacts
from blossom_edge.client.agent import Agent
from blossom_edge.client.learner import Learner
from blossom_edge.client.session import Session
from blossom_edge.client.store import KEY_FILE as DEVICE_KEY_FILE
from blossom_edge.client.store import Store
from blossom_edge.client.will import make_will
from blossom_edge.core.errors import BlossomError
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.federation.schema import Federation
from blossom_edge.transport.loopback import LoopbackBroker

SHORTEST_S = 1e-3
"""The clock jumps at least this far."""


@dataclass(slots=True)
class VirtualClock:
    """Seconds that pass only when told to."""

    now: float = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


class Party(Protocol):
    """Whoever takes part: a service or an agent."""

    def step(self, timeout_s: float) -> bool:
        """Do one thing; whether there was one to do."""
        ...

    def next_due(self) -> float | None:
        """When there will be something to do."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """One device to simulate: its id, what its profile says, and what it learns with."""

    device: str
    profile: str
    modalities: tuple[str, ...]
    make_learner: Callable[[Federation], Learner]
    tasks: tuple[str, ...] = ()
    profile_digest: str = field(default="0" * 64)


def make_agent(
    device: SimulatedDevice, federation_name: str, broker: LoopbackBroker, folder: Path, clock: VirtualClock
) -> Agent:
    """A device's agent on a loopback broker, its store in `folder`."""
    store = Store(folder, device.device)
    facts = DeviceFacts(
        device=device.device,
        boot=store.boot,
        key=store.key.public_hex,
        profile=device.profile,
        profile_digest=device.profile_digest,
        modalities=device.modalities,
        tasks=device.tasks,
    )
    session = Session(facts, federation=store.known_federation(federation_name))
    link = broker.link(device.device, will=make_will(federation_name, facts, store.key))
    return Agent(link, session, store, federation_name=federation_name, make_learner=device.make_learner, clock=clock)


def plant_key(path: Path, seed: int, name: str) -> None:
    """Put the key that `seed` gives to `name` into `path`, unless one is there."""
    if not path.exists():
        make_folder(path.parent)
        secret = hashlib.sha256(f"key of a simulation\n{seed}\n{name}".encode()).digest()
        atomic_write(path, secret, name="key")


class World:
    """One simulated federation; `folder` takes what gateway and devices keep on disk, `seed` gives their keys.

    retention_rounds: for so many rounds the gateway keeps updates and versions; 0: for all.
    """

    def __init__(
        self,
        federation: Federation,
        devices: Sequence[SimulatedDevice],
        folder: Path,
        *,
        seed: int = 0,
        retention_rounds: int = 0,
    ) -> None:
        self.clock = VirtualClock()
        self.broker = LoopbackBroker()
        self.federation = federation
        self.folder = folder
        self.agents: list[Agent] = []
        self._seed = seed
        plant_key(folder / "gateway" / GATEWAY_KEY_FILE, seed, "gateway")
        self.truth = open_truth(folder / "gateway", federation)
        self.service = Service(
            self.truth, self.broker.link("gateway"), clock=self.clock, retention_rounds=retention_rounds
        )
        for device in devices:
            self.join(device)

    def join(self, device: SimulatedDevice) -> Agent:
        """One device more, from now on; one that was here before finds what it left on its disk."""
        edge = self.folder / "edge"
        plant_key(edge / "devices" / device.device / DEVICE_KEY_FILE, self._seed, device.device)
        agent = make_agent(device, self.federation.name, self.broker, edge, self.clock)
        self.agents.append(agent)
        return agent

    def run(self, *, until: Callable[[World], bool] | None = None, longest_s: float = 1e7) -> None:
        """Run until `until` says so, else until every device has stopped.

        Raises:
            BlossomError: a device's error, or nothing can ever happen again.
        """
        done = until or (lambda world: all(agent.stopped is not None for agent in world.agents))
        while not done(self):
            if self.clock.now > longest_s:
                raise BlossomError("gateway-silent", f"the simulation did not end in {longest_s:.0f} virtual seconds")
            if not self.step():
                self._wait()

    def step(self) -> bool:
        """Everybody who has something to do does one thing."""
        progressed = self.service.step(0.0)
        for agent in self.agents:
            if agent.stopped is None:
                progressed |= agent.step(0.0)
                self._raise_error_of(agent)
        return progressed

    def _raise_error_of(self, agent: Agent) -> None:
        if agent.stopped is not None and agent.stopped.error is not None:
            raise agent.stopped.error

    def next_due(self) -> float | None:
        """When somebody will have something to do; None when only a message could change anything."""
        parties: list[Party] = [self.service, *(a for a in self.agents if a.stopped is None)]
        return min((t for t in (party.next_due() for party in parties) if t is not None), default=None)

    def _wait(self) -> None:
        due = self.next_due()
        if due is None:
            raise BlossomError("gateway-silent", "nothing can happen any more: everybody waits for somebody else")
        self.clock.now = max(due, self.clock.now + SHORTEST_S)

    def close(self) -> None:
        """Close all files."""
        for agent in self.agents:
            agent.leave("the simulation is over")
        self.truth.ledger.close()
