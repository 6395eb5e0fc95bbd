"""The skeletons that come with the package: one for every block of every preset. Needs neither torch nor onnx."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blossom_edge.codec.skeleton_file import MAX_SKELETON_BYTES, check_skeleton
from blossom_edge.core.blocks import BlockId
from blossom_edge.export.ports import Port, block_ports
from blossom_edge.export.presets import INDEX, preset_blocks, preset_federations
from blossom_edge.federation.block_types import ENCODERS, FUSIONS, HEADS
from blossom_edge.federation.load import list_federations, load_federation
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.skeleton_set import PACKAGED, SkeletonSet

INDEXED: dict[str, Any] = json.loads((PACKAGED / INDEX).read_text("utf-8"))


def test_every_block_of_every_preset_has_its_skeleton_in_the_package_and_nothing_else_is_there() -> None:
    assert set(preset_blocks()) == set(INDEXED), "run `make skeletons`"
    assert {path.name for path in PACKAGED.iterdir()} == {INDEX, *(f"{digest}.onnx" for digest in INDEXED)}


def test_every_fusion_of_every_preset_and_all_built_in_types_are_among_them() -> None:
    types = {(f.spec[b].id.kind.value, f.spec[b].type) for users in preset_blocks().values() for f, b in users}
    built_in = {(kind, name) for kind, table in _tables() for name in table}
    assert types == built_in
    assert len(list(preset_federations())) == len(FUSIONS) * len(list_federations())


def test_a_preset_as_it_is_needs_nothing_from_elsewhere() -> None:
    for name, _ in list_federations():
        federation = load_federation(name)
        assert SkeletonSet().missing(skeleton_digest(federation, s.id) for s in federation.spec.blocks) == []


@pytest.mark.parametrize("digest", sorted(INDEXED))
def test_a_packaged_skeleton_is_whole_without_weights_and_that_of_each_block_that_it_names(digest: str) -> None:
    data = (PACKAGED / f"{digest}.onnx").read_bytes()
    assert len(data) <= 8192 < MAX_SKELETON_BYTES
    users = preset_blocks()[digest]
    assert INDEXED[digest]["blocks"] == [f"{f.name} {b}" for f, b in users]
    for federation, block in users:
        spec = federation.spec[block]
        facts = check_skeleton(data, spec, digest=digest)
        assert facts.type == INDEXED[digest]["type"] == spec.type
        made_by = INDEXED[digest]["exporter"]
        assert facts.exporter == f"torch {made_by['torch']} onnxscript {made_by['onnxscript']}"
        assert (facts.ir_version, facts.opset) == (10, 20)


def test_the_ports_of_each_kind_of_block_are_named_and_sized_as_the_runner_feeds_them() -> None:
    federation = load_federation("two-tasks")  # windows of 64 x 3, mlp to 32, fusions of 32, 3 classes and a number

    def ports(block: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        found = block_ports(federation, BlockId.parse(block))
        return [_plain(p) for p in found.inputs], [_plain(p) for p in found.outputs]

    many = ("batch", "modality")
    assert ports("encoder/accel") == ([("window", ("batch", 64, 3))], [("embedding", ("batch", 32))])
    assert ports("fusion/speed.accel") == (
        [("embedding", ("batch", 32))],
        [("value", ("batch", 32)), ("score", ("batch",))],
    )
    assert ports("fusion/speed") == (
        [("values", (*many, 32)), ("scores", many), ("present", many)],
        [("fused", ("batch", 32))],
    )
    assert ports("head/activity") == ([("fused", ("batch", 32))], [("output", ("batch", 3))])
    assert ports("head/speed") == ([("fused", ("batch", 32))], [("output", ("batch", 1))])


def test_examples_are_the_same_for_the_same_seed_and_their_last_row_has_nothing_present() -> None:
    ports = block_ports(load_federation("har"), BlockId.parse("fusion/har"))
    first, again = (ports.example(batch=4, modalities=2, seed=5) for _ in range(2))
    assert [first[n].tobytes() for n in first] == [again[n].tobytes() for n in again]
    assert first["values"].shape == (4, 2, 256)
    assert first["present"][0].all()
    assert not first["present"][-1].any()


def _tables() -> list[tuple[str, Any]]:
    return [("encoder", ENCODERS), ("fusion", FUSIONS), ("head", HEADS)]


def _plain(port: Port) -> tuple[Any, ...]:
    assert port.is_bool == (port.name == "present")
    return port.name, port.shape
