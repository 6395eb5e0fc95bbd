"""Updates on their way up: offered, sent in windows, offered again, until a receipt or a final refusal."""

from __future__ import annotations

from itertools import count

import pytest
from support.machine import ACCEL, GYRO

from blossom_edge.client.outbox import BUSY_S, LONGEST_PAUSE_S, REOFFER_S, WINDOW, Outbox
from blossom_edge.client.updates import Outgoing
from blossom_edge.codec.chunks import MAX_DATA, chunk_span, make_bitmap
from blossom_edge.codec.messages import Grant, Need, Offer, UploadChunk, WireMessage
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import FrameError

DATA = bytes(range(256)) * (20 * MAX_DATA // 256)


def outgoing(key: BlockKey = ACCEL, data: bytes = DATA) -> Outgoing:
    return Outgoing(key, round=3, base_version=2, num_samples=7, num_steps=4, codec="float32", data=data)


def outbox(*updates: Outgoing) -> Outbox:
    numbers = count(1)
    made = Outbox(next_sequence=lambda: next(numbers))
    made.fill(updates)
    return made


def indices(messages: list[WireMessage]) -> list[int]:
    return [m.index for m in messages if isinstance(m, UploadChunk)]


def offers(messages: list[WireMessage]) -> list[Offer]:
    return [m for m in messages if isinstance(m, Offer)]


def test_the_first_offer_is_followed_at_once_by_a_window_of_chunks() -> None:
    update = outgoing()
    sent = outbox(update).due(0.0, epoch=5)
    (offer,) = offers(sent)
    assert sent[0] is offer
    assert offer.model_dump() == {
        "epoch": 5, "round": 3, "block": "encoder/accel", "cohort": "", "base_version": 2, "num_samples": 7,
        "num_steps": 4, "codec": "float32", "sha256": update.sha256, "num_bytes": len(DATA), "num_chunks": 20,
        "sequence": 1,
    }  # fmt: skip
    assert indices(sent) == list(range(WINDOW))
    chunk = sent[2]
    assert isinstance(chunk, UploadChunk)
    assert (chunk.sha, chunk.data) == (update.sha256[:16], DATA[chunk_span(1)])


def test_an_unanswered_offer_is_made_again_without_chunks_and_the_pause_doubles() -> None:
    made = outbox(outgoing())
    made.due(0.0, epoch=1)
    now, pauses = 0.0, []
    for number in range(2, 8):
        due = made.next_due()
        assert due is not None
        pauses.append(due - now)
        now = due
        assert made.due(now - 0.1, epoch=1) == []
        sent = made.due(now, epoch=1)
        assert [o.sequence for o in offers(sent)] == [number]
        assert indices(sent) == []
    assert pauses == [REOFFER_S, 10.0, 20.0, 40.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_a_grant_brings_exactly_those_chunks_and_puts_off_the_next_offer() -> None:
    update = outgoing()
    made = outbox(update)
    made.due(0.0, epoch=1)
    grant = Grant(round=3, block="encoder/accel", sha256=update.sha256, first=16, count=8)
    assert indices(made.granted(grant, 4.0)) == [16, 17, 18, 19], "there are only 20"
    assert made.next_due() == 4.0 + REOFFER_S


def test_a_need_brings_what_is_missing_but_no_more_than_a_window() -> None:
    update = outgoing()
    made = outbox(update)
    made.due(0.0, epoch=1)
    need = Need(round=3, block="encoder/accel", sha256=update.sha256, missing=make_bitmap([2, 5, 19], 20))
    assert indices(made.needed(need, 1.0)) == [2, 5, 19]
    everything = need.model_copy(update={"missing": make_bitmap(range(20), 20)})
    assert indices(made.needed(everything, 1.0)) == list(range(WINDOW))
    with pytest.raises(FrameError, match="no bitmap of 20 chunks"):
        made.needed(need.model_copy(update={"missing": "ff"}), 1.0)


def test_answers_about_another_content_or_block_are_ignored() -> None:
    update = outgoing()
    made = outbox(update)
    other = "0" * 64
    assert made.granted(Grant(round=3, block="encoder/accel", sha256=other, first=0, count=8), 0.0) == []
    assert made.needed(Need(round=3, block="encoder/gyro", sha256=update.sha256, missing=""), 0.0) == []
    assert made.settle("encoder/accel", "", other) is None
    assert made.settle("encoder/accel", "accel", update.sha256) is None
    assert len(made) == 1


def test_a_receipt_or_final_refusal_ends_the_update() -> None:
    accel, gyro = outgoing(), outgoing(GYRO)
    made = outbox(accel, gyro)
    assert made.updates == (accel, gyro)
    assert made.settle("encoder/accel", "", accel.sha256) == accel
    assert made.settle("encoder/accel", "", accel.sha256) is None
    assert made.updates == (gyro,)
    made.settle("encoder/gyro", "", gyro.sha256)
    assert made.next_due() is None


def test_a_busy_gateway_gets_the_offer_and_its_chunks_again_a_little_later() -> None:
    update = outgoing()
    made = outbox(update)
    made.due(0.0, epoch=1)
    made.wait("encoder/accel", "", update.sha256, 1.0)
    assert made.due(1.0 + BUSY_S - 0.1, epoch=1) == []
    assert indices(made.due(1.0 + BUSY_S, epoch=1)) == list(range(WINDOW))


def test_after_a_reconnection_all_is_offered_at_once_and_no_chunk_unasked() -> None:
    made = outbox(outgoing(), outgoing(GYRO))
    made.due(0.0, epoch=1)
    made.reconnected()
    sent = made.due(0.1, epoch=1)
    assert [o.block for o in offers(sent)] == ["encoder/accel", "encoder/gyro"]
    assert indices(sent) == []


def test_a_new_round_takes_the_place_of_what_was_not_settled() -> None:
    made = outbox(outgoing())
    made.due(0.0, epoch=1)
    newer = outgoing(data=b"abc")
    made.fill([newer])
    assert made.updates == (newer,)
    assert indices(made.due(0.0, epoch=1)) == [0]
