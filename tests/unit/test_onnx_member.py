"""A device of role infer or personalize without its link: versions in, predictions out, its own head between."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from support.swapping import FEDERATION, KEYS, held_at, spoiled, store

from blossom_edge.client.actions import Held
from blossom_edge.client.fit import load_device_profile
from blossom_edge.client.onnx_member import PROVED_AFTER, OnnxMember
from blossom_edge.core.blocks import BlockId, BlockKey
from blossom_edge.core.errors import ConfigError, RemoteError
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.inference.generation import Received, run_model
from blossom_edge.inference.model_folder import look
from blossom_edge.sensors.collector import Collector
from blossom_edge.simulation.learner import open_windows

PROFILE = load_device_profile("jetson-imu")
AT_HOME = load_federation("har")
ENCODERS = {block: key for block, key in KEYS.items() if str(block).startswith("encoder/")}


def windows(federation: Federation = FEDERATION) -> Collector:
    """Two minutes of a simulated IMU with labels, all there at once."""
    learner, collector = open_windows(PROFILE, federation, mock=True, speed=0.0, seed=5, keep_fresh=True)
    learner.poll(0.0)
    return collector


def member(collector: Collector, federation: Federation = FEDERATION, *, role: str, waits: bool = True) -> OnnxMember:
    return OnnxMember(federation, collector, role=role, tasks=(), waits=waits, clock=time.perf_counter)


def versions(number: int, changes: Mapping[BlockKey, Received] | None = None) -> dict[BlockKey, Held]:
    found = {**held_at(number), **(changes or {})}
    return {key: Held(one.version, one.sha256, one.data) for key, one in found.items()}


def test_windows_of_a_recording_wait_for_the_first_model_and_are_predicted_once(tmp_path: Path) -> None:
    collector = windows()
    device = member(collector, role="infer")
    device.open(tmp_path, keys=KEYS, boot=1)
    assert device.update(0.0) == []
    assert device.take(versions(0)).words == "waits for the first trained versions"
    assert device.update(0.0) == []
    assert device.take(versions(1)).words == "generation 1 in use"
    first = device.update(1.0)
    assert [p.number for p in first] == list(range(1, len(first) + 1))
    assert len(first) > 60
    assert {frozenset(p.versions.items()) for p in first} == {frozenset((str(block), 1) for block in KEYS)}
    assert device.update(2.0) == []
    assert device.status()["num_predicted"] == len(first)
    # where a label changes within a window there is none
    assert device.score["har.accuracy"].count == collector.num_seen() < len(first)


def test_windows_of_live_sensors_before_the_first_model_pass_by_and_are_counted(tmp_path: Path) -> None:
    collector = windows()
    device = member(collector, role="infer", waits=False)
    device.open(tmp_path, keys=KEYS, boot=1)
    device.update(0.0)
    device.take(versions(1))
    assert device.update(1.0) == []
    assert device.status()["num_before_first_model"] > 60


def test_a_restart_predicts_with_what_was_in_use_before_anybody_answers(tmp_path: Path) -> None:
    device = member(windows(), role="infer")
    device.open(tmp_path, keys=KEYS, boot=1)
    device.take(versions(3))
    device.close()
    again = member(windows(), role="infer")
    again.open(tmp_path, keys=KEYS, boot=2)
    found = again.update(0.0)
    assert {p.versions["encoder/accel"] for p in found} == {3}


def test_a_generation_is_proved_by_predictions_or_by_time(tmp_path: Path) -> None:
    device = member(windows(), role="infer")
    device.open(tmp_path, keys=KEYS, boot=1)
    device.take(versions(1))
    assert device.status()["on_trial"]
    assert len(device.update(0.0)) >= PROVED_AFTER
    assert not device.status()["on_trial"]
    device.take(versions(2))
    device.update(10.0)
    assert device.status()["on_trial"]
    device.update(80.0)
    assert not device.status()["on_trial"]


def test_a_version_that_cannot_be_used_is_told_and_the_one_before_goes_on(tmp_path: Path) -> None:
    device = member(windows(), role="infer")
    device.open(tmp_path, keys=KEYS, boot=1)
    device.take(versions(1))
    accel = KEYS[BlockId.parse("encoder/accel")]
    taken = device.take(versions(2, {accel: spoiled(accel, 2, float("nan"))}))
    assert "encoder/accel" in taken.words
    assert taken.words.startswith("generation 2 in use; ")
    assert device.update(0.0)[0].versions == {**{str(block): 2 for block in KEYS}, "encoder/accel": 1}


def test_a_member_whose_head_stays_at_home_learns_one_on_what_the_encoders_give(tmp_path: Path) -> None:
    collector = windows(AT_HOME)
    device = member(collector, AT_HOME, role="personalize")
    device.open(tmp_path, keys=ENCODERS, boot=1)
    taken = device.take(versions(1))
    assert taken.score["har.accuracy"].mean > 2 / 7  # of seven classes: far above chance on random encoders, too
    found = device.update(0.0)
    assert all(p.personal and p.versions["head/har"] >= 1 for p in found)
    assert set(found[0].versions) == {"encoder/accel", "encoder/gyro", "head/har"}
    assert device.status()["own_head"] >= 1
    state = look(tmp_path)
    assert state is not None
    assert (tmp_path / "model" / f"head.har.{device.status()['own_head']}.safetensors").exists()


def test_of_two_heads_the_better_one_on_the_own_holdout_speaks_and_both_scores_are_told(tmp_path: Path) -> None:
    device = member(windows(), role="personalize")
    device.open(tmp_path, keys=KEYS, boot=1)
    taken = device.take(versions(1))
    scores = device.status()["scores"]
    own, shared = scores["own"]["har.accuracy"], scores["shared"]["har.accuracy"]
    assert own > shared  # the shared head is random here
    assert device.status()["uses_own_head"] == {"har": True}
    assert taken.score["har.accuracy"].mean == own
    assert all(p.personal for p in device.update(0.0))


def test_without_the_skeletons_of_an_own_model_it_says_which_blocks_wait(tmp_path: Path) -> None:
    own = load_federation("har", sets=["visibility=full", 'blocks."encoder/accel".hidden=24'])
    device = member(windows(own), own, role="infer")
    device.open(tmp_path, keys=KEYS, boot=1)
    assert len(device.lacking()) == 2  # the encoder, and the part of the fusion that takes its embedding
    taken = device.take(versions(1))
    assert taken.words == "waits for the skeletons of encoder/accel, fusion/har.accel"
    assert device.update(0.0) == []


def test_what_is_held_but_not_complete_is_waited_for(tmp_path: Path) -> None:
    device = member(windows(), role="infer")
    device.open(tmp_path, keys=KEYS, boot=1)
    store(tmp_path, {})
    part = dict(list(versions(1).items())[:3])
    assert device.take(part).words == "waits for the first trained versions"


def test_a_first_model_that_serves_no_task_is_not_taken_and_eats_no_window(tmp_path: Path) -> None:
    device = member(windows(), role="infer")
    device.open(tmp_path, keys=KEYS, boot=1)
    head = KEYS[BlockId.parse("head/har")]
    taken = device.take(versions(1, {head: spoiled(head, 1, float("nan"))}))
    assert "head/har" in taken.words
    assert "no task can be served" in taken.words
    assert device.update(0.0) == []
    device.take(versions(2))
    assert len(device.update(1.0)) > 60


def test_new_encoders_wait_where_the_own_head_cannot_be_fitted_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = member(windows(AT_HOME), AT_HOME, role="personalize")
    device.open(tmp_path, keys=ENCODERS, boot=1)
    device.take(versions(1))
    device.close()
    collector = windows(AT_HOME)
    labelled = collector.train()
    monkeypatch.setattr(collector, "train", lambda: labelled.take(np.arange(3)))  # a restart: the windows are gone
    again = member(collector, AT_HOME, role="personalize")
    again.open(tmp_path, keys=ENCODERS, boot=2)
    assert "wait for 10 labelled windows" in again.take(versions(2)).words
    assert {p.versions["encoder/accel"] for p in again.update(0.0)} == {1}
    monkeypatch.setattr(collector, "train", lambda: labelled)
    again.update(1.0)
    assert again.status()["versions"]["encoder/accel"] == 2


def test_a_device_that_becomes_one_of_role_infer_leaves_its_own_head_aside(tmp_path: Path) -> None:
    device = member(windows(), role="personalize")
    device.open(tmp_path, keys=KEYS, boot=1)
    device.take(versions(1))
    assert device.update(0.0)[0].personal
    device.close()
    again = member(windows(), role="infer")
    again.open(tmp_path, keys=KEYS, boot=2)
    assert not any(p.personal for p in again.update(0.0))


def test_a_version_whose_features_cannot_be_learned_from_is_refused_and_the_old_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = member(windows(AT_HOME), AT_HOME, role="personalize")
    device.open(tmp_path, keys=ENCODERS, boot=1)
    device.take(versions(1))

    def fails(*args: object, **options: object) -> None:
        raise ConfigError("head-invalid", "features that are not finite")

    monkeypatch.setattr("blossom_edge.client.own_head.fit_head", fails)
    taken = device.take(versions(2))
    assert "features that are not finite" in taken.words
    assert {p.versions["encoder/accel"] for p in device.update(0.0)} == {1}
    assert device.status()["refused"][-1]["version"] == 2


def test_a_generation_on_which_windows_fail_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = windows()
    device = member(collector, role="infer")
    device.open(tmp_path, keys=KEYS, boot=1)
    device.take(versions(1))
    whole = collector.fresh()
    monkeypatch.setattr(collector, "fresh", lambda: whole)
    device.update(0.0)
    device.take(versions(2))
    second = device._live.current.model

    def run(model: object, *rest: object) -> object:
        if model is second:
            raise RemoteError("no memory for this graph", error_id="skeleton-invalid")
        return run_model(model, *rest)

    monkeypatch.setattr("blossom_edge.client.predicting.run_model", run)
    assert device.update(1.0) == []
    assert device.status()["versions"]["encoder/accel"] == 1
    assert "no memory for this graph" in device.status()["refused"][-1]["reason"]
    assert len(device.update(2.0)) == len(whole)
