"""The wire of protocol 1, byte for byte: a change that old devices would not understand is seen here.

A failure means that frames look different than those of released versions. If that is on purpose:

    python tests/contract/test_golden_frames.py --write

and say it in CHANGELOG.md; if an older side could misread the new bytes, raise `PROTOCOL` too.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.codec import envelope, strict_json
from blossom_edge.codec.envelope import decode, encode
from blossom_edge.codec.keys import SigningKey
from blossom_edge.codec.messages import (
    BY_KIND,
    MAX_CHUNKS,
    MAX_TRANSFER_BYTES,
    Announce,
    Ask,
    Bye,
    CastChunk,
    Commit,
    CommittedBlock,
    Grant,
    HeldBlock,
    Hello,
    MetricSum,
    Need,
    Offer,
    Plan,
    PlannedBlock,
    PlannedTraining,
    PredictionReport,
    Receipt,
    Refusal,
    Reject,
    Skeleton,
    State,
    UploadChunk,
    UsedVersion,
    WantSkeletons,
    Welcome,
    WireMessage,
)
from blossom_edge.codec.safetensors_file import read, write
from blossom_edge.codec.tensors import CODECS, make_codec
from blossom_edge.core.blocks import BlockId, BlockSpec, TensorSpec

FOLDER = Path(__file__).parent / "golden"
DOCUMENT = Path(__file__).parents[2] / "docs" / "wire-protocol.md"
REGENERATE = "the wire changed; on purpose? python tests/contract/test_golden_frames.py --write"

DEVICE = SigningKey.from_bytes(bytes(range(32)))
GATEWAY = SigningKey.from_bytes(bytes(range(32, 64)))
ONE, TWO, THREE = "11" * 32, "22" * 32, "33" * 32

UP = (
    Hello(
        boot=7,
        connection=2,
        protocol_min=1,
        protocol_max=1,
        software="blossom-edge 0.1.0",
        key=DEVICE.public_hex,
        profile="watch",
        profile_digest=ONE,
        role="train",
        modalities=("accel", "gyro"),
        tasks=("har",),
        codecs=("float32", "float16"),
        federation_digest=TWO,
        held=(HeldBlock(block="head/har", cohort="accel.gyro", version=4, sha256=THREE),),
        epoch=0,
        sequence=12,
        ledger_seq=345,
    ),
    Bye(boot=7, connection=2, reason="stopped"),
    Offer(
        epoch=0,
        round=5,
        block="encoder/accel",
        base_version=4,
        num_samples=120,
        num_steps=8,
        codec="float32",
        sha256=ONE,
        num_bytes=603904,
        num_chunks=7,
        sequence=13,
    ),
    UploadChunk(block="encoder/accel", round=5, sha="11" * 8, index=6, data=bytes(range(8))),
    Ask(epoch=0, block="encoder/accel", version=5, missing="42"),
    State(
        epoch=0,
        round=5,
        phase="evaluated",
        reason="",
        present=("accel", "gyro"),
        score={"har.accuracy": MetricSum(total=48.0, count=60.0)},
        num_windows=120,
        num_steps=8,
        sequence=14,
    ),
    WantSkeletons(epoch=0, skeletons=(ONE, TWO)),
    PredictionReport(
        epoch=0,
        task="har",
        kind="classification",
        labels=("Gehen",),
        confidence=0.875,
        latency_ms=1.25,
        age_s=0.5,
        present=("accel",),
        versions=(UsedVersion(block="encoder/accel", version=5), UsedVersion(block="head/har", version=4)),
        sequence=15,
    ),
)
DOWN = (
    Welcome(
        key=GATEWAY.public_hex,
        protocol=1,
        epoch=0,
        round=5,
        running="open",
        federation_digest=TWO,
        federation={"schema": 1, "name": "har", "title": "Tätigkeiten", "rounds": {"deadline_s": 120.0}},
        versions=(HeldBlock(block="encoder/accel", version=5, sha256=THREE),),
        sequence=12,
        ledger_seq=346,
        ledger_hash=ONE,
        boot=3,
        come_back_s=0.0,
    ),
    Reject(
        key=GATEWAY.public_hex,
        type="unowned",
        final=True,
        reason="the federation learns from accel, gyro; this device has mag",
        hint="choose another profile",
        come_back_s=0.0,
    ),
    Plan(
        epoch=0,
        round=5,
        remaining_s=118.5,
        blocks=(
            PlannedBlock(block="encoder/accel", version=4, sha256=THREE, quorum=1, min_cohort=1),
            PlannedBlock(block="head/har", cohort="accel.gyro", version=4, sha256=TWO, quorum=2, min_cohort=3),
        ),
        training=PlannedTraining(
            optimizer="sgd",
            lr=0.05,
            epochs=1,
            steps=0,
            batch_size=16,
            momentum=0.9,
            weight_decay=0.0,
            clip_norm=5.0,
            seed=1,
        ),
        codec="float32",
        min_new_windows=0,
    ),
    Grant(round=5, block="encoder/accel", sha256=ONE, first=16, count=8),
    Need(round=5, block="encoder/accel", sha256=ONE, missing="42"),
    Receipt(
        epoch=0,
        round=5,
        block="encoder/accel",
        base_version=4,
        sha256=ONE,
        sequence=13,
        ledger_seq=347,
        ledger_hash=TWO,
    ),
    Refusal(
        epoch=0,
        round=5,
        block="encoder/accel",
        sha256=ONE,
        type="late",
        final=True,
        reason="round 5 is frozen",
        hint="take part in the next round",
    ),
    Skeleton(digest=ONE, sha256=hashlib.sha256(bytes(range(8))).hexdigest(), reason="", data=bytes(range(8))),
)
CAST = (
    CastChunk(
        block="encoder/accel",
        version=5,
        codec="float32",
        sha256=THREE,
        num_bytes=603904,
        index=6,
        count=7,
        data=bytes(range(8)),
    ),
    Commit(
        epoch=0,
        round=5,
        blocks=(
            CommittedBlock(block="encoder/accel", version=5, sha256=THREE, members=("watch-1", "watch-2")),
            CommittedBlock(block="head/har", cohort="accel", version=4, sha256=TWO, held="nobody trained it"),
        ),
        ledger_seq=348,
        ledger_hash=ONE,
        running="open",
        next_s=0.0,
    ),
    Announce(epoch=0, boot=3, round=5, key=GATEWAY.public_hex, ledger_seq=348, ledger_hash=ONE),
)
FRAMES: dict[type[WireMessage], tuple[WireMessage, str, SigningKey]] = {
    **{type(m): (m, "har/watch-1", DEVICE) for m in UP},
    **{type(m): (m, "har/watch-1", GATEWAY) for m in DOWN},
    **{type(m): (m, "har/", GATEWAY) for m in CAST},
}

SPEC = BlockSpec(BlockId.parse("head/har"), "linear", (TensorSpec("bias", (2,)), TensorSpec("weight", (2, 3))))
VALUES = {
    "bias": np.array([0.5, -0.25], dtype=np.float32),
    "weight": np.array([[1, 2, 3], [-1, 0, 65504]], dtype=np.float32),
}
METADATA = {"block": "head/har", "version": "5"}


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.hex"


def frame_name(cls: type[WireMessage]) -> str:
    return f"{cls.KIND:02}-{cls.__name__.lower()}"


def frame_of(cls: type[WireMessage]) -> bytes:
    message, scope, key = FRAMES[cls]
    return encode(message, scope=scope, sign=key)


def golden(name: str) -> bytes:
    return bytes.fromhex(path_of(name).read_text(encoding="ascii"))


def show(data: bytes) -> str:
    """Hex, 32 bytes a line, so that a diff shows where the bytes changed."""
    return "".join(data[at : at + 32].hex() + "\n" for at in range(0, len(data), 32))


def everything() -> dict[str, bytes]:
    made = {frame_name(cls): frame_of(cls) for cls in FRAMES}
    made |= {f"tensors-{wire_id}": make_codec(wire_id).encode(VALUES, SPEC) for wire_id in CODECS}
    return {**made, "file-safetensors": write(VALUES, METADATA)}


KINDS = [pytest.param(cls, id=frame_name(cls)) for cls in FRAMES]


def test_every_kind_has_a_golden_frame_and_every_file_is_used():
    assert set(FRAMES) == set(BY_KIND.values())
    assert {path.name for path in FOLDER.iterdir()} == {path_of(name).name for name in everything()}


@pytest.mark.parametrize("name", sorted(everything()))
def test_what_we_write_is_byte_for_byte_what_protocol_1_wrote(name):
    assert show(everything()[name]) == path_of(name).read_text(encoding="ascii"), REGENERATE


@pytest.mark.parametrize("cls", KINDS)
def test_a_golden_frame_is_still_understood(cls):
    message, scope, key = FRAMES[cls]
    frame = decode(golden(frame_name(cls)), allowed=[cls])
    assert frame.message == message
    assert type(frame.message) is cls
    if cls.SIGNED:
        frame.check(scope, key.public_hex)


@pytest.mark.parametrize("wire_id", CODECS)
def test_golden_tensors_are_still_understood(wire_id):
    values = make_codec(wire_id).decode(golden(f"tensors-{wire_id}"), SPEC)
    for name, expected in VALUES.items():
        np.testing.assert_array_equal(values[name], expected)


def test_a_golden_file_is_still_understood():
    values, metadata = read(golden("file-safetensors"))
    assert metadata == METADATA
    for name, expected in VALUES.items():
        np.testing.assert_array_equal(values[name], expected)


def test_the_document_explains_the_bytes_of_a_golden_frame():
    text = DOCUMENT.read_text(encoding="utf-8").split("### A frame by hand")[1].split("## Signatures")[0]
    rows = re.findall(r"^\| (\d+) \| `([0-9a-f ]+)` \|", text, re.MULTILINE)
    joined = b""
    for offset, digits in rows:
        assert int(offset) == len(joined)
        joined += bytes.fromhex(digits)
    assert joined == golden(frame_name(Bye))
    assert DEVICE.fingerprint in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("cls", KINDS)
def test_the_document_has_every_kind_with_all_its_fields(cls):
    text = DOCUMENT.read_text(encoding="utf-8")
    where = "body" if cls.IN_BODY else "header, bytes in the body" if cls.HAS_DATA else "header"
    signed = "yes" if cls.SIGNED else "no"
    assert re.search(rf"^\| {cls.KIND} \| `{cls.NAME}` \| [a-z, ]+ \| {where} \| {signed} \|$", text, re.MULTILINE)
    section = text.split(f"**{cls.KIND} `{cls.NAME}`**")[1].split("\n\n")[0]
    assert [name for name in cls.model_fields if name != "data" and f"`{name}`" not in section] == []


def test_the_document_states_the_limits_of_the_code():
    text = DOCUMENT.read_text(encoding="utf-8").split("## Limits")[1]
    for what, limit in (
        ("frame", f"{envelope.MAX_FRAME_BYTES} bytes"),
        ("header", f"{envelope.MAX_HEADER_BYTES} bytes"),
        ("body, and so one chunk", f"{envelope.MAX_BODY_BYTES} bytes"),
        ("chunks of one transfer", f"{MAX_CHUNKS}"),
        ("one transfer", f"{MAX_TRANSFER_BYTES} bytes (768 MiB)"),
        ("depth of JSON", f"{strict_json.MAX_DEPTH}"),
    ):
        assert f"| {what} | {limit} |" in text


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"{Path(__file__).name} --write replaces all files in {FOLDER.name}/ by what the code makes now")
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.hex"):
        old.unlink()
    for file_name, content in everything().items():
        path_of(file_name).write_text(show(content), encoding="ascii")
