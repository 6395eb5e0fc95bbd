"""Chunks on their way up: windows, what is asked for again, and the bounds of memory and time."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from support.machine import ACCEL, GYRO, offer

from aggregator.uploads import GIVE_UP_S, SILENCE_S, Uploads
from blossom_edge.codec.chunks import MAX_DATA, chunk_span, num_chunks, parse_bitmap
from blossom_edge.codec.messages import Offer, UploadChunk
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import FrameError
from blossom_edge.core.names import DeviceId

A = DeviceId("a")
DATA = bytes(range(256)) * (40 * MAX_DATA // 256)
"""40 chunks."""


def offer_of(data: bytes = DATA, key: BlockKey = ACCEL, number: int = 1, **changes: Any) -> Offer:
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data), "num_chunks": num_chunks(len(data))}
    return offer("a", number, key, **{**facts, **changes})


def chunk_of(made: Offer, index: int, data: bytes = DATA) -> UploadChunk:
    return UploadChunk(
        block=made.block, round=made.round, sha=made.sha256[:16], index=index, data=data[chunk_span(index)]
    )


def test_sixteen_chunks_may_come_unasked_and_grants_keep_the_window_open() -> None:
    uploads, made = Uploads(), offer_of()
    assert uploads.begin(A, made, 0.0) is None
    granted = {}
    for index in range(40):
        upload, grant = uploads.add(A, chunk_of(made, index), 0.0)
        if grant is not None:
            granted[index] = (grant.first, grant.count)
        assert (upload is not None) == (index == 39)
    assert granted == {7: (16, 8), 15: (24, 8), 23: (32, 8)}
    assert upload is not None
    assert upload.chunks.result() == DATA


def test_after_a_silence_exactly_the_missing_chunks_are_asked_for_and_again_after_the_next() -> None:
    uploads, made = Uploads(), offer_of()
    uploads.begin(A, made, 0.0)
    for index in (0, 1, 3):
        uploads.add(A, chunk_of(made, index), 0.5)
    assert uploads.next_due() == 0.5 + SILENCE_S
    assert uploads.tick(1.4) == []
    ((device, need),) = uploads.tick(1.5)
    assert (device, need.block, need.sha256) == ("a", "encoder/accel", made.sha256)
    assert parse_bitmap(need.missing, 40) == [2, *range(4, 40)]
    assert uploads.tick(2.0) == [], "asked a moment ago"
    assert len(uploads.tick(2.5)) == 1


def test_an_offer_made_again_is_answered_with_what_is_missing() -> None:
    uploads, made = Uploads(), offer_of()
    uploads.begin(A, made, 0.0)
    uploads.add(A, chunk_of(made, 5), 0.0)
    need = uploads.begin(A, offer_of(sequence=99), 3.0)
    assert need is not None
    assert parse_bitmap(need.missing, 40) == [i for i in range(40) if i != 5]
    assert len(uploads) == 1


def test_an_offer_with_other_content_begins_anew() -> None:
    uploads, made = Uploads(), offer_of()
    uploads.begin(A, made, 0.0)
    uploads.add(A, chunk_of(made, 0), 0.0)
    other = bytes(len(DATA))
    assert uploads.begin(A, offer_of(other), 0.0) is None
    assert uploads.add(A, chunk_of(made, 1), 0.0) == (None, None), "chunks of the first are ignored"
    assert len(uploads) == 1


def test_chunks_of_no_upload_of_another_round_or_device_are_ignored() -> None:
    uploads, made = Uploads(), offer_of()
    assert uploads.add(A, chunk_of(made, 0), 0.0) == (None, None)
    uploads.begin(A, made, 0.0)
    assert uploads.add(A, chunk_of(made.model_copy(update={"round": 2}), 0), 0.0) == (None, None)
    assert uploads.add(DeviceId("b"), chunk_of(made, 0), 0.0) == (None, None)
    assert uploads.add(A, chunk_of(made.model_copy(update={"block": "encoder/gyro"}), 0), 0.0) == (None, None)
    need = uploads.tick(5.0)[0][1]
    assert len(parse_bitmap(need.missing, 40)) == 40


def test_a_chunk_that_does_not_belong_where_it_says_is_refused() -> None:
    uploads, made = Uploads(), offer_of()
    uploads.begin(A, made, 0.0)
    with pytest.raises(FrameError, match="chunk 40 of 40"):
        uploads.add(A, chunk_of(made, 0).model_copy(update={"index": 40}), 0.0)
    with pytest.raises(FrameError, match="chunk 1 has 3 bytes"):
        uploads.add(A, chunk_of(made, 1).model_copy(update={"data": b"abc"}), 0.0)


def test_a_chunk_that_comes_twice_counts_once_and_does_not_keep_the_upload_alive() -> None:
    uploads, made = Uploads(), offer_of()
    uploads.begin(A, made, 0.0)
    uploads.add(A, chunk_of(made, 0), 0.0)
    for second in range(1, 40):
        uploads.add(A, chunk_of(made, 0), float(second))
        uploads.tick(float(second))
    assert len(uploads) == 0, f"nothing new for {GIVE_UP_S} s"


def test_beyond_the_memory_set_aside_an_offer_is_turned_away_and_taken_later() -> None:
    uploads = Uploads(max_bytes=len(DATA) + 100)
    uploads.begin(A, offer_of(), 0.0)
    with pytest.raises(OverflowError, match=f"hold {len(DATA)} of {len(DATA) + 100} bytes"):
        uploads.begin(DeviceId("b"), offer_of(bytes(101)), 0.0)
    assert uploads.begin(DeviceId("b"), offer_of(bytes(100)), 0.0) is None
    uploads.end(A, ACCEL)
    assert uploads.begin(A, offer_of(bytes(101), GYRO), 0.0) is None


def test_a_number_of_chunks_that_is_not_that_of_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="200 bytes are 1 chunks, not 2"):
        Uploads().begin(A, offer_of(bytes(200), num_chunks=2), 0.0)


def test_a_frozen_round_forgets_its_uploads_and_older_ones() -> None:
    uploads = Uploads()
    uploads.begin(A, offer_of(number=3), 0.0)
    uploads.begin(DeviceId("b"), offer_of(number=4), 0.0)
    uploads.forget(3)
    assert len(uploads) == 1
    assert uploads.next_due() is not None
    uploads.forget(4)
    assert uploads.next_due() is None


def test_an_update_with_another_hash_than_offered_is_not_taken() -> None:
    uploads, made = Uploads(), offer_of(bytes(10))
    uploads.begin(A, made, 0.0)
    upload, _ = uploads.add(A, chunk_of(made, 0, b"\1" * 10), 0.0)
    assert upload is not None
    with pytest.raises(FrameError, match="do not have the hash"):
        upload.chunks.result()
