"""From a profile to something that learns: sensors, windows and torch put together once the federation is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from blossom_edge.client.agent import Learner
from blossom_edge.client.fit import check_fit
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.opening import open_sensors
from firmware_profiles.schema import Profile

POLL_S = 0.5
HOLDOUT = 0.3


def make_learner(
    profile: Profile,
    *,
    device_id: str,
    mock: bool = False,
    replay: Path | None = None,
    seed: int = 0,
    speed: float | None = None,
    labels_per_class: int | None = None,
    holdout: float | None = None,
    tasks: Sequence[str] = (),
) -> Callable[[Federation], Learner]:
    """What a device learns with, made when the federation is known.

    `replay` is one person's recordings, `mock` simulates the sensors.
    A recording is divided by time, its later part (`holdout`) scores; a live stream in blocks of ten windows.

    Raises (when called):
        ConfigError: profile and federation do not fit, the recording does not, or torch is missing.
        HardwareError: a sensor does not answer.
    """

    def make(federation: Federation) -> Learner:
        from blossom_edge.training.trainer import TorchTrainer

        check_fit(profile, federation)
        sensors = open_sensors(profile, federation=federation, mock=mock, replay=replay, seed=seed, speed=speed)
        collector = Collector(
            profile,
            federation,
            sensors,
            holdout=HOLDOUT if holdout is None else holdout,
            split="blocks" if replay is None else "later",
            labels_per_class=labels_per_class,
            seed=seed,
            tasks=tasks or None,
        )
        trainer = TorchTrainer(
            federation,
            device_id=device_id,
            train=collector.train,
            holdout=collector.holdout,
            compute=profile.compute.device,
            threads=profile.compute.threads,
            tasks=tasks,
        )

        def poll(now: float) -> None:
            collector.poll(now)

        all_at_once = replay is not None and not speed
        return Learner(trainer, poll, None if all_at_once else POLL_S, collector.num_seen, trainer.compute_note)

    return make
