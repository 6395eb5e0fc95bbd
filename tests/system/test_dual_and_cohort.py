"""Cohort blocks in a whole federation: each signature has versions of its own, and those who only infer use theirs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from support.learning import noise, tiny
from support.stage import ACCEL, BOTH, GYRO, Stage

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.roles import used_blocks
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, BlockKey
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation

COHORTS = "visibility=cohort-head-fusion"
DEVICES = [("a", BOTH), ("b", BOTH), ("c", ACCEL), ("d", ACCEL), ("e", GYRO)]
HEADS = [BlockKey.parse(f"head/har@{cohort}") for cohort in ("accel", "accel.gyro", "gyro")]


def test_each_signature_averages_its_own_head_and_min_cohort_counts_its_owners_alone(tmp_path: Path) -> None:
    sets = (COHORTS, "rounds.min_devices=5", "blocks.head/har.min_cohort=2", "schedule.stop_rounds=2")
    stage = Stage(tmp_path, tiny(*sets), DEVICES)
    stage.run()
    assert stage.members("head/har@accel.gyro") == [(1, ["a", "b"]), (2, ["a", "b"])]
    assert stage.members("head/har@accel") == [(1, ["c", "d"]), (2, ["c", "d"])]
    assert stage.members("encoder/accel") == [(1, ["a", "b", "c", "d"]), (2, ["a", "b", "c", "d"])]
    assert stage.members("fusion/har@gyro") == [(1, ["e"]), (2, ["e"])]
    held = [commit["blocks"]["head/har@gyro"]["held"] for commit in stage.records("commit")]
    assert held == ["1 owners trained it, min_cohort asks for 2"] * 2
    assert [stage.state.version(key).number for key in HEADS] == [2, 2, 0]
    head = stage.state.spec[BlockId.parse("head/har")]
    read = stage.world.truth.versions.get
    one, other = (make_codec("float32").decode(read(stage.state.version(key).sha256), head) for key in HEADS[:2])
    assert any(not np.array_equal(one[name], other[name]) for name in one)
    for agent in stage.world.agents:
        signature = ".".join(sorted(agent.session.facts.modalities))
        assert {k.cohort for k in agent.session.downloads.held} <= {"", signature}
    stage.close()


def test_what_a_signature_agrees_on_is_the_weighted_mean_of_its_owners_by_hand(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(COHORTS, "rounds.min_devices=5", "schedule.stop_rounds=1"), DEVICES)
    for device, windows in (("a", 10), ("b", 30), ("c", 50), ("d", 70), ("e", 20)):
        stage.trainers[device].num_samples = windows
    stage.run()
    block = BlockId.parse("head/har")
    base = initial_block(stage.state.spec[block], stage.world.federation.digest, stage.world.federation.seed)
    # a and b have both: (10 d_a + 30 d_b) / 40; c and d the accelerometer: (50 d_c + 70 d_d) / 120; e is alone
    shares = [{"c": 50 / 120, "d": 70 / 120}, {"a": 0.25, "b": 0.75}, {"e": 1.0}]
    for key, weights in zip(HEADS, shares, strict=True):
        data = stage.world.truth.versions.get(stage.state.version(key).sha256)
        found = make_codec("float32").decode(data, stage.state.spec[block])
        for name, start in base.items():
            moved = sum(share * noise(device, 1, block, start.shape, name) for device, share in weights.items())
            np.testing.assert_allclose(found[name], start + moved, rtol=1e-5, atol=1e-6)
    stage.close()


@pytest.mark.parametrize("modalities", [ACCEL, GYRO, BOTH])
def test_every_signature_can_be_served_without_training(modalities: tuple[str, ...]) -> None:
    federation = load_federation("har", sets=[COHORTS])
    assert set(used_blocks(federation, modalities, (), "infer")) == set(DeviceBlocks(federation, modalities, ()).keys)


def test_a_device_that_only_infers_runs_the_versions_of_its_own_cohort(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from blossom_edge.client.actions import Held
    from blossom_edge.client.fit import load_device_profile
    from blossom_edge.client.onnx_member import OnnxMember
    from blossom_edge.simulation.learner import open_windows

    federation = load_federation("har", sets=[COHORTS])
    profile = load_device_profile("jetson-imu")
    learner, collector = open_windows(profile, federation, mock=True, speed=0.0, seed=5, keep_fresh=True)
    learner.poll(0.0)
    blocks = DeviceBlocks(federation, BOTH, ())
    device = OnnxMember(federation, collector, role="infer", tasks=(), waits=True, clock=time.perf_counter)
    device.open(tmp_path, keys=blocks.keys, boot=1)
    codec, held = make_codec(federation.codec.down), {}
    for block, key in blocks.keys.items():
        data = codec.encode(initial_block(federation.spec[block], federation.digest, 3), federation.spec[block])
        held[key] = Held(1, hashlib.sha256(data).hexdigest(), data)
    head = blocks.keys[BlockId.parse("head/har")]
    others = {**held, BlockKey(head.block, "accel"): held[head]}
    assert device.take({key: one for key, one in others.items() if key != head}).words.startswith("waits for")
    assert device.take(others).words == "generation 1 in use"
    assert device.status()["versions"] == {str(block): 1 for block in blocks.keys}
    assert len(device.update(0.0)) > 60
