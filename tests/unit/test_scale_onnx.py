"""Agreed scales where blocks run without torch: the same numbers, versions that swap, bundles, and no skeleton."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from aggregator.skeletons import Skeletons
from blossom_edge.client.actions import Held
from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.fit import load_device_profile
from blossom_edge.client.onnx_member import OnnxMember
from blossom_edge.client.roles import used_blocks
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import Array, BlockId, BlockKey, Tensors
from blossom_edge.core.scale import is_known, own_scale
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import skeleton_digests
from blossom_edge.inference.bundle import Bundle, read_bundle, write_bundle
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.features import can_embed
from blossom_edge.inference.skeleton_set import SkeletonSet
from blossom_edge.sensors.collector import Collector
from blossom_edge.simulation.learner import open_windows
from firmware_profiles.loading import load_profile

AGREED = (
    *("modalities.accel.normalise=agreed", "modalities.gyro.normalise=agreed"),
    *("rounds.min_devices=2", "schedule.stop_rounds=2"),
)
FEDERATION = load_federation("har", sets=["visibility=full", *AGREED])
HEAD_AT_HOME = load_federation("har", sets=["visibility=private-head-fusion", *AGREED])
BOTH = ("accel", "gyro")
ACCEL, GYRO = BlockId.parse("scale/accel"), BlockId.parse("scale/gyro")
ENCODER = BlockId.parse("encoder/accel")
GRAVITY = 9.81
SKELETONS = SkeletonSet()

Windows = tuple[dict[str, Array], dict[str, np.ndarray]]


def windows_of(num: int, *, seed: int = 1, federation: Federation = FEDERATION) -> Windows:
    """Windows around gravity, a tenth of a unit wide; where there are more than two the second has no gyroscope."""
    generator = np.random.Generator(np.random.Philox(seed))
    inputs = {
        m: (GRAVITY + 0.1 * generator.standard_normal((num, s.window, s.width))).astype(np.float32)
        for m, s in federation.modalities.items()
    }
    present = {m: np.ones(num, np.bool_) for m in inputs}
    if num > 2:
        present["gyro"][1] = False
    return inputs, present


def blocks_of(federation: Federation = FEDERATION, *, settled: bool = True) -> dict[BlockId, Tensors]:
    found = {s.id: initial_block(s, federation.digest, 3) for s in federation.spec.blocks}
    inputs, _ = windows_of(50, seed=9, federation=federation)
    scales = {b: own_scale(inputs[b.name], 3) for b in (ACCEL, GYRO)} if settled else {}
    return {**found, **scales}


def torch_says(federation: Federation, blocks: Mapping[BlockId, Tensors], windows: Windows) -> Array:
    torch = pytest.importorskip("torch")
    from blossom_edge.models.block_model import BlockModel

    model = BlockModel(federation, blocks).eval()
    model.load(blocks)
    inputs, present = ({m: torch.from_numpy(np.array(x)) for m, x in part.items()} for part in windows)
    with torch.inference_mode():
        found: Array = model(inputs, present)["har"].numpy()
    return found


@pytest.mark.torch
@pytest.mark.parametrize("settled", [True, False])
def test_the_chain_gives_what_torch_gives_of_windows_around_gravity(settled: bool) -> None:
    blocks = blocks_of(settled=settled)
    chain = OnnxModel.build(FEDERATION, blocks, SKELETONS.get)
    for num in (1, 5):
        inputs, present = windows = windows_of(num)
        expected = torch_says(FEDERATION, blocks, windows)
        found = chain.outputs(inputs, present)["har"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        known = chain.embed(inputs, present)
        np.testing.assert_allclose(chain.outputs(inputs, present, known)["har"], expected, atol=1e-5)


def test_a_scale_that_no_round_has_settled_changes_nothing() -> None:
    first = blocks_of(settled=False)
    plain = load_federation("har", sets=["visibility=full"])
    chain = OnnxModel.build(FEDERATION, first, SKELETONS.get)
    unscaled = OnnxModel.build(plain, {b: t for b, t in first.items() if b in plain.spec}, SKELETONS.get)
    inputs, present = windows_of(5)
    assert not is_known(first[ACCEL])
    np.testing.assert_array_equal(chain.outputs(inputs, present)["har"], unscaled.outputs(inputs, present)["har"])


def test_an_encoder_does_not_run_without_the_scale_that_it_was_trained_with() -> None:
    blocks = {block: tensors for block, tensors in blocks_of().items() if block != ACCEL}
    chain = OnnxModel.build(FEDERATION, blocks, SKELETONS.get)
    assert chain.modalities == ("gyro",)
    assert chain.task_modalities("har") == ("gyro",)
    assert not can_embed(FEDERATION, blocks, "accel")
    assert can_embed(load_federation("har"), blocks, "accel")


def test_a_scale_has_versions_but_no_skeleton() -> None:
    for role in ("infer", "personalize"):
        assert {ACCEL, GYRO} <= set(used_blocks(FEDERATION, BOTH, (), role))
        assert GYRO not in used_blocks(FEDERATION, ("accel",), (), role)
    everything = [spec.id for spec in FEDERATION.spec.blocks]
    plain = load_federation("har", sets=["visibility=full"])
    same = skeleton_digests(plain, [spec.id for spec in plain.spec.blocks])
    assert skeleton_digests(FEDERATION, everything) == same  # no scale, and an encoder runs on the graph it had
    assert {block for users in Skeletons(FEDERATION, Path("none")).blocks.values() for block in users} == set(same)


def collector() -> Collector:
    """Two minutes of a simulated IMU with labels, all there at once."""
    learner, found = open_windows(
        load_device_profile("jetson-imu"), FEDERATION, mock=True, speed=0.0, seed=5, keep_fresh=True
    )
    learner.poll(0.0)
    return found


def keys_of(federation: Federation) -> dict[BlockId, BlockKey]:
    return {key.block: key for key in DeviceBlocks(federation, BOTH, ()).shared}


def held(federation: Federation, blocks: Mapping[BlockId, Tensors], version: int = 1) -> dict[BlockKey, Held]:
    codec, found = make_codec(federation.codec.down), {}
    for block, key in keys_of(federation).items():
        data = codec.encode(blocks[block], federation.spec[block])
        found[key] = Held(version, hashlib.sha256(data).hexdigest(), data)
    return found


def member(
    place: Path, federation: Federation, windows: Collector, *, role: str = "infer", boot: int = 1
) -> OnnxMember:
    device = OnnxMember(federation, windows, role=role, tasks=(), waits=True, clock=time.perf_counter)
    device.open(place, keys=keys_of(federation), boot=boot)
    return device


def test_a_settled_scale_comes_into_use_together_with_the_rest_and_outlives_the_process(tmp_path: Path) -> None:
    device = member(tmp_path, FEDERATION, collector())
    assert device.lacking() == ()
    before, after = held(FEDERATION, blocks_of(settled=False)), held(FEDERATION, blocks_of(), version=2)
    assert device.take(before).words == "generation 1 in use"
    assert device.take(after).words == "generation 2 in use"
    assert device.status()["versions"] == {str(block): 2 for block in keys_of(FEDERATION)}
    assert "scale/accel" in device.status()["versions"]
    inputs, present = windows_of(5)
    fresh = OnnxModel.build(FEDERATION, blocks_of(), SKELETONS.get).outputs(inputs, present)["har"]
    device.close()
    again = member(tmp_path, FEDERATION, collector(), boot=2)
    for one in (device, again):
        model = one._opened().current
        assert model is not None
        np.testing.assert_array_equal(model.model.outputs(inputs, present)["har"], fresh)


def test_a_scale_that_is_not_finite_is_refused_and_its_modality_waits(tmp_path: Path) -> None:
    blocks, key = blocks_of(), BlockKey(ACCEL)
    given = held(FEDERATION, blocks)
    data = np.full(7, np.nan, "<f4").tobytes()
    device = member(tmp_path, FEDERATION, collector())
    taken = device.take({**given, key: Held(1, hashlib.sha256(data).hexdigest(), data)})
    assert taken.words.startswith("generation 1 in use; scale/accel")
    assert [refused["block"] for refused in device.status()["refused"]] == ["scale/accel"]
    model = device._opened().current
    assert model is not None
    assert model.model.modalities == ("gyro",)
    device.take({**given, key: Held(2, given[key].sha256, given[key].data)})
    model = device._opened().current
    assert model is not None
    assert model.model.modalities == BOTH


def test_an_own_head_is_fitted_to_scaled_windows_and_names_the_scale_it_spoke_with(tmp_path: Path) -> None:
    device = member(tmp_path, HEAD_AT_HOME, collector(), role="personalize")
    assert device.take(held(HEAD_AT_HOME, blocks_of(HEAD_AT_HOME))).words == "generation 1 in use"
    found = device.update(0.0)
    assert len(found) > 60
    assert all(p.personal for p in found)
    assert dict(found[0].versions) == {
        **{"encoder/accel": 1, "encoder/gyro": 1, "head/har": 1, "scale/accel": 1, "scale/gyro": 1}
    }


def test_an_own_head_without_labels_keeps_the_scale_that_it_was_fitted_to(tmp_path: Path) -> None:
    device = member(tmp_path, HEAD_AT_HOME, collector(), role="personalize")
    given = held(HEAD_AT_HOME, blocks_of(HEAD_AT_HOME))
    device.take(given)
    device.close()
    _, unseen = open_windows(
        load_device_profile("jetson-imu"), HEAD_AT_HOME, mock=True, speed=0.0, seed=5, keep_fresh=True
    )
    again = member(tmp_path, HEAD_AT_HOME, unseen, role="personalize", boot=2)
    other = held(HEAD_AT_HOME, {**blocks_of(HEAD_AT_HOME), ACCEL: blocks_of()[GYRO]}, version=2)
    assert "new encoders wait" in again.take({**given, BlockKey(ACCEL): other[BlockKey(ACCEL)]}).words
    assert again.status()["versions"]["scale/accel"] == 1


def shifted(seed: int, num: int) -> WindowSet:
    inputs, present = windows_of(num, seed=seed)
    present = {m: np.ones(num, np.bool_) for m in present}
    return WindowSet(inputs, present, {"har": np.arange(num) % 7}, np.arange(num, dtype=np.float64))


@pytest.mark.torch
def test_a_device_that_only_infers_says_what_torch_says_of_a_federation_that_agreed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from test_agreed_scale import device

    from blossom_edge.simulation.world import World

    world = World(FEDERATION, [device("one", shifted(1, 8)), device("two", shifted(2, 12))], tmp_path / "world")
    world.run()
    state, codec = world.truth.machine.state, make_codec(FEDERATION.codec.down)
    committed, blocks = {}, {}
    for block, key in keys_of(FEDERATION).items():
        version = state.version(key)
        data = world.truth.versions.get(version.sha256)
        committed[key] = Held(version.number, version.sha256, data)
        blocks[block] = codec.decode(data, FEDERATION.spec[block])
    world.close()
    assert is_known(blocks[ACCEL])
    assert blocks[ACCEL]["mean"] == pytest.approx([GRAVITY] * 3, abs=0.05)
    user = member(tmp_path / "user", FEDERATION, collector())
    assert user.take(committed).words == "generation 1 in use"
    seen = collector().fresh()
    logits = torch_says(FEDERATION, blocks, (dict(seen.inputs), dict(seen.present)))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    classes = FEDERATION.tasks["har"].classes
    predictions = user.update(0.0)
    assert len(predictions) == len(seen) > 60
    for prediction, row in zip(predictions, shares, strict=True):
        assert prediction.confidence == pytest.approx(row.max(), abs=1e-5)
        assert row[classes.index(prediction.labels[0])] == pytest.approx(row.max(), abs=1e-5)
        assert prediction.versions["scale/accel"] == 2


def test_a_bundle_holds_the_scales_with_their_versions() -> None:
    blocks = blocks_of()
    bundle = Bundle(
        federation=FEDERATION,
        profile=load_profile("generic-mock").to_dict(),
        modalities=BOTH,
        tasks=("har",),
        device="pi-1",
        blocks=blocks,
        versions={block: 1 if block in (ACCEL, GYRO) else 4 for block in blocks},
        heads={},
        skeletons={d: SKELETONS.get(d) or b"" for d in skeleton_digests(FEDERATION, blocks).values()},
        made_by="test",
    )
    read = read_bundle(write_bundle(bundle))
    assert read.versions[ACCEL] == 1
    assert read.versions[ENCODER] == 4
    inputs, present = windows_of(5)
    found = OnnxModel.build(FEDERATION, read.blocks, read.skeleton).outputs(inputs, present)["har"]
    expected = OnnxModel.build(FEDERATION, blocks, SKELETONS.get).outputs(inputs, present)["har"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.torch
def test_one_file_scales_its_windows_itself() -> None:
    for package in ("torch", "onnx", "onnxscript"):
        pytest.importorskip(package)
    import onnxruntime
    from support.learning import tiny

    from blossom_edge.export.merged import export_merged

    federation = tiny("visibility=full", "modalities.accel.normalise=agreed", "modalities.gyro.normalise=agreed")
    blocks = blocks_of(federation)
    inputs, present = windows = windows_of(5, federation=federation)
    data = export_merged(federation, blocks, task="har")
    feeds = {**inputs, "present": np.stack([present[m] for m in BOTH], axis=1)}
    (shares,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)
    logits = torch_says(federation, blocks, windows)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(shares, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
