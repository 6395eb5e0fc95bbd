"""Skeletons: the ONNX graph of one block without its weights, read far enough to refuse a wrong one by name.

Only the protobuf fields that matter are looked at, by a bounded reader of our own: a device has no onnx package, and
onnxruntime is C++ that should not be the first to see bytes from outside. Never runs a graph, never opens a file.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (field numbers), https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from blossom_edge.core.blocks import BlockSpec
from blossom_edge.core.errors import RemoteError

MAX_SKELETON_BYTES = 96 * 1024
"""Largest skeleton: it travels in one message."""
MAX_PARTS = 4096
"""Largest number of nodes, of initializers, and of dimensions of a tensor in one file."""
MAX_DEPTH = 4
"""Graphs may hold graphs (the branches of an `If`) this deep."""
MAX_IR_VERSION, MAX_OPSET = 10, 20
"""The newest format that onnxruntime 1.20 reads for certain."""

DIGEST_KEY, TYPE_KEY, EXPORTER_KEY = "blossom_edge.digest", "blossom_edge.type", "blossom_edge.exporter"
SEAL_KEY = "blossom_edge.sha256"
"""The last entry of the file: SHA-256 of all bytes before it, so that a flipped bit never reaches onnxruntime."""
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

_FLOAT, _EXTERNAL = 1, 1
_TENSOR_VALUES = frozenset({4, 5, 6, 7, 9, 10, 11})
"""The fields of a tensor that hold its values."""


@dataclass(frozen=True, slots=True)
class SkeletonFacts:
    """What a skeleton says of itself.

    `parameters`: name -> shape of the initializers whose values are outside; `embedded`: names of those whose values
    are in the file, sorted; `sealed`: the bytes are those that were sealed.
    """

    digest: str
    type: str
    exporter: str
    ir_version: int
    opset: int
    parameters: dict[str, tuple[int, ...]]
    embedded: tuple[str, ...]
    sealed: bool


@dataclass(slots=True)
class _Found:
    """What the reader has seen so far."""

    metadata: dict[str, str] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)
    ir_version: int = 0
    graphs: int = 0
    parts: int = 0
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    embedded: list[str] = field(default_factory=list)
    used_domains: set[str] = field(default_factory=set)
    own_domains: set[str] = field(default_factory=set)
    sealed: bool = False


def read_skeleton(data: bytes, *, name: str = "skeleton") -> SkeletonFacts:
    """Read what a skeleton says of itself; `name` says in an error which one it is.

    Raises:
        RemoteError: `skeleton-invalid`: too large, cut short, changed since it was sealed, not ONNX, too new a format,
            operators or files of others.
    """
    if len(data) > MAX_SKELETON_BYTES:
        raise _invalid(name, f"too large: {len(data)} bytes, at most {MAX_SKELETON_BYTES} are taken")
    found = _Found()
    try:
        _model(memoryview(data), found)
    except _Broken as error:
        raise _invalid(name, str(error)) from None
    opset = found.opsets.get("", found.opsets.get("ai.onnx", 0))
    if found.graphs != 1 or not found.ir_version or not opset:
        what = f"{found.graphs} graphs, format {found.ir_version}, operators {opset}"
        raise _invalid(name, f"not ONNX, or cut short: found {what}; expected one graph with its versions")
    if SEAL_KEY in found.metadata and not found.sealed:
        raise _invalid(name, "damaged: its bytes are not those that were sealed")
    if found.ir_version > MAX_IR_VERSION or opset > MAX_OPSET:
        versions = f"IR {found.ir_version} and opset {opset}"
        raise _invalid(name, f"too new: found {versions}, expected at most IR {MAX_IR_VERSION} and opset {MAX_OPSET}")
    if foreign := found.used_domains - STANDARD_DOMAINS - found.own_domains:
        raise _invalid(name, f"operators of {', '.join(sorted(map(repr, foreign)))}; expected those of ONNX itself")
    return SkeletonFacts(
        digest=found.metadata.get(DIGEST_KEY, ""),
        type=found.metadata.get(TYPE_KEY, ""),
        exporter=found.metadata.get(EXPORTER_KEY, ""),
        ir_version=found.ir_version,
        opset=opset,
        parameters=found.parameters,
        embedded=tuple(sorted(found.embedded)),
        sealed=found.sealed,
    )


def check_skeleton(data: bytes, spec: BlockSpec, *, digest: str, name: str = "") -> SkeletonFacts:
    """Hold a skeleton against the block that it should run: its digest, and every parameter outside, with its shape.

    Raises:
        RemoteError: `skeleton-invalid`, as for `read_skeleton`; or not sealed, of another block, a parameter missing,
            too many, with another shape, or with its values in the file.
    """
    label = name or f"skeleton of {spec.id}"
    facts = read_skeleton(data, name=label)
    if not facts.sealed:
        raise _invalid(label, "not sealed at its end: cut short, or not written by blossom-edge export")
    if facts.digest != digest:
        raise _invalid(
            label, f"that of another block: found digest {facts.digest[:12] or 'none'}, expected {digest[:12]}"
        )
    wanted = {tensor.name: tensor.shape for tensor in spec.tensors}
    if inside := sorted(set(wanted) & set(facts.embedded)):
        raise _invalid(label, f"weights embedded: the values of {_some(inside)} stand in the file, expected outside it")
    if missing := sorted(set(wanted) - set(facts.parameters)):
        raise _invalid(label, f"a parameter missing: {_some(missing)} not among its initializers")
    if unknown := sorted(set(facts.parameters) - set(wanted)):
        raise _invalid(
            label, f"values from elsewhere: {_some(unknown)} is outside the file and no parameter of {spec.id}"
        )
    for tensor, shape in wanted.items():
        if facts.parameters[tensor] != shape:
            raise _invalid(label, f"wrong shape: {tensor} is {list(facts.parameters[tensor])}, expected {list(shape)}")
    return facts


def seal_skeleton(data: bytes) -> bytes:
    """The file with its seal added at the end: the last thing that an exporter does, after the metadata.

    Raises:
        ValueError: it is sealed already.
    """
    if SEAL_KEY.encode() in data:
        raise ValueError("a sealed skeleton")
    return data + _seal_entry(hashlib.sha256(data).hexdigest())


class _Broken(Exception):
    """Bytes that are no skeleton; the message says why."""


def _seal_entry(sha256: str) -> bytes:
    """A `metadata_props` entry as protobuf writes it; every length is below 128, one byte."""
    key, value = SEAL_KEY.encode(), sha256.encode()
    entry = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value
    return b"\x72" + bytes([len(entry)]) + entry


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, integer value (of a varint) and bytes (of the rest) of every field of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value, data[:0]
            continue
        if wire not in (1, 2, 5) or number == 0:
            raise _Broken(f"not ONNX: a field {number} of wire type {wire}")
        if wire == 2:
            size, at = _varint(data, at)
        else:
            size = 8 if wire == 1 else 4
        if size > len(data) - at:
            raise _Broken(f"truncated: a field of {size} bytes, {len(data) - at} are left")
        yield number, 0, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Broken("truncated: it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Broken("not ONNX: a number of more than ten bytes")


def _text(data: memoryview) -> str:
    try:
        return bytes(data[:4096]).decode("utf-8")
    except UnicodeDecodeError:
        raise _Broken("not ONNX: a name that is not UTF-8") from None


def _model(data: memoryview, found: _Found) -> None:
    at_seal = len(data) - len(_seal_entry("0" * 64))
    for number, value, content in _fields(data):
        if number == 1:
            found.ir_version = value
        elif number == 7:
            found.graphs += 1
            _graph(content, found, depth=0)
        elif number == 8:
            entry = {n: (v, c) for n, v, c in _fields(content)}
            found.opsets[_text(entry[1][1]) if 1 in entry else ""] = entry[2][0] if 2 in entry else 0
        elif number == 14:
            texts = {n: _text(c) for n, _, c in _fields(content)}
            key, text = texts.get(1, ""), texts.get(2, "")
            if key in found.metadata:
                raise _Broken(f"not ONNX: two entries {key[:80]!r}")
            found.metadata[key] = text
        elif number == 25:
            _function(content, found)
        elif number == 20:
            raise _Broken("training graphs in it; expected none")
    if at_seal > 0:
        before = data[:at_seal]
        found.sealed = bytes(data[at_seal:]) == _seal_entry(hashlib.sha256(before).hexdigest())


def _graph(data: memoryview, found: _Found, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _Broken(f"graphs more than {MAX_DEPTH} deep")
    for number, _, content in _fields(data):
        if number == 1:
            _node(content, found, depth=depth)
        elif number == 5:
            _initializer(content, found, depth=depth)
        elif number == 15:
            raise _Broken("sparse values in it; expected none")


def _function(data: memoryview, found: _Found) -> None:
    for number, _, content in _fields(data):
        if number == 7:
            _node(content, found, depth=1)
        elif number == 10:
            found.own_domains.add(_text(content))


def _node(data: memoryview, found: _Found, *, depth: int) -> None:
    _count(found)
    for number, _, content in _fields(data):
        if number == 7:
            found.used_domains.add(_text(content))
        elif number == 5:
            for inner, _, value in _fields(content):
                if inner in (5, 10):
                    _constant(value, found)
                elif inner in (6, 11):
                    _graph(value, found, depth=depth + 1)
                elif inner in (22, 23):
                    raise _Broken("sparse values in it; expected none")


def _initializer(data: memoryview, found: _Found, *, depth: int) -> None:
    name, shape, dtype, outside, inside = _tensor(data, found)
    if not outside:
        found.embedded.append(name)
        return
    if depth or name in found.parameters:
        raise _Broken(f"values from elsewhere: {name[:80]!r} in an inner graph, or twice")
    if dtype != _FLOAT:
        raise _Broken(f"wrong type: {name[:80]!r} is of ONNX type {dtype}, expected float32")
    if inside:
        raise _Broken(f"weights embedded: {name[:80]!r} has values both in the file and outside")
    found.parameters[name] = shape


def _constant(data: memoryview, found: _Found) -> None:
    name, _, _, outside, _ = _tensor(data, found)
    if outside:
        raise _Broken(f"values from elsewhere: the constant {name[:80]!r} stands in another file")


def _tensor(data: memoryview, found: _Found) -> tuple[str, tuple[int, ...], int, bool, bool]:
    """Name, shape, type, whether its values are outside the file, whether values are in it."""
    _count(found)
    name, shape, dtype, outside, inside = "", [], 0, False, False
    for number, value, content in _fields(data):
        if number == 1 and len(content):  # packed
            at = 0
            while at < len(content):
                value, at = _varint(content, at)
                shape.append(value)
        elif number == 1:
            shape.append(value)
        elif number == 2:
            dtype = value
        elif number == 8:
            name = _text(content)
        elif number == 14:
            outside = value == _EXTERNAL
        elif number == 13:
            outside = True
        elif number in _TENSOR_VALUES:
            inside = inside or bool(len(content))
    if len(shape) > 8:
        raise _Broken(f"{name[:80]!r} has {len(shape)} dimensions; expected at most 8")
    return name, tuple(shape), dtype, outside, inside


def _count(found: _Found) -> None:
    found.parts += 1
    if found.parts > MAX_PARTS:
        raise _Broken(f"more than {MAX_PARTS} nodes and tensors")


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _invalid(name: str, what: str) -> RemoteError:
    return RemoteError(
        f"{name}: {what}", error_id="skeleton-invalid", hint="export it again: blossom-edge export, then add-skeleton"
    )
