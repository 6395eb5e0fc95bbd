"""Named arrays with a few words about them in one file, in the safetensors format. Never on the wire.

The format: a length (u64, little-endian), a JSON header with type, shape and place of every array,
then the arrays. Source: https://github.com/huggingface/safetensors, README, "Format". A file from
outside is read with the same bounds as a message.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.codec.strict_json import parse_object
from blossom_edge.core.errors import BlossomError, FrameError

MAX_HEADER_BYTES = 256 * 1024
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}
_NAMES: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"


def write(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Make the file's bytes: wide types first, then by name, so equal content gives equal bytes.

    Raises:
        BlossomError: `local-value`: a type or a name that cannot be written, or too many arrays for `read`.
    """
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    pieces: list[memoryview] = []
    at = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        array = tensors[name]
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAMES or name == _METADATA or array.ndim > MAX_DIMENSIONS:
            raise BlossomError("local-value", f"{name}: {array.dtype} {array.shape} cannot stand in a file")
        header[name] = {"dtype": _NAMES[dtype], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        pieces.append(np.ascontiguousarray(array, dtype=dtype).data)
        at += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES or len(pieces) > MAX_TENSORS:
        raise BlossomError(
            "local-value",
            f"{len(pieces)} arrays and a header of {len(text)} bytes, at most {MAX_TENSORS} and {MAX_HEADER_BYTES} fit",
        )
    return b"".join([len(text).to_bytes(8, "little"), text, *pieces])


def read(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read arrays and metadata. The arrays look into `data` and cannot be written to.

    Raises:
        FrameError: not such a file, or beyond the bounds.
    """
    header_len = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_len > MAX_HEADER_BYTES or 8 + header_len > len(data):
        raise FrameError(f"no safetensors file: a header of {header_len} bytes in {len(data)}")
    header = parse_object(data[8 : 8 + header_len], "safetensors header")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FrameError("safetensors metadata: not texts by name")
    if len(header) > MAX_TENSORS:
        raise FrameError(f"{len(header)} arrays, a file has at most {MAX_TENSORS}")
    content = memoryview(data)[8 + header_len :]
    places: list[tuple[int, int]] = []
    tensors = {name: _view(name, entry, content, places) for name, entry in header.items()}
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise FrameError("safetensors file: arrays overlap or leave holes")
        end = stop
    if end != len(content):
        raise FrameError(f"safetensors file: {len(content) - end} bytes belong to no array")
    return tensors, metadata


def _view(name: str, entry: Any, content: memoryview, places: list[tuple[int, int]]) -> NDArray[Any]:
    label = repr(name[:80])
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FrameError(f"array {label}: not described by dtype, shape and data_offsets")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    shape, offsets = _counts(entry["shape"], MAX_DIMENSIONS), _counts(entry["data_offsets"], 2)
    if dtype is None or shape is None or offsets is None or len(offsets) != 2:
        raise FrameError(f"array {label}: a type, shape or place that cannot be read")
    start, stop = offsets
    if not start <= stop <= len(content) or stop - start != math.prod(shape) * dtype.itemsize:
        raise FrameError(f"array {label}: its place does not fit its shape")
    places.append((start, stop))
    values = np.frombuffer(content[start:stop], dtype=dtype) if stop > start else np.empty(0, dtype=dtype)
    values.flags.writeable = False
    return values.reshape(shape)


def _counts(value: Any, limit: int) -> tuple[int, ...] | None:
    """A list of up to `limit` integers from 0 to 2**31 - 1 (their product fits an array's length), else None."""
    if not isinstance(value, list) or len(value) > limit:
        return None
    good = all(type(item) is int and 0 <= item < 2**31 for item in value)
    return tuple(value) if good and math.prod(item or 1 for item in value) < 2**62 else None
