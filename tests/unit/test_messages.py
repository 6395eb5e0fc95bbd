"""Messages: limits that fit each other, kinds that cannot be mixed up, and nothing taken loosely."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from blossom_edge.codec.chunks import make_bitmap
from blossom_edge.codec.envelope import decode, encode
from blossom_edge.codec.keys import SigningKey
from blossom_edge.codec.messages import (
    BY_KIND,
    CAST,
    DOWN,
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_TRANSFER_BYTES,
    UP,
    Bye,
    CastChunk,
    Need,
    Skeleton,
    State,
    UploadChunk,
)

KEY = SigningKey.from_bytes(bytes(32))
ALL = tuple(sorted(BY_KIND.values(), key=lambda cls: cls.KIND))
LARGEST: dict[str, Any] = {
    "boot": 2**53,
    "connection": 2**53,
    "epoch": 2**53,
    "round": 2**53,
    "version": 2**53,
    "base_version": 2**53,
    "sequence": 2**53,
    "ledger_seq": 2**53,
    "num_samples": 2**40,
    "num_steps": 2**32,
    "num_bytes": MAX_TRANSFER_BYTES,
    "num_chunks": MAX_CHUNKS,
    "count": MAX_CHUNKS,
    "index": 65535,
    "first": 65535,
    "block": "encoder/" + "x" * 63,
    "cohort": "x" * 63,
    "codec": "x" * 31,
    "digest": "f" * 64,
    "sha256": "f" * 64,
    "ledger_hash": "f" * 64,
    "key": "f" * 64,
    "sha": "f" * 16,
    "reason": "\x01" * 500,  # six bytes each in JSON
    "missing": make_bitmap(range(MAX_CHUNKS), MAX_CHUNKS),
}


@pytest.mark.parametrize("cls", [c for c in ALL if not c.IN_BODY], ids=lambda c: c.__name__)
def test_the_largest_message_that_travels_in_a_header_fits_it(cls):
    message = cls(**{name: LARGEST[name] for name in cls.model_fields if name != "data"})
    payload = encode(message, scope="x" * 63 + "/" + "x" * 63, sign=KEY)
    assert decode(payload, allowed=[cls]).message == message


def test_the_largest_state_fits_its_body():
    score = {f"{'x' * 78}{n:02}": {"total": -1.7976931348623157e308, "count": 1e300} for n in range(64)}
    state = State(
        epoch=2**53,
        round=2**53,
        phase="evaluated",
        reason="\x01" * 500,
        present=tuple(f"{'x' * 61}{n:02}" for n in range(32)),
        score=score,
        num_windows=2**53,
        num_steps=2**53,
        sequence=2**53,
    )
    assert decode(encode(state, scope="a/b", sign=KEY), allowed=UP).message == state


def test_every_kind_has_its_own_number_within_a_byte():
    kinds = [cls.KIND for cls in {*UP, *DOWN, *CAST}]
    assert len(set(kinds)) == len(kinds) == len(BY_KIND)
    assert all(0 < kind < 256 for kind in kinds)


def test_the_name_tells_the_kinds_of_one_direction_apart():
    for direction in (UP, DOWN, CAST):
        assert len({cls.NAME for cls in direction}) == len(direction)


def test_only_chunks_and_skeletons_carry_data_and_only_chunks_go_unsigned():
    chunks = {UploadChunk, CastChunk}
    assert {cls for cls in ALL if cls.HAS_DATA} == chunks | {Skeleton}  # in one piece, and signed
    assert {cls for cls in ALL if not cls.SIGNED} == chunks
    assert not any(cls.IN_BODY for cls in chunks)


def test_a_message_is_closed_strict_and_frozen():
    with pytest.raises(ValidationError):
        Bye(boot=1, connection=1, extra=1)
    with pytest.raises(ValidationError):
        Bye(boot="1", connection=1)
    with pytest.raises(ValidationError):
        Bye(boot=1.0, connection=1)
    with pytest.raises(ValidationError):
        Bye(boot=-1, connection=1)
    bye = Bye(boot=1, connection=1)
    with pytest.raises(ValidationError):
        bye.boot = 2


def test_data_is_bounded_and_stays_out_of_the_fields_and_of_logs():
    chunk = UploadChunk(block="head/har", round=1, sha="0" * 16, index=0, data=b"secret")
    assert "data" not in chunk.model_dump()
    assert "secret" not in repr(chunk)
    with pytest.raises(ValidationError):
        UploadChunk(block="head/har", round=1, sha="0" * 16, index=0, data=bytes(MAX_CHUNK_BYTES + 1))


@pytest.mark.parametrize("block", ["head", "head/", "tail/x", "head/X", "head/x/y", "head/x\n", "head/" + "x" * 64])
def test_a_block_that_is_none_is_refused(block):
    with pytest.raises(ValidationError):
        Need(round=1, block=block, sha256="0" * 64, missing="")


@pytest.mark.parametrize("cohort", ["-a", "A", "a/b", "a\n", "x" * 64])
def test_a_cohort_that_is_no_name_is_refused(cohort):
    with pytest.raises(ValidationError):
        Need(round=1, block="head/x", cohort=cohort, sha256="0" * 64, missing="")


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ValidationError):
        State(epoch=0, round=1, phase="evaluated", score={"har.accuracy": {"total": float("nan"), "count": 1.0}})
