"""Two tasks on different devices with one encoder: an activity on two devices, a speed on two others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from live import AGGREGATOR, Place, call_json

from aggregator.spool import Spool
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(120)]

ENCODER = BlockId.parse("encoder/accel")
WINDOW = ["--set=modalities.accel.window=64", "--set=modalities.accel.hop=32"]
ROUNDS = 20


def test_the_encoder_is_averaged_over_both_tasks_and_nothing_else_leaves(place: Place) -> None:
    sets = [f"schedule.stop_rounds={ROUNDS}", "rounds.min_devices=4"]
    gateway = place.serve("--until-finished", *(f"--set={s}" for s in sets), federation="two-tasks")
    tasks = {"act-1": "activity", "act-2": "activity", "speed-1": "speed", "speed-2": "speed"}
    devices = [
        place.join(name, "--profile=rpi4-accel", "--mock", *WINDOW, f"--task={task}", f"--seed={seed}")
        for seed, (name, task) in enumerate(tasks.items())
    ]
    assert [device.wait() for device in devices] == [0, 0, 0, 0]
    assert gateway.wait() == 0

    records = place.records()
    commits = [record for record in records if record["type"] == "commit"]
    assert len(commits) == ROUNDS
    assert all(list(commit["blocks"]) == ["encoder/accel"] for commit in commits)
    assert all(commit["blocks"]["encoder/accel"]["members"] == sorted(tasks) for commit in commits)
    assert {record["block"] for record in records if record["type"] == "accept"} == {"encoder/accel"}
    _check_mean(place, sets, records)

    for name, task in tasks.items():
        status = place.device(name)
        private = {b for b in status["private"] if b.startswith("fusion/")} | {f"head/{task}"}
        assert private == {f"fusion/{task}", f"fusion/{task}.accel", f"head/{task}"}
        assert list(status["versions"]) == ["encoder/accel"]
        assert set(status["score"]) == {f"{task}.loss", f"{task}.{'accuracy' if task == 'activity' else 'mae'}"}

    scores = dict(call_json(AGGREGATOR, "status", "--data-dir", str(place.gateway_folder))["scores"])
    first, last = scores[1], scores[ROUNDS]
    assert last["activity.accuracy"] > first["activity.accuracy"]
    assert last["activity.accuracy"] > 0.8
    assert last["speed.mae"] < 0.8 * first["speed.mae"]


def _check_mean(place: Place, sets: list[str], records: list[dict[str, Any]]) -> None:
    """The version of round 1 is version 0 plus the mean of the four updates by sample counts, worked out here anew."""
    federation = load_federation("two-tasks", sets=sets)
    spec, codec = federation.spec[ENCODER], make_codec("float32")
    updates, versions = Spool(place.gateway_folder / "spool"), Spool(place.gateway_folder / "versions")
    kept = sorted((r for r in records if r["type"] == "accept" and r["round"] == 1), key=lambda r: r["device"])
    assert len(kept) == 4
    deltas = [codec.decode(updates.get(record["sha256"]), spec) for record in kept]
    weights = [record["num_samples"] for record in kept]
    commit = next(record for record in records if record["type"] == "commit")
    before = initial_block(spec, federation.digest, federation.seed)
    after = codec.decode(versions.get(commit["blocks"]["encoder/accel"]["sha256"]), spec)
    for name, values in before.items():
        total = sum(w * delta[name].astype(np.float64) for w, delta in zip(weights, deltas, strict=True))
        assert np.allclose(after[name], values + total / sum(weights), rtol=0, atol=1e-7)
