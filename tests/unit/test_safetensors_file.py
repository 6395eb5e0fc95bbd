"""Files in the safetensors format: readable by the package of that name, and safe against any bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blossom_edge.codec.safetensors_file import MAX_TENSORS, read, write
from blossom_edge.core.errors import BlossomError, FrameError, RemoteError

TENSORS = {
    "conv.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2], dtype=np.float16),
    "double": np.array(0.1, dtype=np.float64),
    "count": np.array([2**40], dtype=np.int64),
    "bits": np.array([1, 2, 3], dtype=np.uint8),
    "none": np.zeros((0, 4), dtype=np.float32),
}
METADATA = {"version": "3", "title": "Gerät"}


def by_hand(header: object, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def entry(shape=(1,), offsets=(0, 4), dtype="F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_arrays_and_metadata_come_back():
    tensors, metadata = read(write(TENSORS, METADATA))
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        assert tensors[name].dtype == expected.dtype
        assert tensors[name].shape == expected.shape
        assert not tensors[name].flags.writeable
        np.testing.assert_array_equal(tensors[name], expected)


def test_equal_content_gives_equal_bytes():
    turned = {name: TENSORS[name] for name in reversed(TENSORS)}
    assert write(turned, dict(reversed(METADATA.items()))) == write(TENSORS, METADATA)


def test_arrays_lie_at_multiples_of_their_width():
    data = write(TENSORS, METADATA)
    header_len = int.from_bytes(data[:8], "little")
    assert header_len % 8 == 0
    header = json.loads(data[8 : 8 + header_len])
    for name, array in TENSORS.items():
        assert header[name]["data_offsets"][0] % array.dtype.itemsize == 0


def test_the_package_reads_what_we_write(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    numpy_side = pytest.importorskip("safetensors.numpy")
    data = write(TENSORS, METADATA)
    for name, values in numpy_side.load(data).items():
        assert values.dtype == TENSORS[name].dtype
        np.testing.assert_array_equal(values, TENSORS[name])
    (tmp_path / "x.safetensors").write_bytes(data)
    with safetensors.safe_open(tmp_path / "x.safetensors", framework="numpy") as file:
        assert file.metadata() == METADATA
        assert set(file.keys()) == TENSORS.keys()


def test_we_read_what_the_package_writes():
    numpy_side = pytest.importorskip("safetensors.numpy")
    tensors, metadata = read(numpy_side.save(TENSORS, metadata=METADATA))
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(values, TENSORS[name])


def test_nothing_at_all_is_a_file_too():
    assert read(write({}, {})) == ({}, {})


def test_arrays_in_another_order_or_byte_order_are_written_by_rows_and_little_endian():
    values = np.arange(6, dtype=">f8").reshape(2, 3).T
    tensors, _ = read(write({"a": values}, {}))
    assert tensors["a"].dtype == np.dtype("<f8")
    np.testing.assert_array_equal(tensors["a"], values)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": np.zeros(1, np.int32)},
        {"a": np.zeros(1, np.complex64)},
        {"a": np.array([None])},
        {"__metadata__": np.zeros(1, np.float32)},
        {"a": np.zeros((1,) * 9, np.float32)},
        {str(n): np.zeros(1, np.uint8) for n in range(MAX_TENSORS + 1)},
    ],
    ids=["int32", "complex", "object", "metadata", "dimensions", "many"],
)
def test_what_could_not_be_read_again_is_not_written(tensors):
    with pytest.raises(BlossomError) as caught:
        write(tensors, {})
    assert caught.value.error_id == "local-value"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no safetensors file"),
        (b"\0" * 7, "no safetensors file"),
        (b"\xff" * 8 + b"{}", "no safetensors file"),
        (by_hand(b"[]"), "not an object"),
        (by_hand(b'{"a":1,"a":2}'), "a key stands twice"),
        (by_hand({"__metadata__": {"a": 1}}), "not texts by name"),
        (by_hand({"__metadata__": []}), "not texts by name"),
        (by_hand({"a": []}), "not described"),
        (by_hand({"a": {"dtype": "F32"}}), "not described"),
        (by_hand({"a": entry(dtype="BF16")}, bytes(4)), "cannot be read"),
        (by_hand({"a": {**entry(), "dtype": ["F32"]}}, bytes(4)), "cannot be read"),
        (by_hand({"a": entry(shape=(-1,))}, bytes(4)), "cannot be read"),
        (by_hand({"a": entry(shape=(True,))}, bytes(4)), "cannot be read"),
        (by_hand({"a": entry(shape=(1.0,))}, bytes(4)), "cannot be read"),
        (by_hand({"a": entry(shape=(1,) * 9)}, bytes(4)), "cannot be read"),
        (by_hand({"a": entry(shape=(2**31 - 1, 2**31 - 1, 2**31 - 1, 0), offsets=(0, 0))}), "cannot be read"),
        (by_hand({"a": entry(offsets=(0, 4, 4))}, bytes(4)), "cannot be read"),
        (by_hand({"a": entry(offsets=(4, 0))}, bytes(4)), "does not fit"),
        (by_hand({"a": entry(offsets=(0, 8))}, bytes(4)), "does not fit"),
        (by_hand({"a": entry(shape=(2,))}, bytes(8)), "does not fit"),
        (by_hand({"a": entry(), "b": entry()}, bytes(4)), "overlap"),
        (by_hand({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)), "holes"),
        (by_hand({"a": entry()}, bytes(5)), "1 bytes belong to no array"),
        (by_hand({str(n): 0 for n in range(MAX_TENSORS + 1)}), "at most 4096"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(data, said):
    with pytest.raises(FrameError, match=said):
        read(data)


def test_a_file_cut_anywhere_is_refused():
    data = write(TENSORS, METADATA)
    for length in range(len(data)):
        with pytest.raises(FrameError):
            read(data[:length])


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5))
def test_a_mutated_file_is_read_or_refused(changes):
    data = bytearray(write(TENSORS, METADATA))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        tensors, _ = read(bytes(data))
    except RemoteError:
        return
    assert sum(values.nbytes for values in tensors.values()) <= len(data)


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_remote_errors(data):
    try:
        read(data)
    except RemoteError:
        return
    assert data[8:9] == b"{"
