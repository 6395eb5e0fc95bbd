"""Blocks from torch to ONNX: no parameter is lost, no weight is in the file, and onnxruntime computes the same."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from support.learning import tiny  # noqa: E402

from blossom_edge.codec.skeleton_file import check_skeleton, seal_skeleton  # noqa: E402
from blossom_edge.core.blocks import BlockId  # noqa: E402
from blossom_edge.core.errors import BlossomError, ConfigError  # noqa: E402
from blossom_edge.export import graph  # noqa: E402
from blossom_edge.export.graph import export_skeleton, exporter_versions  # noqa: E402
from blossom_edge.export.parity import LARGEST_ERROR, check_parity, largest_error, random_values  # noqa: E402
from blossom_edge.export.presets import INDEX, preset_blocks, write_presets  # noqa: E402
from blossom_edge.federation.load import load_federation  # noqa: E402
from blossom_edge.federation.skeletons import skeleton_digest  # noqa: E402
from blossom_edge.federation.spec import part_modality  # noqa: E402
from blossom_edge.inference.skeleton_set import PACKAGED  # noqa: E402
from blossom_edge.simulation.watch import read_people  # noqa: E402
from blossom_edge.testing.block_types import check_block_type  # noqa: E402

pytestmark = pytest.mark.torch

HEAD, REST = BlockId.parse("head/har"), BlockId.parse("fusion/har")
PRESET_BLOCKS = [pytest.param(d, id=f"{u[0][0].name} {u[0][1]} {d[:6]}") for d, u in sorted(preset_blocks().items())]
ONE_OF_EACH_TYPE = [
    pytest.param(digest, id=" ".join(kind))
    for kind, digest in sorted(
        {
            (f.spec[b].id.kind.value, "part" if part_modality(b) else "", f.spec[b].type): digest
            for digest, ((f, b), *_) in sorted(preset_blocks().items())
        }.items()
    )
]


def packaged(digest: str) -> bytes:
    return (PACKAGED / f"{digest}.onnx").read_bytes()


@pytest.mark.parametrize("digest", PRESET_BLOCKS)
def test_every_packaged_skeleton_computes_what_torch_does(digest: str) -> None:
    for federation, block in preset_blocks()[digest]:
        assert check_parity(federation, block, packaged(digest), seed=1) <= LARGEST_ERROR


def test_the_encoder_of_a_preset_computes_what_torch_does_on_recorded_movements() -> None:
    try:
        person = read_people()[3]
    except ConfigError as error:
        pytest.skip(str(error))
    federation, block = load_federation("har"), BlockId.parse("encoder/accel")
    channels = federation.modalities["accel"].channels
    values = person.streams["watch"].tracks[0].values[:, :3]  # acceleration in m/s2
    values = (values - [c.mean for c in channels]) / [c.spread for c in channels]
    windows = values[: 10 * 128].reshape(10, 128, 3)
    assert float(np.abs(windows).max()) > 1.0, "recorded values of a still sensor prove little"
    skeleton = packaged(skeleton_digest(federation, block))
    assert check_parity(federation, block, skeleton, seed=2, windows=[windows, windows[:1]]) <= LARGEST_ERROR


@pytest.fixture(scope="module")
def head_skeleton() -> bytes:
    return export_skeleton(tiny(), HEAD)


def test_a_skeleton_has_every_parameter_by_name_and_shape_and_no_weight(head_skeleton: bytes) -> None:
    spec = tiny().spec[HEAD]
    facts = check_skeleton(head_skeleton, spec, digest=skeleton_digest(tiny(), HEAD))
    assert facts.parameters == {t.name: t.shape for t in spec.tensors}
    proto = onnx.load_from_string(head_skeleton)
    places = [t for t in proto.graph.initializer if t.name in facts.parameters]
    assert all(not t.raw_data for t in places)
    assert [node.name + node.doc_string for node in proto.graph.node] == [""] * len(proto.graph.node)
    assert not proto.graph.value_info
    for tensor in places:
        zeros = np.zeros(facts.parameters[tensor.name], np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
    onnx.checker.check_model(proto, full_check=True)


def test_an_export_again_gives_the_same_bytes_says_nothing_and_leaves_no_trace_in_the_process(
    head_skeleton: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    state, levels = torch.random.get_rng_state(), {n: logging.getLogger(n).level for n in ("torch.onnx", "onnxscript")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert export_skeleton(tiny(), HEAD) == head_skeleton
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {n: logging.getLogger(n).level for n in levels} == levels
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_computes_something_else_is_refused(head_skeleton: bytes) -> None:
    proto = onnx.load_from_string(head_skeleton)
    (relu,) = [node for node in proto.graph.node if node.op_type == "Relu"]
    relu.op_type = "Tanh"
    del proto.metadata_props[-1]  # the old seal
    other = seal_skeleton(proto.SerializeToString())
    with pytest.raises(BlossomError, match=r"head/har \(mlp\): for fused \[\d, 8\] onnxruntime is .* away") as caught:
        check_parity(tiny(), HEAD, other, seed=0)
    assert caught.value.error_id == "export-failed"


def test_the_skeleton_of_another_block_is_refused(head_skeleton: bytes) -> None:
    with pytest.raises(BlossomError, match="another block") as caught:
        check_parity(tiny(), REST, head_skeleton, seed=0)
    assert caught.value.error_id == "export-failed"


def test_a_graph_that_lost_a_parameter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fold_and_rename(model: Any, parameters: set[str]) -> None:
        model.graph.initializers["bias"].name = "val_700"

    monkeypatch.setattr(graph, "fold_around_parameters", fold_and_rename)
    with pytest.raises(BlossomError, match=r"fusion/har \(concat\): the graph lost bias") as caught:
        export_skeleton(tiny(), REST)
    assert caught.value.error_id == "export-failed"


@pytest.mark.slow
def test_a_skeleton_that_would_not_fit_a_message_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_SKELETON_BYTES", 500)
    with pytest.raises(BlossomError, match=r"its skeleton has \d+ bytes, at most 500"):
        export_skeleton(tiny(), HEAD)


def test_missing_packages_are_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in ("onnx", "onnxscript") else real(name, *a)
    )
    with pytest.raises(ConfigError, match="needs onnx, onnxscript, which are not installed") as caught:
        export_skeleton(tiny(), HEAD)
    assert (caught.value.error_id, caught.value.hint) == ("package-missing", "pip install 'blossom-edge[export]'")


def test_a_torch_that_is_too_old_for_an_export_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.8.1+cpu")
    with pytest.raises(ConfigError, match=r"an export needs torch 2\.9 or newer, found 2\.8\.1\+cpu") as caught:
        export_skeleton(tiny(), HEAD)
    assert caught.value.error_id == "package-missing"


def test_errors_are_relative_to_the_largest_value_or_to_one_and_a_nan_is_infinitely_wrong() -> None:
    assert largest_error(np.array([10.0, 0.0]), np.array([10.0, 0.5])) == 0.05
    assert largest_error(np.array([0.1]), np.array([0.2])) == pytest.approx(0.1)
    assert largest_error(np.array([1.0]), np.array([np.nan])) == float("inf")
    assert largest_error(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0


def test_random_weights_are_the_same_for_the_same_seed_and_of_the_size_of_trained_ones() -> None:
    spec = load_federation("har").spec[BlockId.parse("encoder/accel")]
    first, again, other = (random_values(spec, seed=seed) for seed in (3, 3, 4))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert first["gru.weight_hh_l0"].tobytes() != other["gru.weight_hh_l0"].tobytes()
    assert float(first["gru.weight_hh_l0"].std()) == pytest.approx(128**-0.5, rel=0.05)
    assert all(v.dtype == np.float32 for v in first.values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_package_data_are_what_an_export_gives_now(tmp_path: Path) -> None:
    for _, size, error in write_presets(tmp_path):
        assert (size < 8192, error <= LARGEST_ERROR) == (True, True)
    made, have = (json.loads((folder / INDEX).read_text("utf-8")) for folder in (tmp_path, PACKAGED))
    assert set(made) == set(have)
    assert exporter_versions() == {n: importlib.metadata.version(n).partition("+")[0] for n in ("torch", "onnxscript")}
    for digest, entry in have.items():
        if entry["exporter"] == exporter_versions():
            assert (tmp_path / f"{digest}.onnx").read_bytes() == packaged(digest), (
                f"{entry['blocks'][0]}: make skeletons"
            )


@pytest.mark.slow
def test_what_no_preset_needs_any_more_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{'a' * 64}.onnx").write_bytes(b"old")
    digest = skeleton_digest(tiny(), HEAD)
    monkeypatch.setattr("blossom_edge.export.presets.preset_blocks", lambda: {digest: [(tiny(), HEAD)]})
    assert [block for block, _, _ in write_presets(tmp_path)] == ["har head/har"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{digest}.onnx", INDEX])


@pytest.mark.slow
@pytest.mark.parametrize("digest", ONE_OF_EACH_TYPE)
def test_our_own_block_types_are_held_to_what_a_third_partys_are(digest: str) -> None:
    federation, block = preset_blocks()[digest][0]
    checked = check_block_type(federation, block, seed=7)
    assert checked.error <= LARGEST_ERROR
    assert checked.skeleton_bytes == len(packaged(digest))
