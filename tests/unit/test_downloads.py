"""Block versions on their way in: what counts, what is asked for and when, what is never believed."""

from __future__ import annotations

import hashlib

import pytest
from support.machine import ACCEL, GYRO

from blossom_edge.client.actions import Held
from blossom_edge.client.downloads import JITTER_S, LONGEST_SILENCE_S, SILENCE_S, Downloads
from blossom_edge.codec.chunks import MAX_DATA, chunk_span, num_chunks, parse_bitmap
from blossom_edge.codec.messages import CastChunk
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import FrameError

SIZE = 3 * MAX_DATA
ONE, TWO = (bytes([n]) * SIZE for n in (1, 2))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def piece(data: bytes, index: int, *, version: int = 1, key: BlockKey = ACCEL) -> CastChunk:
    return CastChunk(
        block=str(key.block),
        version=version,
        codec="float32",
        sha256=sha(data),
        num_bytes=len(data),
        index=index,
        count=num_chunks(len(data)),
        data=data[chunk_span(index)],
    )


def downloads(device: str = "a") -> Downloads:
    return Downloads(expected_bytes=lambda key: SIZE, seed=device)


def test_a_version_is_held_when_all_its_chunks_and_its_signed_name_are_here_in_any_order() -> None:
    for wanted_at in range(4):
        made, found = downloads(), []
        for step, index in enumerate((2, 0, 1)):
            if step == wanted_at:
                found.append(made.want(ACCEL, 1, sha(ONE), now=0.0))
            found.append(made.chunk(piece(ONE, index), 0.0))
        if wanted_at == 3:
            found.append(made.want(ACCEL, 1, sha(ONE), now=0.0))
        done = [f for f in found if f is not None]
        assert done == ([Held(1, sha(ONE), ONE)] if wanted_at == 3 else [(ACCEL, Held(1, sha(ONE), ONE))])
        assert made.held[ACCEL].data == ONE
        assert made.missing() == ()


def test_chunks_count_for_nothing_until_a_signed_message_names_their_hash() -> None:
    made = downloads()
    for index in range(3):
        assert made.chunk(piece(TWO, index), 0.0) is None
    made.want(ACCEL, 1, sha(ONE), now=0.0)
    assert ACCEL not in made.held
    assert made.missing() == (ACCEL,)


def test_chunks_of_another_hash_do_not_spoil_the_version_that_is_wanted() -> None:
    made = downloads()
    made.want(ACCEL, 1, sha(ONE), now=0.0)
    made.chunk(piece(ONE, 0), 0.0)
    assert made.chunk(piece(TWO, 1), 0.0) is None
    made.chunk(piece(ONE, 1), 0.0)
    assert made.chunk(piece(ONE, 2), 0.0) == (ACCEL, Held(1, sha(ONE), ONE))


def test_a_forged_chunk_is_noticed_by_the_hash_and_everything_fetched_again() -> None:
    made = downloads()
    made.want(ACCEL, 1, sha(ONE), now=0.0)
    forged = piece(ONE, 1).model_copy(update={"data": bytes(MAX_DATA)})
    made.chunk(piece(ONE, 0), 0.0)
    made.chunk(forged, 0.0)
    with pytest.raises(FrameError, match="do not have the hash"):
        made.chunk(piece(ONE, 2), 0.0)
    (ask,) = made.asks(10.0, epoch=1)
    assert parse_bitmap(ask.missing, 3) == [0, 1, 2]


def test_a_cast_of_another_size_than_the_blocks_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(FrameError, match=f"10 bytes are cast, the block has {SIZE}"):
        downloads().chunk(piece(b"\1" * 10, 0), 0.0)


def test_a_device_asks_after_a_silence_with_jitter_for_exactly_what_is_missing() -> None:
    made = downloads()
    made.want(ACCEL, 1, sha(ONE), now=0.0)
    due = made.next_due()
    assert due is not None
    assert SILENCE_S <= due <= SILENCE_S + JITTER_S
    made.chunk(piece(ONE, 1), 5.0)
    due = made.next_due()
    assert due == 5.0 + SILENCE_S, "something came: the silence begins anew"
    assert made.asks(5.9, epoch=4) == []
    (ask,) = made.asks(6.0, epoch=4)
    assert (ask.epoch, ask.block, ask.version) == (4, "encoder/accel", 1)
    assert parse_bitmap(ask.missing, 3) == [0, 2]


def test_patience_doubles_up_to_half_a_minute() -> None:
    made, now, pauses = downloads(), 0.0, []
    made.want(ACCEL, 1, sha(ONE), now=now)
    for _ in range(8):
        due = made.next_due()
        assert due is not None
        pauses.append(due - now)
        now = due
        assert made.asks(now, epoch=1)[0].missing == "", "nothing came: all of it"
    lower = [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_SILENCE_S, LONGEST_SILENCE_S, LONGEST_SILENCE_S]
    assert all(low <= pause <= low + JITTER_S for low, pause in zip(lower, pauses, strict=True))


def test_two_devices_do_not_ask_at_the_same_moment() -> None:
    dues = set()
    for device in ("a", "b", "c"):
        made = downloads(device)
        made.want(ACCEL, 1, sha(ONE), now=0.0, soon=True)
        dues.add(made.next_due())
    assert len(dues) == 3
    assert all(due is not None and due <= JITTER_S for due in dues), "nothing is being cast: only the jitter"


def test_what_is_held_already_is_not_wanted_and_an_old_cast_of_it_ignored() -> None:
    made = downloads()
    made.held[ACCEL] = Held(1, sha(ONE), ONE)
    assert made.want(ACCEL, 1, sha(ONE), now=0.0) is None
    assert made.missing() == ()
    assert made.chunk(piece(ONE, 0), 0.0) is None
    assert made.asks(100.0, epoch=1) == []


def test_a_newer_version_takes_the_place_of_the_one_wanted_before() -> None:
    made = downloads()
    made.want(ACCEL, 1, sha(ONE), now=0.0)
    made.chunk(piece(ONE, 0), 0.0)
    made.want(ACCEL, 2, sha(TWO), now=1.0)
    for index in range(3):
        found = made.chunk(piece(TWO, index, version=2), 1.0)
    assert found == (ACCEL, Held(2, sha(TWO), TWO))


def test_forgetting_drops_versions_wants_and_pieces() -> None:
    made = downloads()
    made.held[GYRO] = Held(1, sha(ONE), ONE)
    made.want(ACCEL, 1, sha(ONE), now=0.0)
    made.forget()
    assert (made.held, made.missing(), made.next_due()) == ({}, (), None)
