"""From a profile to what learns or predicts: sensors, windows, model put together once the federation is known."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blossom_edge.board.clock import TimeStamps, UtcClock
from blossom_edge.client.fit import check_fit, owned_modalities
from blossom_edge.client.learner import Learner
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Sensor, is_live
from blossom_edge.sensors.calibration import read_calibrations
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.labels import LabelledSensor, LabelTrack, boot_id
from blossom_edge.sensors.opening import open_sensors
from firmware_profiles.schema import Profile

POLL_S = 0.5
LIVE_NEW_WINDOWS = 10
"""New labelled windows that a device with real sensors wants for a round: on the same ones, as fast as rounds follow
each other, it would only wear out its link."""
HOLDOUT = 0.3


@dataclass(frozen=True, slots=True)
class Live:
    """What real sensors need beside the profile: where they are, the device's folder, and what is going on now.

    folder: holds the calibration and the label that `blossom-edge label` writes. labels: those to begin with.
    """

    folder: Path
    host: Host = field(default_factory=Host.here)
    labels: Mapping[str, str] = field(default_factory=dict)


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
    live: Live | None = None,
) -> Callable[[Federation], Learner]:
    """What a device learns with, made when the federation is known.

    `replay` is one person's recordings, `mock` simulates the sensors; `live` is needed where neither is given.
    A recording is divided by time, its later part (`holdout`) scores; a live stream in blocks of ten windows.

    Raises (when called):
        ConfigError: profile and federation do not fit, the recording does not, or torch is missing.
        HardwareError: a sensor does not answer.
    """

    def make(federation: Federation) -> Learner:
        check_fit(profile, federation)
        trains = profile.compute.role == "train"
        _check_role(profile, federation, tuple(tasks))
        learner, collector = open_windows(
            profile,
            federation,
            mock=mock,
            replay=replay,
            seed=seed,
            speed=speed,
            labels_per_class=labels_per_class,
            holdout=holdout,
            tasks=tasks,
            live=live,
            keep_fresh=not trains,
        )
        if trains:
            return _with_trainer(learner, profile, federation, collector, device_id=device_id, tasks=tasks)
        waits = live is None
        return _with_model(learner, profile, federation, collector, tasks=tuple(tasks), seed=seed, waits=waits)

    return make


def open_windows(
    profile: Profile,
    federation: Federation,
    *,
    mock: bool = False,
    replay: Path | None = None,
    seed: int = 0,
    speed: float | None = None,
    labels_per_class: int | None = None,
    holdout: float | None = None,
    tasks: Sequence[str] = (),
    live: Live | None = None,
    keep_fresh: bool = False,
) -> tuple[Learner, Collector]:
    """Open the sensors and cut their windows: a learner that has only these, and the collector to give it a model.

    Raises:
        ConfigError: profile and federation do not fit, or the recording does not.
        HardwareError: a sensor does not answer.
    """
    sensors = open_sensors(
        profile,
        federation=federation,
        mock=mock,
        replay=replay,
        seed=seed,
        speed=speed,
        host=live.host if live is not None else None,
        calibrations=read_calibrations(live.folder) if live is not None else None,
    )
    if live is not None:
        sensors = _labelled(sensors, live, federation)
    collector = Collector(
        profile,
        federation,
        sensors,
        holdout=HOLDOUT if holdout is None else holdout,
        split="blocks" if replay is None else "later",
        labels_per_class=labels_per_class,
        seed=seed,
        tasks=tasks or None,
        keep_fresh=keep_fresh,
    )

    def poll(now: float) -> None:
        collector.poll(now)

    stamps = TimeStamps(UtcClock(live.host.root if live is not None else Path("/")))
    all_at_once = replay is not None and not speed
    learner = Learner(
        poll=poll,
        poll_s=None if all_at_once else POLL_S,
        num_seen=collector.num_seen,
        min_new_windows=LIVE_NEW_WINDOWS if any(map(is_live, sensors.values())) else 0,
        sensors=lambda: _sensor_facts(collector, stamps),
        close=collector.close,
        done=lambda: collector.finished,
    )
    return learner, collector


def _with_trainer(
    learner: Learner,
    profile: Profile,
    federation: Federation,
    collector: Collector,
    *,
    device_id: str,
    tasks: Sequence[str],
) -> Learner:
    from blossom_edge.training.trainer import TorchTrainer

    trainer = TorchTrainer(
        federation,
        device_id=device_id,
        train=collector.train,
        holdout=collector.holdout,
        compute=profile.compute.device,
        threads=profile.compute.threads,
        tasks=tasks,
    )
    return replace(learner, trainer=trainer, compute=trainer.compute_note)


def _check_role(profile: Profile, federation: Federation, tasks: tuple[str, ...]) -> None:
    """Before sensors are opened: whether anything can be done in this role, and with what is installed."""
    if profile.compute.role == "train":
        importlib.import_module("blossom_edge.training.trainer")
        return
    from blossom_edge.client.roles import used_blocks
    from blossom_edge.inference.runtime import load_onnxruntime

    used_blocks(federation, owned_modalities(profile, federation), tasks, profile.compute.role)
    load_onnxruntime()


def _with_model(
    learner: Learner,
    profile: Profile,
    federation: Federation,
    collector: Collector,
    *,
    tasks: tuple[str, ...],
    seed: int,
    waits: bool,
) -> Learner:
    from blossom_edge.client.onnx_member import OnnxMember
    from blossom_edge.inference.runtime import RuntimeOptions

    threads = profile.compute.threads or 1
    # one small window at a time: a GPU is slower than the processor, so it is used only where it is asked for
    providers = ("CUDAExecutionProvider",) if profile.compute.device == "cuda" else ()
    member = OnnxMember(
        federation,
        collector,
        role=profile.compute.role,
        tasks=tasks,
        waits=waits,
        clock=time.perf_counter,
        seed=seed,
        options=RuntimeOptions(threads=threads, providers=providers),
    )
    plural = "" if threads == 1 else "s"
    return replace(learner, user=member, compute=f"onnxruntime, {threads} thread{plural}")


def _sensor_facts(collector: Collector, stamps: TimeStamps) -> dict[str, dict[str, Any]]:
    """Per sensor: its state, why and since when, how much its rate is off, and what became of its samples.

    since_utc stays None while this board does not know the time; a change of before is stamped once it does.
    """
    drift, samples, health = collector.drift_ppm(), collector.sample_counts(), collector.health()
    stamps.forget_all_but({(name, verdict.since_s) for name, verdict in health.items()})
    for name, verdict in health.items():
        if math.isfinite(verdict.since_s):
            stamps.mark((name, verdict.since_s), verdict.since_s)
    list(stamps.settle())
    return {
        name: {
            "state": verdict.health.state,
            "reason": verdict.health.reason,
            "since_utc": stamps.get((name, verdict.since_s)),
            "drift_ppm": drift[name],
            "samples": samples[name],
        }
        for name, verdict in health.items()
    }


def _labelled(sensors: Mapping[str, Sensor], live: Live, federation: Federation) -> dict[str, Sensor]:
    boot = boot_id(live.host.root)
    track = LabelTrack(live.folder, federation, values=live.labels, now=live.host.clock(), boot=boot)
    return {
        name: LabelledSensor(sensor, track) if getattr(sensor, "live", False) else sensor
        for name, sensor in sensors.items()
    }
