"""Many devices with simulated sensors in one process: a federation from its first round to its last, in virtual time.

The session, codec, gateway and trainer are those of real devices; equal arguments give equal bytes and versions.
Nothing that it learns says anything about real signals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregator.status import warnings as warnings_of
from blossom_edge.client.agent import Agent, Traffic
from blossom_edge.client.fit import check_fit, load_device_profile
from blossom_edge.core.errors import ConfigError
from blossom_edge.core.metrics import merge
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.learner import make_learner
from blossom_edge.simulation.world import SimulatedDevice, World
from firmware_profiles.schema import Profile

PROFILES = (
    "generic-mock",
    "jetson-imu",
    "rpi4-accel",
    "rpi4-gyro",
    "rpi5-imu-ecg",
    "jetson-orin-nano-av",
    "rpi4-audio",
)
"""Devices take these profiles in turn, without those that do not fit the federation."""
LABELS_PER_CLASS = 4
"""So few labelled windows keep twenty devices quick."""
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """One round: means over the devices' holdouts of the model that came out, and mean bytes per device."""

    round: int
    score: Mapping[str, float | None]
    bytes_up: float
    bytes_down: float


@dataclass(frozen=True, slots=True)
class SimulatedResult:
    """One device at the end; bytes are means over the rounds."""

    id: str
    profile: str
    modalities: tuple[str, ...]
    score: Mapping[str, float | None]
    bytes_up_per_round: float
    bytes_down_per_round: float
    private_blocks_sent: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a simulation found. `versions` is block -> (number, sha256) of the last version."""

    seed: int
    federation: str
    digest: str
    start_score: Mapping[str, float | None]
    """Means before the first round."""
    rounds: tuple[RoundFigures, ...]
    devices: tuple[SimulatedResult, ...]
    versions: Mapping[str, tuple[int, str]]
    warnings: tuple[str, ...]
    stop_reason: str
    virtual_s: float

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it; equal for equal arguments."""
        return {
            "seed": self.seed,
            "federation": self.federation,
            "digest": self.digest,
            "stop_reason": self.stop_reason,
            "start_score": dict(self.start_score),
            "rounds": [
                {
                    "round": one.round,
                    "score": dict(one.score),
                    "bytes_up": round(one.bytes_up),
                    "bytes_down": round(one.bytes_down),
                }
                for one in self.rounds
            ],
            "devices": [
                {
                    "id": one.id,
                    "profile": one.profile,
                    "modalities": list(one.modalities),
                    "score": dict(one.score),
                    "bytes_up_per_round": round(one.bytes_up_per_round),
                    "bytes_down_per_round": round(one.bytes_down_per_round),
                    "private_blocks_sent": one.private_blocks_sent,
                }
                for one in self.devices
            ],
            "versions": {
                block: {"version": number, "sha256": sha256} for block, (number, sha256) in self.versions.items()
            },
            "warnings": list(self.warnings),
            "virtual_s": round(self.virtual_s, 3),
        }


def simulation_sets(*, devices: int, rounds: int, seed: int) -> tuple[str, ...]:
    """What makes a federation one to simulate, as `--set` takes it: it starts with all devices and ends by itself."""
    return (f"seed={seed}", f"rounds.min_devices={devices}", f"schedule.stop_rounds={rounds}")


def simulate(
    federation: Federation,
    num_devices: int,
    folder: Path,
    *,
    seed: int = 0,
    labels_per_class: int | None = LABELS_PER_CLASS,
    on_round: Callable[[int], None] = lambda number: None,
) -> Simulation:
    """Run the federation to its end; `folder` takes what gateway and devices keep. `on_round` hears of ended rounds.

    Raises:
        ConfigError: `usage` when it can never start or end; `federation-mismatch` when no profile fits it.
        BlossomError: what stopped a device.
    """
    if federation.rounds.min_devices > num_devices:
        raise ConfigError(
            "usage",
            f"rounds.min_devices is {federation.rounds.min_devices}, there are {num_devices} devices: it never starts",
            hint="simulate more devices, or lower rounds.min_devices",
        )
    if federation.schedule.stop_rounds < 1:
        raise ConfigError(
            "usage", "schedule.stop_rounds is 0: the simulation never ends", hint="set a number of rounds from 1 on"
        )
    world = World(federation, list(_devices(federation, num_devices, seed, labels_per_class)), folder, seed=seed)
    told = 0

    def over(running: World) -> bool:
        nonlocal told
        scores = running.truth.machine.state.scores
        number = scores[-1][0] if scores else 0
        if number > told:
            told = number
            on_round(number)
        return all(agent.stopped is not None for agent in running.agents)

    try:
        world.run(until=over, longest_s=_longest_s(federation))
        return _result(world, seed)
    finally:
        world.close()


def fitting_profiles(federation: Federation) -> tuple[tuple[Profile, tuple[str, ...]], ...]:
    """The profiles of the mix that fit, each with the modalities that it has in the federation.

    Raises:
        ConfigError: `federation-mismatch` when none does.
    """
    found = []
    for name in PROFILES:
        profile = load_device_profile(name, sets=("compute.device=cpu", "compute.threads=1"))
        try:
            found.append((profile, check_fit(profile, federation)))
        except ConfigError:
            continue
    if not found:
        raise ConfigError(
            "federation-mismatch",
            f"none of the profiles {', '.join(PROFILES)} fits federation {federation.name}",
            hint="blossom-edge profiles list shows what each has",
        )
    return tuple(found)


def _devices(federation: Federation, count: int, seed: int, labels_per_class: int | None) -> Iterable[SimulatedDevice]:
    mix = fitting_profiles(federation)
    digits = len(str(count))
    for number in range(1, count + 1):
        profile, modalities = mix[(number - 1) % len(mix)]
        name = f"{profile.id}-{number:0{digits}}"
        learner = make_learner(
            profile,
            device_id=name,
            mock=True,
            seed=seed * 100_003 + number,
            speed=0.0,
            labels_per_class=labels_per_class,
        )
        yield SimulatedDevice(name, profile.id, modalities, learner, profile_digest=profile.digest)


def _longest_s(federation: Federation) -> float:
    """Virtual seconds after which nothing good can be expected any more."""
    rounds, schedule = federation.rounds, federation.schedule
    each = rounds.start_after_s + rounds.deadline_s + rounds.rejoin_s + schedule.every_s
    if schedule.at or schedule.hours:
        each += 2 * DAY_S
    return 2 * (schedule.stop_rounds + 1) * each


def _result(world: World, seed: int) -> Simulation:
    state = world.truth.machine.state
    last = state.round
    return Simulation(
        seed=seed,
        federation=world.federation.name,
        digest=world.federation.digest,
        start_score=_means(world.agents, 1),
        rounds=tuple(
            RoundFigures(
                number,
                _means(world.agents, number + 1),
                sum(_traffic(agent, number).up for agent in world.agents) / len(world.agents),
                sum(_traffic(agent, number).down for agent in world.agents) / len(world.agents),
            )
            for number in range(1, last + 1)
        ),
        devices=tuple(_device(agent, last) for agent in world.agents),
        versions={str(key): (version.number, version.sha256) for key, version in sorted(state.versions.items())},
        warnings=tuple(warnings_of(world.service)),
        stop_reason=state.stop_reason,
        virtual_s=world.clock.now,
    )


def _device(agent: Agent, last: int) -> SimulatedResult:
    facts = agent.session.facts
    rounds = range(1, last + 1)
    return SimulatedResult(
        id=facts.device,
        profile=facts.profile,
        modalities=facts.modalities,
        score=_means([agent], last + 1),
        bytes_up_per_round=sum(_traffic(agent, n).up for n in rounds) / max(last, 1),
        bytes_down_per_round=sum(_traffic(agent, n).down for n in rounds) / max(last, 1),
        private_blocks_sent=sum(agent.private_sent.values()),
    )


def _means(agents: Iterable[Agent], number: int) -> dict[str, float | None]:
    """Scores of the model that round `number` began with, over all holdout windows of these devices."""
    found = merge(agent.scores[number] for agent in agents if number in agent.scores)
    return {name: metric.mean for name, metric in sorted(found.items())}


def _traffic(agent: Agent, number: int) -> Traffic:
    return agent.traffic.get(number, Traffic())
