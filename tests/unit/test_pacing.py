"""Uploads that go up no faster than the profile allows."""

from __future__ import annotations

from blossom_edge.client.pacing import UploadPace
from blossom_edge.codec.messages import UploadChunk

A, B = "a" * 64, "b" * 64


def chunk(sha: str, index: int, size: int = 1000) -> UploadChunk:
    return UploadChunk(block="encoder/accel", round=1, sha=sha[:16], index=index, data=bytes(size))


def sent(pace: UploadPace, times: list[float], unsettled: tuple[str, ...] = (A, B)) -> list[tuple[float, str, int]]:
    found = []
    for now in times:
        due = pace.due(now, unsettled)
        if due is not None:
            found.append((now, due.sha[0], due.index))
    return found


def test_a_chunk_goes_when_the_line_would_be_free_again() -> None:
    pace = UploadPace(8)  # 1000 bytes per second
    for index in range(3):
        pace.put(chunk(A, index))
    assert sent(pace, [0.0, 0.5, 1.0, 1.9, 2.0, 3.0]) == [(0.0, "a", 0), (1.0, "a", 1), (2.0, "a", 2)]
    assert pace.next_due() is None


def test_updates_take_turns_and_a_chunk_that_waits_is_not_taken_twice() -> None:
    pace = UploadPace(8)
    for again in range(2):
        for index in range(2):
            pace.put(chunk(A, index))
            pace.put(chunk(B, index))
        assert again in (0, 1)
    assert [(s, i) for _, s, i in sent(pace, [0.0, 1.0, 2.0, 3.0, 4.0])] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_chunks_of_a_settled_update_and_those_of_before_a_broken_link_are_dropped() -> None:
    pace = UploadPace(8)
    pace.put(chunk(A, 0))
    pace.put(chunk(B, 0))
    assert sent(pace, [0.0, 1.0], (B,)) == [(0.0, "b", 0)]
    pace.put(chunk(A, 1))
    pace.clear()
    assert (pace.next_due(), sent(pace, [9.0])) == (None, [])
