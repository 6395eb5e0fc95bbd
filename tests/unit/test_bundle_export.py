"""`blossom-edge export --bundle`: what of a device's folder goes into the file, what is said, and that it runs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import skeleton

from blossom_edge.cli.export_bundle import export_bundle
from blossom_edge.cli.infer_bundle import open_bundle_model
from blossom_edge.client.actions import Checkpoint, Held
from blossom_edge.client.store import Store
from blossom_edge.codec.tensors import make_codec
from blossom_edge.console.output import Output
from blossom_edge.core.blocks import BlockId, BlockKey, Tensors
from blossom_edge.core.errors import BlossomError, ConfigError, StorageError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.bundle import Bundle, read_bundle, write_bundle
from blossom_edge.inference.generation import Received
from blossom_edge.inference.head_values import HeadValues
from blossom_edge.inference.model_folder import ModelFolder
from blossom_edge.inference.model_state import ModelState
from firmware_profiles.loading import load_profile

HAR = load_federation("har")
FULL = load_federation("har", sets=["visibility=full"])
ACCEL, GYRO, HEAD = (BlockId.parse(text) for text in ("encoder/accel", "encoder/gyro", "head/har"))
ENCODERS = (ACCEL, GYRO)
PRIVATE = ["fusion/har", "fusion/har.accel", "fusion/har.gyro", "head/har"]


def values(federation: Federation, block: BlockId, seed: int) -> Tensors:
    """Values of a block that are those of no other seed."""
    return initial_block(federation.spec[block], federation.digest, seed)


def held(federation: Federation, block: BlockId, version: int) -> Held:
    """A version as it was received; its values are those of seed `version`."""
    data = make_codec(federation.codec.down).encode(values(federation, block, version), federation.spec[block])
    return Held(version, hashlib.sha256(data).hexdigest(), data)


def own_head(width: int = 2 * 128 + 2) -> HeadValues:
    weight = np.linspace(-1, 1, 7 * width, dtype=np.float32).reshape(7, width)
    return HeadValues("softmax", {"layers.0.weight": weight, "layers.0.bias": np.arange(7, dtype=np.float32)})


class Heard(Output):
    """What a command says: as JSON, and as lines."""

    def __init__(self) -> None:
        self.text = io.StringIO()
        self.said: dict[str, Any] = {}
        super().__init__(stdout=self.text, stderr=self.text)

    def json(self, value: Mapping[str, Any]) -> None:
        self.said = json.loads(json.dumps(value))


class Device:
    """A device's folder as `join` leaves it."""

    def __init__(self, root: Path, federation: Federation, *, role: str = "train", **status: Any) -> None:
        self.root, self.federation = root, federation
        self.store = Store(root, "pi-1")
        self.store.enter(federation)
        words = {"device": "pi-1", "profile": "generic-mock", "tasks": [], "role": role, "running_here": False}
        sensed = ["accel", "audio", "ecg", "gyro", "images"]
        self.store.keep_status({**words, "modalities": sensed, "federation": federation.name, **status})

    def receive(self, blocks: Iterable[BlockId], version: int) -> None:
        for block in blocks:
            self.store.keep_block(BlockKey(block), held(self.federation, block, version))

    def train(self, blocks: Iterable[BlockId], seed: int) -> None:
        self.store.keep_checkpoint(Checkpoint(private={b: values(self.federation, b, seed) for b in blocks}))

    def use(self, blocks: Iterable[BlockId], version: int, heads: Mapping[str, HeadValues]) -> None:
        """Put versions and own heads to use, as a device without torch does."""
        folder = ModelFolder(self.store.place)
        used = {}
        for block in blocks:
            one = held(self.federation, block, version)
            received = Received(one.version, one.sha256, one.data)
            folder.keep_block(BlockKey(block), received)
            used[BlockKey(block)] = received.used
        sums = folder.keep_heads(4, heads)
        folder.write(ModelState().exchange(used, head_number=4, heads=sums, boot=1, stamp=""))

    def export(self, **options: Any) -> tuple[Bundle, dict[str, Any], str]:
        """The bundle, what is said with --json, and the lines that are said without it."""
        path = self.root / "pi.bundle"
        out = Heard()
        export_bundle(out, path, **{"device": None, "data_dir": self.root, "federation": None, **options})
        return read_bundle(path), out.said, out.text.getvalue()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A device that trains: versions 3 received, private blocks trained."""
    found = Device(tmp_path, HAR)
    found.receive(ENCODERS, 3)
    found.train(_private(HAR), 8)
    return found


def _private(federation: Federation) -> list[BlockId]:
    return [spec.id for spec in federation.spec.blocks if not spec.leaves_device]


def same(found: Tensors, expected: Tensors) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[n], expected[n]) for n in expected)


def test_a_training_device_exports_what_it_holds(device: Device) -> None:
    bundle, said, lines = device.export()
    assert sorted(map(str, bundle.blocks)) == ["encoder/accel", "encoder/gyro", *PRIVATE]
    assert all(same(bundle.blocks[block], values(HAR, block, 3)) for block in ENCODERS)
    assert same(bundle.blocks[HEAD], values(HAR, HEAD, 8))
    assert bundle.versions == {ACCEL: 3, GYRO: 3}
    assert bundle.modalities == ("accel", "gyro")
    assert bundle.profile["id"] == "generic-mock"
    assert said["versions"] == {"encoder/accel": 3, "encoder/gyro": 3}
    assert said["private"] == PRIVATE
    assert said["tasks"] == ["har"]
    assert said["bytes"] == (device.root / "pi.bundle").stat().st_size
    assert "private blocks in it: fusion/har, fusion/har.accel" in lines
    assert "whoever has the file has these too; --shared-only leaves them out" in lines


def test_the_file_is_for_its_user_alone(device: Device) -> None:
    device.export()
    assert (device.root / "pi.bundle").stat().st_mode & 0o077 == 0


def test_the_device_is_only_read(device: Device) -> None:
    before = {p: p.stat().st_mtime_ns for p in device.store.folder.rglob("*")}
    device.export()
    assert {p: p.stat().st_mtime_ns for p in device.store.folder.rglob("*")} == before


def test_shared_only_leaves_private_blocks_out_and_says_that_no_task_is_served(device: Device) -> None:
    bundle, said, lines = device.export(shared_only=True)
    assert sorted(bundle.blocks) == list(ENCODERS)
    assert (said["private"], said["left_out"], said["tasks"]) == ([], PRIVATE, [])
    assert "left out, private: fusion/har, fusion/har.accel, fusion/har.gyro, head/har" in lines
    assert "warning: it serves no task" in lines
    assert "whoever has the file" not in lines


def test_private_blocks_that_were_never_trained_are_left_out(tmp_path: Path) -> None:
    device = Device(tmp_path, HAR)
    device.receive(ENCODERS, 2)
    bundle, said, lines = device.export()
    assert sorted(bundle.blocks) == list(ENCODERS)
    assert said["left_out"] == PRIVATE
    assert "warning: not trained yet: fusion/har, fusion/har.accel, fusion/har.gyro, head/har; private ones" in lines


def test_a_device_without_a_round_has_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no block has trained values yet") as caught:
        Device(tmp_path, HAR).export()
    assert caught.value.error_id == "nothing-found"
    assert "wait for the end of a round" in caught.value.hint
    assert not (tmp_path / "pi.bundle").exists()


def test_a_personalize_device_exports_the_versions_in_use_and_its_own_head(tmp_path: Path) -> None:
    device = Device(tmp_path, HAR, role="personalize")
    device.use(ENCODERS, 2, {"har": own_head()})
    device.receive(ENCODERS, 3)  # received, but not in use
    bundle, said, lines = device.export()
    assert sorted(bundle.blocks) == list(ENCODERS)
    assert bundle.versions == {ACCEL: 2, GYRO: 2}
    assert same(bundle.blocks[ACCEL], values(HAR, ACCEL, 2))
    assert same(bundle.heads["har"].tensors, own_head().tensors)
    assert bundle.head_number == 4
    assert said["tasks"] == ["har"]
    assert "private blocks in it: own head of har" in lines


def test_an_own_head_that_the_device_does_not_use_is_left_out(tmp_path: Path) -> None:
    device = Device(tmp_path, FULL, role="personalize", model={"uses_own_head": {"har": False}})
    device.use([spec.id for spec in FULL.spec.blocks], 2, {"har": own_head()})
    bundle, said, _ = device.export()
    assert bundle.heads == {}
    assert (said["tasks"], said["private"]) == (["har"], [])


def test_an_own_head_is_private_and_not_in_a_shared_only_bundle(tmp_path: Path) -> None:
    device = Device(tmp_path, FULL, role="personalize", model={"uses_own_head": {"har": True}})
    device.use([spec.id for spec in FULL.spec.blocks], 2, {"har": own_head()})
    assert "har" in device.export()[0].heads
    bundle, said, _ = device.export(shared_only=True)
    assert bundle.heads == {}
    assert said["tasks"] == ["har"]


def test_a_device_that_uses_no_model_yet_has_nothing_to_export(tmp_path: Path) -> None:
    device = Device(tmp_path, HAR, role="personalize")
    device.receive(ENCODERS, 3)
    with pytest.raises(StorageError, match="pi-1 uses no model yet"):
        device.export()


def test_a_version_in_use_that_is_damaged_on_disk_is_said(tmp_path: Path) -> None:
    device = Device(tmp_path, HAR, role="personalize")
    device.use(ENCODERS, 2, {})
    path = device.store.place / "model" / f"{held(HAR, ACCEL, 2).sha256}.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StorageError, match="encoder/accel: version 2, which is in use, is not whole on disk"):
        device.export()


def test_a_profile_of_ones_own_is_named_and_stands_in_the_bundle(device: Device, tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('schema = 1\nextends = "generic-mock"\ntitle = "My board"\n')
    assert device.export(profile=str(profile))[0].profile["title"] == "My board"


def test_a_profile_that_does_not_fit_is_refused_with_the_next_step(device: Device) -> None:
    with pytest.raises(ConfigError, match=r"profile rpi4-gyro: found gyro, the device has accel, gyro") as caught:
        device.export(profile="rpi4-gyro")
    assert "--profile PATH" in caught.value.hint
    with pytest.raises(ConfigError, match="profile lost: there is no profile 'lost'"):
        device.export(profile="lost")


def test_a_missing_skeleton_is_named_with_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blossom_edge.export import needed

    monkeypatch.setattr(needed, "_PACKAGES", ("no_such_package",))
    other = load_federation("har", sets=["blocks.head/har.hidden=17"])
    device = Device(tmp_path, other)
    device.receive(ENCODERS, 3)
    device.train(_private(other), 8)
    with pytest.raises(ConfigError, match=r"head/har: its graph \w{12} is neither in the package nor in ") as caught:
        device.export()
    assert caught.value.error_id == "skeleton-missing"
    assert "export --skeletons" in caught.value.hint


def test_a_folder_is_no_file_to_write(device: Device, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, expected a file"):
        export_bundle(Output(), tmp_path, device=None, data_dir=device.root, federation=None)


# running it

WINDOWS = np.random.Generator(np.random.Philox(1)).standard_normal((5, 128, 3)).astype(np.float32)
INPUTS = {"accel": WINDOWS, "gyro": -WINDOWS}
PRESENT = {"accel": np.array([1, 1, 0, 1, 1], np.bool_), "gyro": np.array([1, 0, 1, 1, 1], np.bool_)}


def test_a_damaged_file_does_not_touch_a_model_that_runs(device: Device) -> None:
    pytest.importorskip("onnxruntime")
    device.export()
    path = device.root / "pi.bundle"
    running = open_bundle_model(path)
    before = running.model.outputs(INPUTS, PRESENT)["har"]
    data = path.read_bytes()
    for position in range(0, len(data), len(data) // 7):
        bad = bytearray(data)
        bad[position] ^= 0x40
        path.write_bytes(bad)
        with pytest.raises(BlossomError):
            open_bundle_model(path)
    assert np.array_equal(running.model.outputs(INPUTS, PRESENT)["har"], before)


def test_an_own_head_serves_a_task_without_fusion_and_head(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from blossom_edge.inference.generation import own_name, run_model

    device = Device(tmp_path, HAR, role="personalize")
    device.use(ENCODERS, 2, {"har": own_head()})
    device.export()
    found = open_bundle_model(device.root / "pi.bundle")
    assert found.tasks == ("har",)
    assert found.versions == {"encoder/accel": 2, "encoder/gyro": 2, "head/har": 4}
    embeddings = found.model.embed(INPUTS, PRESENT)
    flags = np.stack([PRESENT["accel"], PRESENT["gyro"]], axis=1).astype(np.float32)
    features = np.concatenate([embeddings["accel"], embeddings["gyro"], flags], axis=1)
    tensors = own_head().tensors
    expected = features @ tensors["layers.0.weight"].T + tensors["layers.0.bias"]
    outputs = run_model(found.model, found.heads, INPUTS, PRESENT)
    np.testing.assert_allclose(outputs[own_name("har")], expected, atol=1e-5)


def test_a_graph_that_onnxruntime_refuses_is_a_fault_of_the_bundle(device: Device) -> None:
    pytest.importorskip("onnxruntime")
    bundle, _, _ = device.export()
    empty = {skeleton_digest(HAR, spec.id): skeleton(HAR, spec) for spec in HAR.spec.blocks}
    path = device.root / "empty.bundle"
    path.write_bytes(write_bundle(dataclasses.replace(bundle, skeletons=empty)))
    with pytest.raises(ConfigError, match=f"{path}: skeleton of ") as caught:
        open_bundle_model(path)
    assert caught.value.error_id == "bundle-invalid"


def test_a_profile_of_other_windows_is_a_fault_of_the_bundle(device: Device) -> None:
    pytest.importorskip("onnxruntime")
    bundle, _, _ = device.export()
    other = load_profile("generic-mock", sets=["modalities.accel.window=64"]).to_dict()
    path = device.root / "other.bundle"
    path.write_bytes(write_bundle(dataclasses.replace(bundle, profile=other)))
    with pytest.raises(ConfigError, match="accel: the federation wants 50 Hz windows of 128 x 3") as caught:
        open_bundle_model(path)
    assert caught.value.error_id == "bundle-invalid"


def test_a_bundle_that_serves_no_task_is_not_opened(device: Device) -> None:
    pytest.importorskip("onnxruntime")
    device.export(shared_only=True)
    with pytest.raises(ConfigError, match="serves no task: found encoder/accel, encoder/gyro") as caught:
        open_bundle_model(device.root / "pi.bundle")
    assert "--shared-only" in caught.value.hint
