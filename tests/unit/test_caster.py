"""Cast once, repair one by one, cast again for the third who asks; never faster than the pace."""

from __future__ import annotations

import pytest
from support.machine import ACCEL, GYRO

from aggregator.caster import BURST_BYTES, CHUNK_BYTES, RECAST_S, Caster, Piece
from blossom_edge.core.names import DeviceId

A, B, C, D = map(DeviceId, "abcd")
BURST = BURST_BYTES // CHUNK_BYTES


def caster() -> Caster:
    return Caster(bytes_per_s=10.0 * CHUNK_BYTES)


def test_a_new_version_is_cast_chunk_by_chunk_to_all() -> None:
    made = caster()
    made.cast(ACCEL, 1, 3)
    assert made.due(0.0) == [Piece(ACCEL, 1, index) for index in range(3)]
    assert made.due(100.0) == []
    assert made.next_due(100.0) is None


def test_the_first_two_who_miss_a_chunk_get_it_for_themselves_the_third_makes_it_be_cast_again() -> None:
    made = caster()
    made.cast(ACCEL, 1, 2)
    made.due(0.0)
    made.ask(A, ACCEL, 1, [1], 5.0)
    assert made.due(5.0) == [Piece(ACCEL, 1, 1, A)]
    made.ask(B, ACCEL, 1, [1], 5.1)
    assert made.due(5.1) == [Piece(ACCEL, 1, 1, B)]
    made.ask(C, ACCEL, 1, [1], 5.2)
    assert made.due(5.2) == [Piece(ACCEL, 1, 1)]


def test_one_device_that_asks_three_times_is_still_one_asker() -> None:
    made = caster()
    made.cast(ACCEL, 1, 1)
    made.due(0.0)
    for second in (5.0, 6.0, 7.0):
        made.ask(A, ACCEL, 1, [0], second)
        assert made.due(second) == [Piece(ACCEL, 1, 0, A)]


def test_what_is_queued_to_be_cast_is_not_queued_again() -> None:
    made = caster()
    made.cast(ACCEL, 1, 2)
    for device in (A, B, C):
        made.ask(device, ACCEL, 1, [0, 1], 0.0)
    assert made.due(0.0) == [Piece(ACCEL, 1, 0), Piece(ACCEL, 1, 1)]


def test_a_chunk_is_not_cast_again_within_two_seconds_and_counting_begins_anew_afterwards() -> None:
    made = caster()
    made.cast(ACCEL, 1, 1)
    made.due(0.0)
    for device in (A, B, C):
        made.ask(device, ACCEL, 1, [0], 1.0)
    assert made.due(1.0) == [Piece(ACCEL, 1, 0, A), Piece(ACCEL, 1, 0, B)]
    made.ask(C, ACCEL, 1, [0], RECAST_S)
    assert made.due(RECAST_S) == [Piece(ACCEL, 1, 0)]
    made.ask(D, ACCEL, 1, [0], 10.0)
    assert made.due(10.0) == [Piece(ACCEL, 1, 0, D)]


def test_a_newer_version_takes_the_place_of_the_older_one_and_of_its_repairs() -> None:
    made = caster()
    made.cast(ACCEL, 1, 1)
    made.due(0.0)
    made.ask(A, ACCEL, 1, [0], 1.0)
    made.cast(GYRO, 1, 1)
    made.cast(ACCEL, 2, 1)
    assert made.due(1.0) == [Piece(GYRO, 1, 0), Piece(ACCEL, 2, 0)]


def test_repairs_go_before_casts() -> None:
    made = caster()
    made.cast(ACCEL, 1, 1)
    made.due(0.0)
    made.cast(GYRO, 1, 1)
    made.ask(A, ACCEL, 1, [0], 1.0)
    assert made.due(1.0) == [Piece(ACCEL, 1, 0, A), Piece(GYRO, 1, 0)]


def test_after_the_burst_chunks_go_at_the_pace_that_was_set() -> None:
    made = caster()
    made.cast(ACCEL, 1, BURST + 25)
    assert len(made.due(0.0)) == BURST
    due = made.next_due(0.0)
    assert due is not None
    assert 0.0 < due <= 0.1
    assert made.due(due - 0.01) == []
    sent = sum(len(made.due(0.05 * step)) for step in range(1, 21))
    assert sent == pytest.approx(10, abs=1), "ten chunks in the first second"
    assert len(made.due(1000.0)) == 15
