"""The values of a block as bytes: little-endian numbers in the order of the spec, nothing between them.

Names and shapes are known from the federation, so none travel and every length is known before a
byte is read. Whether decoded values are finite is asked with `check_finite`: that is a refusal of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from blossom_edge.core.blocks import BlockSpec, Tensors
from blossom_edge.core.errors import BlossomError, SpecMismatch


class Codec(Protocol):
    """One way to write a block's values."""

    @property
    def wire_id(self) -> str:
        """Its name on the wire."""
        ...

    def encode(self, tensors: Tensors, spec: BlockSpec) -> bytes:
        """Write float32 values; `encoded_size(spec)` bytes, equal for equal values.

        Raises:
            SpecMismatch: other names, shapes or types than the spec's.
            BlossomError: `local-value`: a value that is not finite, or too large for the codec.
        """
        ...

    def decode(self, data: bytes, spec: BlockSpec) -> Tensors:
        """Read values as read-only float32 arrays in the order of the spec, finite or not.

        Raises:
            SpecMismatch: not `encoded_size(spec)` bytes.
        """
        ...

    def encoded_size(self, spec: BlockSpec) -> int:
        """Bytes that `encode` gives and `decode` takes, exactly."""
        ...


@dataclass(frozen=True, slots=True)
class FloatCodec:
    """IEEE floats of one width. With float32 `decode` copies nothing: its arrays look into `data`."""

    wire_id: str
    dtype: np.dtype[np.floating[Any]]

    def encode(self, tensors: Tensors, spec: BlockSpec) -> bytes:
        """See `Codec`; float16 rounds to nearest and refuses what rounds beyond 65504."""
        _check_names(tensors, spec)
        pieces: list[memoryview] = []
        for tensor in spec.tensors:
            values = np.asarray(tensors[tensor.name])
            if values.dtype != np.float32 or values.shape != tensor.shape:
                raise SpecMismatch(
                    f"{spec.id}: {tensor.name} is {values.dtype} {values.shape}, the spec says float32 {tensor.shape}"
                )
            with np.errstate(over="ignore", invalid="ignore"):
                piece = np.ascontiguousarray(values, dtype=self.dtype)
            if not np.isfinite(piece).all():
                why = f"too large for {self.wire_id}" if np.isfinite(values).all() else "not finite"
                raise BlossomError("local-value", f"{spec.id}: {tensor.name} has values that are {why}")
            pieces.append(piece.data)
        return b"".join(pieces)

    def decode(self, data: bytes, spec: BlockSpec) -> Tensors:
        """See `Codec`."""
        if len(data) != self.encoded_size(spec):
            raise SpecMismatch(f"{spec.id}: {len(data)} bytes, {self.wire_id} has {self.encoded_size(spec)}")
        values = np.frombuffer(data, dtype=self.dtype)
        with np.errstate(invalid="ignore"):
            values = values.astype(np.float32, copy=False)
        values.flags.writeable = False
        result, at = {}, 0
        for tensor in spec.tensors:
            result[tensor.name] = values[at : at + tensor.size].reshape(tensor.shape)
            at += tensor.size
        return result

    def encoded_size(self, spec: BlockSpec) -> int:
        """See `Codec`."""
        return spec.num_values * self.dtype.itemsize


_CODECS: Mapping[str, Codec] = {
    "float32": FloatCodec("float32", np.dtype("<f4")),
    "float16": FloatCodec("float16", np.dtype("<f2")),
}

CODECS: tuple[str, ...] = tuple(_CODECS)
"""Wire ids of the codecs of this version."""


def make_codec(wire_id: str) -> Codec:
    """The codec of this name.

    Raises:
        SpecMismatch: there is none.
    """
    codec = _CODECS.get(wire_id)
    if codec is None:
        raise SpecMismatch(f"codec {wire_id[:40]!r} is not known here (known: {', '.join(CODECS)})")
    return codec


def check_finite(tensors: Tensors) -> bool:
    """Whether there is neither NaN nor infinity in any tensor."""
    return all(bool(np.isfinite(values).all()) for values in tensors.values())


def l2_norm(tensors: Tensors) -> float:
    """Euclidean norm over all values of a block, summed in float64 (NaN or infinity if one is among them)."""
    return math.sqrt(sum(float(np.square(values, dtype=np.float64).sum()) for values in tensors.values()))


def _check_names(tensors: Tensors, spec: BlockSpec) -> None:
    expected = {tensor.name for tensor in spec.tensors}
    if tensors.keys() != expected:
        differing = sorted(tensors.keys() ^ expected)[:5]
        raise SpecMismatch(f"{spec.id}: other tensors than the spec's: {', '.join(differing)}")
