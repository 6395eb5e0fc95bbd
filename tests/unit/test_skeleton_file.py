"""Skeleton files: the packaged ones are what they say, and anything else is refused by name, before it is run."""

from __future__ import annotations

import json

import pytest

from blossom_edge.codec.skeleton_file import (
    DIGEST_KEY,
    MAX_DEPTH,
    MAX_PARTS,
    MAX_SKELETON_BYTES,
    SEAL_KEY,
    TYPE_KEY,
    check_skeleton,
    read_skeleton,
    seal_skeleton,
)
from blossom_edge.core.blocks import BlockId, BlockKind, BlockSpec, TensorSpec
from blossom_edge.core.errors import BlossomError, RemoteError
from blossom_edge.federation.load import list_federations, load_federation
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.skeleton_set import PACKAGED, SkeletonSet

DIGEST = "ab" * 32
SPEC = BlockSpec(BlockId(BlockKind.ENCODER, "accel"), "mlp", (TensorSpec("bias", (3,)), TensorSpec("weight", (3, 130))))
FLOAT, DOUBLE = 1, 11


# ---- a small writer of protobuf: what onnx itself would write


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


def outside(name: str, *shape: int, dtype: int = FLOAT) -> bytes:
    dims = b"".join(number(1, size) for size in shape)
    entry = part(1, "location") + part(2, "weights")
    return dims + number(2, dtype) + part(8, name) + part(13, entry) + number(14, 1)


def inside(name: str, *shape: int) -> bytes:
    return part(1, b"".join(varint(s) for s in shape)) + number(2, FLOAT) + part(8, name) + part(9, b"\0" * 4)


def node(op: str, *, domain: str = "", attribute: bytes = b"") -> bytes:
    return part(1, "window") + part(2, "embedding") + part(4, op) + part(7, domain) + attribute


WEIGHTS = (outside("bias", 3), outside("weight", 3, 130))


def skeleton(
    *tensors: bytes,
    nodes: tuple[bytes, ...] = (node("Relu"),),
    digest: str = DIGEST,
    opsets: tuple[tuple[str, int], ...] = (("", 20),),
    ir: int = 10,
    more: bytes = b"",
) -> bytes:
    graph = b"".join(part(1, n) for n in nodes) + b"".join(part(5, t) for t in tensors or WEIGHTS)
    model = number(1, ir) + part(7, graph) + more
    model += b"".join(part(8, part(1, domain) + number(2, version)) for domain, version in opsets)
    for key, value in ((DIGEST_KEY, digest), (TYPE_KEY, "mlp")):
        model += part(14, part(1, key) + part(2, value))
    return seal_skeleton(model)


def refusal(data: bytes) -> str:
    with pytest.raises(RemoteError) as caught:
        check_skeleton(data, SPEC, digest=DIGEST, name="the file")
    assert caught.value.error_id == "skeleton-invalid"
    assert str(caught.value).startswith("the file: ")
    return str(caught.value).removeprefix("the file: ")


def test_what_the_file_says_is_read() -> None:
    facts = check_skeleton(skeleton(*WEIGHTS, inside("two", 2)), SPEC, digest=DIGEST)
    assert facts.parameters == {"bias": (3,), "weight": (3, 130)}
    assert (facts.digest, facts.type, facts.opset, facts.ir_version) == (DIGEST, "mlp", 20, 10)
    assert facts.embedded == ("two",)  # a constant that is no parameter may stand in the file
    assert facts.sealed


@pytest.mark.parametrize("name", [name for name, _ in list_federations()])
def test_every_block_of_a_preset_has_its_skeleton_in_the_package(name: str) -> None:
    federation = load_federation(name)
    for spec in federation.spec.blocks:
        digest = skeleton_digest(federation, spec.id)
        data = SkeletonSet().get(digest)
        assert data is not None, f"{spec.id}: make skeletons"
        facts = check_skeleton(data, spec, digest=digest)
        assert facts.type == spec.type
        assert not set(facts.embedded) & set(facts.parameters)


def test_the_packaged_files_are_those_of_the_index() -> None:
    index = json.loads((PACKAGED / "index.json").read_text("utf-8"))
    assert {path.stem for path in PACKAGED.glob("*.onnx")} == set(index)
    for digest, entry in index.items():
        facts = read_skeleton((PACKAGED / f"{digest}.onnx").read_bytes())
        assert (facts.digest, facts.type) == (digest, entry["type"])


def test_a_file_that_is_cut_anywhere_is_refused() -> None:
    data = skeleton()
    for length in range(len(data)):
        refusal(data[:length])


def test_a_bit_that_is_flipped_anywhere_is_refused() -> None:
    data = skeleton()
    for at in range(len(data)):
        for bit in (0, 3, 7):
            refusal(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])


def test_a_packaged_skeleton_that_is_damaged_is_refused() -> None:
    federation = load_federation("har")
    block = BlockId.parse("encoder/accel")
    digest = skeleton_digest(federation, block)
    data = SkeletonSet().get(digest)
    assert data is not None
    for at in range(0, len(data), 97):
        for bad in (data[:at], data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :], data[:at] + data[at + 1 :]):
            with pytest.raises(RemoteError, match=r"skeleton of encoder/accel"):
                check_skeleton(bad, federation.spec[block], digest=digest)


def test_a_cut_is_called_truncated() -> None:
    assert refusal(skeleton()[:40]).startswith("truncated: a field of ")
    assert "cut short" in refusal(skeleton()[: len(skeleton()) - len(seal())])


def test_bytes_of_something_else_are_not_onnx() -> None:
    for data in (b"", b"PK\x03\x04" + b"\0" * 60, b"\x93NUMPY", b"\xff" * 64, b"{}", bytes(200)):
        assert refusal(data).split(":")[0] in {"not ONNX", "not ONNX, or cut short", "truncated"}, data


def seal() -> bytes:
    return part(14, part(1, SEAL_KEY) + part(2, "0" * 64))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (skeleton(digest="cd" * 32), "that of another block: found digest cdcdcdcdcdcd, expected abababababab"),
        (skeleton(digest=""), "that of another block: found digest none, expected abababababab"),
        (skeleton(WEIGHTS[0]), "a parameter missing: weight not among its initializers"),
        (skeleton(*WEIGHTS, outside("more", 1)), "values from elsewhere: more is outside the file and no parameter of"),
        (skeleton(WEIGHTS[0], outside("weight", 3, 129)), "wrong shape: weight is [3, 129], expected [3, 130]"),
        (skeleton(WEIGHTS[0], outside("weight", 390)), "wrong shape: weight is [390], expected [3, 130]"),
        (skeleton(WEIGHTS[0], outside("weight", 3, 130, dtype=DOUBLE)), "wrong type: 'weight' is of ONNX type 11"),
        (skeleton(WEIGHTS[0], inside("weight", 3, 130)), "weights embedded: the values of weight stand in the file"),
        (skeleton(*WEIGHTS, inside("weight", 3, 130)), "weights embedded: the values of weight stand in the file"),
        (skeleton(WEIGHTS[0], outside("weight", 3, 130) + part(9, b"\0" * 8)), "weights embedded: 'weight' has values"),
        (skeleton(*WEIGHTS, WEIGHTS[1]), "values from elsewhere: 'weight' in an inner graph, or twice"),
        (skeleton(nodes=(node("FusedConv", domain="com.microsoft"),)), "operators of 'com.microsoft'"),
        (skeleton(nodes=(node("X", domain="ai.onnx.ml"),)), "operators of 'ai.onnx.ml'; expected those of ONNX itself"),
        (skeleton(opsets=(("", 99),)), "too new: found IR 10 and opset 99, expected at most IR 10 and opset 20"),
        (skeleton(ir=11), "too new: found IR 11 and opset 20"),
        (skeleton(opsets=(("pkg.x", 1),)), "not ONNX, or cut short: found 1 graphs, format 10, operators 0"),
        (skeleton(more=part(7, b"")), "not ONNX, or cut short: found 2 graphs"),
        (skeleton(more=part(20, b"")), "training graphs in it; expected none"),
        (skeleton(nodes=(node("C", attribute=part(5, part(5, outside("x", 3)))),)), "values from elsewhere: the"),
        (skeleton(nodes=(node("C", attribute=part(5, part(22, b""))),)), "sparse values in it"),
        (skeleton(nodes=(node("If", attribute=part(5, part(6, part(5, WEIGHTS[1])))),)), "values from elsewhere:"),
        (skeleton(nodes=(b"",) * (MAX_PARTS + 1)), f"more than {MAX_PARTS} nodes and tensors"),
        (b"\0" * (MAX_SKELETON_BYTES + 1), f"too large: {MAX_SKELETON_BYTES + 1} bytes"),
    ],
)  # fmt: skip
def test_a_wrong_one_is_refused_by_name(data: bytes, words: str) -> None:
    assert refusal(data).startswith(words)


def test_functions_of_the_file_itself_may_be_called() -> None:
    function = part(25, part(1, "mine") + part(7, node("Relu")) + part(10, "pkg.own"))
    data = skeleton(nodes=(node("mine", domain="pkg.own"),), more=function, opsets=(("", 18), ("pkg.own", 1)))
    assert check_skeleton(data, SPEC, digest=DIGEST).opset == 18


def test_a_function_that_calls_foreign_operators_is_refused() -> None:
    function = part(25, part(7, node("Relu", domain="com.microsoft")) + part(10, "pkg.own"))
    assert refusal(skeleton(more=function)).startswith("operators of 'com.microsoft'")


def test_graphs_in_graphs_have_a_floor() -> None:
    inner = part(1, node("Relu"))
    for _ in range(MAX_DEPTH + 1):
        inner = part(1, node("If", attribute=part(5, part(6, inner))))
    data = skeleton(nodes=(node("If", attribute=part(5, part(6, inner))),))
    assert refusal(data) == f"graphs more than {MAX_DEPTH} deep"


def test_what_is_sealed_is_not_sealed_again() -> None:
    with pytest.raises(ValueError, match="sealed"):
        seal_skeleton(skeleton())


def test_random_bytes_behind_a_good_seal_are_always_an_error_of_ours() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    anything = hypothesis.strategies.binary(max_size=300)

    @hypothesis.given(anything)
    def holds(data: bytes) -> None:
        with pytest.raises(BlossomError):
            check_skeleton(seal_skeleton(data), SPEC, digest=DIGEST)

    holds()
