"""Dual blocks without torch: both branches and the gate as sessions, bundles and one graph; own heads mixed in."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from support.swapping import CODEC

from blossom_edge.client.actions import Held
from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.fit import load_device_profile
from blossom_edge.client.onnx_member import OnnxMember
from blossom_edge.client.own_head import own_gate
from blossom_edge.client.privacy import privacy_of
from blossom_edge.client.roles import used_blocks
from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.core.errors import ConfigError
from blossom_edge.core.gate import GATES, MIDDLE
from blossom_edge.core.scale import apply_scale
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation, Task
from blossom_edge.federation.skeletons import skeleton_digest, skeleton_digests
from blossom_edge.inference.bundle import Bundle, read_bundle, write_bundle
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.generation import own_name, with_gates
from blossom_edge.inference.model_folder import look
from blossom_edge.inference.model_state import ModelState, read_state
from blossom_edge.inference.skeleton_set import SkeletonSet
from blossom_edge.sensors.collector import Collector
from blossom_edge.simulation.learner import open_windows
from firmware_profiles.loading import load_profile

DUAL = load_federation("har", sets=["visibility=dual"])
BOTH = ("accel", "gyro")
GATE = BlockId.parse("gate/har")
TASK = Task(type="classification", classes=("a", "b"))


def blocks_of(federation: Federation, *, gate: float) -> dict[BlockId, Tensors]:
    found = {s.id: initial_block(s, federation.digest, 3) for s in federation.spec.blocks}
    return {**found, GATE: {"gate": np.array([gate], np.float32)}}


def windows_of(federation: Federation, num: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = np.random.Generator(np.random.Philox(num))
    inputs = {
        m: generator.standard_normal((num, s.window, s.width), dtype=np.float32)
        for m, s in federation.modalities.items()
    }
    present = {m: np.ones(num, np.bool_) for m in inputs}
    if num > 2:
        present["gyro"][1] = False
    return inputs, present


def test_a_private_copy_runs_on_the_graph_of_its_shared_block_and_a_gate_on_none() -> None:
    for name in ("fusion/har", "fusion/har.accel", "head/har"):
        shared, own = BlockId.parse(name), BlockId.parse(f"own-{name}")
        assert skeleton_digest(DUAL, own) == skeleton_digest(DUAL, shared)
    assert GATE not in skeleton_digests(DUAL, [s.id for s in DUAL.spec.blocks])
    full = load_federation("har", sets=["visibility=full"])
    assert skeleton_digest(DUAL, BlockId.parse("head/har")) == skeleton_digest(full, BlockId.parse("head/har"))


@pytest.mark.parametrize("num", [1, 5])
def test_the_chain_mixes_what_each_branch_says_by_the_gate(num: int) -> None:
    inputs, present = windows_of(DUAL, num)
    by_gate = {
        gate: OnnxModel.build(DUAL, blocks_of(DUAL, gate=gate), SkeletonSet().get).outputs(inputs, present)["har"]
        for gate in (0.0, 0.25, 1.0)
    }
    assert np.abs(by_gate[0.0] - by_gate[1.0]).max() > 1e-3
    np.testing.assert_allclose(by_gate[0.25], 0.25 * by_gate[1.0] + 0.75 * by_gate[0.0], atol=1e-6)
    shared = {b: t for b, t in blocks_of(DUAL, gate=0.25).items() if DUAL.spec[b].leaves_device}
    alone = OnnxModel.build(DUAL, shared, SkeletonSet().get).outputs(inputs, present)["har"]
    np.testing.assert_array_equal(alone, by_gate[1.0])


@pytest.mark.torch
@pytest.mark.parametrize("sets", [("visibility=dual",), ("visibility=full", "blocks.head/har.visibility=dual")])
def test_the_chain_gives_what_torch_gives_of_dual_blocks(sets: tuple[str, ...]) -> None:
    torch = pytest.importorskip("torch")
    from blossom_edge.models.block_model import BlockModel

    federation = load_federation("har", sets=sets)
    blocks = blocks_of(federation, gate=0.25)
    model = BlockModel(federation, blocks).eval()
    model.load(blocks)
    chain = OnnxModel.build(federation, blocks, SkeletonSet().get)
    for num in (1, 5):
        inputs, present = windows_of(federation, num)
        with torch.inference_mode():
            expected = model(
                {m: torch.from_numpy(x) for m, x in inputs.items()},
                {m: torch.from_numpy(x) for m, x in present.items()},
            )["har"].numpy()
        np.testing.assert_allclose(chain.outputs(inputs, present)["har"], expected, atol=1e-5)


def test_an_agreed_scale_is_used_where_blocks_run_without_torch() -> None:
    federation = load_federation("har", sets=["visibility=full", "modalities.accel.normalise=agreed"])
    scale = BlockId.parse("scale/accel")
    assert scale in used_blocks(federation, BOTH, (), "infer")
    figures = {"known": [2.0], "mean": [1.0, -2.0, 0.5], "variance": [4.0, 0.25, 9.0]}
    blocks = {s.id: initial_block(s, federation.digest, 3) for s in federation.spec.blocks}
    blocks[scale] = {name: np.array(values, np.float32) for name, values in figures.items()}
    chain = OnnxModel.build(federation, blocks, SkeletonSet().get)
    plain = {block: tensors for block, tensors in blocks.items() if block != scale}
    unscaled = OnnxModel.build(load_federation("har", sets=["visibility=full"]), plain, SkeletonSet().get)
    for num in (1, 5):
        inputs, present = windows_of(federation, num)
        by_hand = {**inputs, "accel": apply_scale(blocks[scale], inputs["accel"])}
        found = chain.outputs(inputs, present)["har"]
        np.testing.assert_allclose(found, unscaled.outputs(by_hand, present)["har"], atol=1e-6)
        assert not np.allclose(found, unscaled.outputs(inputs, present)["har"], atol=1e-3)


def test_a_device_that_only_infers_runs_the_shared_copies() -> None:
    for role in ("infer", "personalize"):
        found = {str(block) for block in used_blocks(DUAL, BOTH, (), role)}
        assert found == {
            *("encoder/accel", "encoder/gyro", "fusion/har", "fusion/har.accel", "fusion/har.gyro", "head/har")
        }


def test_the_gate_goes_to_the_head_that_is_right_and_stays_where_nothing_is_known() -> None:
    labels = np.arange(40) % 2
    right = np.where(np.eye(2, dtype=bool)[labels], 6.0, -6.0).astype(np.float32)
    assert own_gate(TASK, right, -right, labels) == 1.0
    assert own_gate(TASK, -right, right, labels) == 0.0
    assert own_gate(TASK, right, right, labels) == MIDDLE
    assert own_gate(TASK, right, -right, np.full(40, -1)) == MIDDLE
    assert own_gate(TASK, right, -right, np.full(40, -1), before=0.9) == 0.9


def test_only_a_task_that_has_both_heads_is_mixed() -> None:
    outputs = {"a": np.array([[4.0, 0.0]]), own_name("a"): np.array([[0.0, 8.0]]), own_name("b"): np.array([[1.0]])}
    found = with_gates(outputs, {"a": 0.25, "b": 0.25})
    assert found[own_name("a")].tolist() == [[1.0, 6.0]]
    assert found[own_name("b")].tolist() == [[1.0]]
    assert found["a"].tolist() == [[4.0, 0.0]]


def test_the_gates_of_a_device_are_kept_and_a_share_that_is_none_is_refused() -> None:
    state = ModelState(gates={"har": 0.75})
    assert read_state(state.to_json()).gates == {"har": 0.75}
    assert read_state(ModelState().to_json()).gates == {}
    with pytest.raises(ValueError, match="is no share"):
        read_state(state.to_json().replace(b"0.75", b"1.75"))


def _windows() -> Collector:
    learner, collector = open_windows(
        load_device_profile("jetson-imu"), DUAL, mock=True, speed=0.0, seed=5, keep_fresh=True
    )
    learner.poll(0.0)
    return collector


def _member(collector: Collector, role: str = "personalize") -> OnnxMember:
    return OnnxMember(DUAL, collector, role=role, tasks=(), waits=True, clock=time.perf_counter)


def test_an_own_head_is_mixed_with_the_shared_one_and_the_gate_outlives_the_process(tmp_path: Path) -> None:
    keys = {key.block: key for key in DeviceBlocks(DUAL, BOTH, ()).shared}
    device = _member(_windows())
    device.open(tmp_path, keys=keys, boot=1)
    held = {}
    for block, key in keys.items():
        data = CODEC.encode(initial_block(DUAL.spec[block], DUAL.digest, 3), DUAL.spec[block])
        held[key] = Held(1, hashlib.sha256(data).hexdigest(), data)
    taken = device.take(held)
    status = device.status()
    gate = status["gates"]["har"]
    assert gate in GATES
    assert gate < MIDDLE  # the shared head is random here, the own one is fitted
    assert status["uses_own_head"] == {"har": True}
    assert taken.score["har.accuracy"].mean == status["scores"]["mixed"]["har.accuracy"]
    assert all(p.personal and p.gate is not None for p in device.update(0.0))
    kept = look(tmp_path)
    assert kept is not None
    assert kept.gates == {"har": gate}
    device.close()

    other = _member(_windows(), role="infer")  # in between, one that learns nothing
    other.open(tmp_path, keys=keys, boot=2)
    other.take(held)
    other.close()

    again = _member(_without_labels())
    again.open(tmp_path, keys=keys, boot=3)
    assert again.status()["gates"] == {"har": gate}


def _without_labels() -> Collector:
    """Live sensors after a restart: nothing was seen yet."""
    _, collector = open_windows(load_device_profile("jetson-imu"), DUAL, mock=True, speed=0.0, seed=5, keep_fresh=True)
    return collector


def test_a_bundle_holds_both_branches_and_the_gate_and_refuses_a_gate_that_is_none() -> None:
    blocks = blocks_of(DUAL, gate=0.25)
    skeletons = {d: SkeletonSet().get(d) or b"" for d in skeleton_digests(DUAL, blocks).values()}
    bundle = Bundle(
        federation=DUAL,
        profile=load_profile("generic-mock").to_dict(),
        modalities=BOTH,
        tasks=("har",),
        device="pi-1",
        blocks=blocks,
        versions={block: 3 for block in blocks if DUAL.spec[block].leaves_device},
        heads={},
        skeletons=skeletons,
        made_by="test",
    )
    read = read_bundle(write_bundle(bundle))
    assert {str(b) for b in read.private} == {
        *("gate/har", "own-fusion/har", "own-fusion/har.accel", "own-fusion/har.gyro", "own-head/har")
    }
    inputs, present = windows_of(DUAL, 5)
    found = OnnxModel.build(DUAL, read.blocks, read.skeleton).outputs(inputs, present)["har"]
    expected = OnnxModel.build(DUAL, blocks, SkeletonSet().get).outputs(inputs, present)["har"]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ConfigError, match="gates"):
        write_bundle(dataclasses.replace(bundle, gates={"har": 0.5}))  # of no own head


@pytest.mark.slow
@pytest.mark.torch
def test_one_file_gives_the_mixed_answer() -> None:
    for package in ("torch", "onnx", "onnxscript"):
        pytest.importorskip(package)
    import onnxruntime
    from support.learning import tiny

    from blossom_edge.export.merged import export_merged

    federation = tiny("visibility=dual")
    inputs, present = windows_of(federation, 5)
    feeds = {**inputs, "present": np.stack([present[m] for m in BOTH], axis=1)}
    logits = {}
    for gate in (0.0, 0.25, 1.0):
        data = export_merged(federation, blocks_of(federation, gate=gate), task="har")  # compared with torch inside
        (shares,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)
        logits[gate] = np.log(shares) - np.log(shares).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(logits[0.25], 0.25 * logits[1.0] + 0.75 * logits[0.0], atol=1e-4)


def test_what_leaves_and_what_stays_is_told_of_both_copies() -> None:
    found = privacy_of(DUAL, BOTH)
    (deltas,) = [leaving.what for leaving in found.leaves if leaving.kind == "block deltas"]
    assert "head/har (shared copy)" in deltas
    assert "fusion/har.gyro (shared copy)" in deltas
    assert "own-" not in deltas
    assert "gate" not in deltas
    assert "own-head/har (private copy of head/har)" in found.stays
    assert "own-fusion/har.gyro (private copy of fusion/har.gyro)" in found.stays
    assert [text for text in found.stays if text.startswith("gate/har ")]
