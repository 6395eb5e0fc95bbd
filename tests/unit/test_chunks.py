"""Chunks: any order, any loss, never more memory than has arrived."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blossom_edge.codec.chunks import (
    MAX_DATA,
    Assembler,
    chunk_span,
    make_bitmap,
    num_chunks,
    parse_bitmap,
    split,
)
from blossom_edge.codec.messages import MAX_CHUNKS, MAX_TRANSFER_BYTES
from blossom_edge.core.errors import FrameError

DATA = b"abcdefghij"
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(("num_bytes", "chunks"), [(1, 1), (MAX_DATA, 1), (MAX_DATA + 1, 2), (603_904, 7), (0, 0)])
def test_a_started_chunk_counts(num_bytes, chunks):
    assert num_chunks(num_bytes) == chunks


def test_the_last_chunk_has_the_rest():
    assert split(DATA, 4) == [b"abcd", b"efgh", b"ij"]
    assert [DATA[chunk_span(i, 4)] for i in range(3)] == split(DATA, 4)
    assert split(b"", 4) == []


@given(st.binary(min_size=1, max_size=200), st.integers(1, 50), st.randoms(use_true_random=False))
def test_chunks_in_any_order_and_twice_give_the_whole(data, size, random):
    pieces = list(enumerate(split(data, size))) * 2
    random.shuffle(pieces)
    assembler = Assembler(len(data), hashlib.sha256(data).hexdigest(), size=size)
    new = [assembler.add(index, piece) for index, piece in pieces]
    assert sum(new) == assembler.count
    assert assembler.complete
    assert assembler.result() == data


def test_what_is_missing_is_said_as_list_and_as_bitmap():
    assembler = Assembler(10, SHA, size=1)
    assert assembler.missing == list(range(10))
    assert assembler.bitmap() == "ff03"
    for index in (0, 2, 3, 4, 5, 6, 7, 8):
        assembler.add(index, DATA[index : index + 1])
    assert assembler.missing == [1, 9]
    assert assembler.bitmap() == "0202"  # bit 1 of byte 0, bit 1 of byte 1
    assert not assembler.complete


def test_an_unfinished_whole_is_not_given_out():
    assembler = Assembler(10, SHA, size=4)
    assembler.add(0, b"abcd")
    with pytest.raises(FrameError, match="2 of 3 chunks are missing"):
        assembler.result()


@pytest.mark.parametrize(
    ("index", "data"), [(-1, b"abcd"), (3, b"ij"), (0, b"abc"), (0, b"abcde"), (2, b"ijkl"), (2, b"i"), (1, b"")]
)
def test_a_chunk_that_cannot_belong_is_refused(index, data):
    assembler = Assembler(10, SHA, size=4)
    with pytest.raises(FrameError):
        assembler.add(index, data)
    assert len(assembler.missing) == 3


def test_a_whole_with_another_hash_is_refused_and_all_of_it_is_missing_again():
    assembler = Assembler(10, SHA, size=4)
    for index, piece in enumerate([b"abcd", b"EFGH", b"ij"]):
        assembler.add(index, piece)
    with pytest.raises(FrameError, match="hash"):
        assembler.result()
    assert assembler.missing == [0, 1, 2]
    for index, piece in enumerate(split(DATA, 4)):
        assert assembler.add(index, piece)
    assert assembler.result() == DATA


def test_the_first_copy_of_a_chunk_stays():
    assembler = Assembler(10, SHA, size=10)
    assert assembler.add(0, DATA)
    assert not assembler.add(0, b"0123456789")
    assert assembler.result() == DATA


@pytest.mark.parametrize("num_bytes", [0, -1, MAX_TRANSFER_BYTES + 1])
def test_a_transfer_of_an_impossible_size_is_refused(num_bytes):
    with pytest.raises(FrameError):
        Assembler(num_bytes, SHA)


def test_the_largest_transfer_takes_no_memory_before_it_arrives(monkeypatch):
    import tracemalloc

    tracemalloc.start()
    try:
        Assembler(MAX_TRANSFER_BYTES, SHA)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(st.integers(1, 100).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_a_bitmap_comes_back(case):
    count, indices = case
    assert parse_bitmap(make_bitmap(indices, count), count) == sorted(indices)


def test_an_empty_bitmap_means_all_and_a_bitmap_of_zeros_none():
    assert parse_bitmap("", 3) == [0, 1, 2]
    assert parse_bitmap("00", 3) == []
    assert make_bitmap([], 9) == "0000"


@pytest.mark.parametrize("text", ["8", "08", "0000", "zz", "0g", " 1", "1 "])
def test_a_bitmap_of_other_chunks_is_refused(text):
    with pytest.raises(FrameError):
        parse_bitmap(text, 3)


def test_a_bitmap_of_our_own_making_names_only_chunks_that_exist():
    with pytest.raises(ValueError, match="chunk 3 of 3"):
        make_bitmap([3], 3)


@given(st.text(max_size=30), st.integers(1, MAX_CHUNKS))
def test_random_text_is_a_bitmap_or_a_frame_error(text, count):
    try:
        indices = parse_bitmap(text, count)
    except FrameError:
        return
    assert all(0 <= index < count for index in indices)
