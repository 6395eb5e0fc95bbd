"""Frames: one message with its bounds, checksum and signature as bytes. Knows no topic and keeps no state.

A frame is an 18-byte prefix, a header of JSON, a signature if the kind is signed, and a body
(docs/wire-protocol.md has the table). What a signature covers besides header and body is the scope,
`federation/device` or `federation/`: a frame moved to another topic does not verify.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import ValidationError

from blossom_edge.codec.keys import SIGNATURE_BYTES, verify
from blossom_edge.codec.messages import BY_KIND, MAX_CHUNK_BYTES, WireMessage
from blossom_edge.codec.strict_json import parse_object
from blossom_edge.core.errors import BlossomError, FrameError, LinkError, RemoteError

MAGIC = b"BLSM"
PROTOCOL = 1
MAX_FRAME_BYTES = 128 * 1024
"""Largest payload that is looked at; the smallest limit of the brokers in use."""
MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = MAX_CHUNK_BYTES

_PREFIX = struct.Struct("<4sBBBBHII")
_SIGNED = 1
_CONTEXT = b"blossom-edge/1\0"


class Signer(Protocol):
    """What signs: a `SigningKey`."""

    def sign(self, data: bytes) -> bytes:
        """64 bytes of signature."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame. Nothing in it is to be believed before `check`, but for kinds that are not signed.

    `signed_part` is what the signature covers behind the scope: SHA-256 of the header, then of the body.
    """

    message: WireMessage
    signature: bytes = field(repr=False)
    signed_part: bytes = field(repr=False)

    def check(self, scope: str, key_hex: str) -> None:
        """Hold the signature against a public key.

        Raises:
            RemoteError: `signature`: not signed, or not by this key in this scope.
        """
        data = _to_sign(self.message.KIND, scope, self.signed_part)
        if not self.signature or not verify(key_hex, self.signature, data):
            raise RemoteError(f"{self.message.NAME}: not signed by the key known for {scope}", error_id="signature")


def encode(message: WireMessage, *, scope: str, sign: Signer | None = None) -> bytes:
    """Make the frame of a message. Kinds that are not signed take no notice of `sign`.

    Raises:
        LinkError: `too-large`: the message does not fit a frame.
        BlossomError: `local-value`: a number that is not finite, a text that is no Unicode, or data where none belongs.
        ValueError: a signed kind without a signer.
    """
    fields = _fields(message)
    header, body = (b"", fields) if message.IN_BODY else (fields, message.data)
    for name, part, limit in (("header", header, MAX_HEADER_BYTES), ("body", body, MAX_BODY_BYTES)):
        if len(part) > limit:
            raise LinkError("too-large", f"{message.NAME}: the {name} has {len(part)} bytes, at most {limit} fit")
    signature = b""
    if message.SIGNED:
        if sign is None:
            raise ValueError(f"{message.NAME} must be signed")
        signature = sign.sign(_to_sign(message.KIND, scope, _signed_part(header, body)))
    rest = header + signature + body
    flags = _SIGNED if message.SIGNED else 0
    return _PREFIX.pack(MAGIC, PROTOCOL, message.KIND, flags, 0, len(header), len(body), zlib.crc32(rest)) + rest


def decode(payload: bytes, *, allowed: Collection[type[WireMessage]]) -> Frame:
    """Read a frame of one of the `allowed` kinds, cheapest checks first. The signature is the caller's to check.

    Raises:
        FrameError: anything else than such a frame, an unsigned frame of a signed kind included.
    """
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameError(f"{len(payload)} bytes, a frame has at most {MAX_FRAME_BYTES}")
    if len(payload) < _PREFIX.size:
        raise FrameError(f"{len(payload)} bytes, a frame has at least {_PREFIX.size}")
    magic, protocol, kind, flags, reserved, header_len, body_len, crc = _PREFIX.unpack_from(payload)
    if magic != MAGIC:
        raise FrameError("not a frame of ours")
    if protocol != PROTOCOL:
        raise FrameError(f"protocol {protocol}, this side speaks {PROTOCOL}")
    cls = BY_KIND.get(kind)
    if cls is None or cls not in allowed:
        raise FrameError(f"kind {kind} does not belong on this topic")
    if reserved or flags != (_SIGNED if cls.SIGNED else 0):
        raise FrameError(
            f"{cls.NAME}: flags {flags} and {reserved}, " + ("not signed" if cls.SIGNED else "never signed")
        )
    body_at = _PREFIX.size + header_len + (SIGNATURE_BYTES if cls.SIGNED else 0)
    if header_len > MAX_HEADER_BYTES or body_len > MAX_BODY_BYTES or body_at + body_len != len(payload):
        raise FrameError(f"{cls.NAME}: header {header_len} and body {body_len} in a frame of {len(payload)} bytes")
    if (cls.IN_BODY and header_len) or (body_len and not cls.IN_BODY and not cls.HAS_DATA):
        raise FrameError(f"{cls.NAME}: header or body where there is none")
    if zlib.crc32(memoryview(payload)[_PREFIX.size :]) != crc:
        raise FrameError(f"{cls.NAME}: wrong checksum")
    header, body = bytes(payload[_PREFIX.size : _PREFIX.size + header_len]), bytes(payload[body_at:])
    message = _parse(cls, body if cls.IN_BODY else header)
    if cls.HAS_DATA:
        message = message.model_copy(update={"data": body})
    if not cls.SIGNED:
        return Frame(message, b"", b"")
    return Frame(message, bytes(payload[body_at - SIGNATURE_BYTES : body_at]), _signed_part(header, body))


def _fields(message: WireMessage) -> bytes:
    if message.data and not message.HAS_DATA:
        raise BlossomError("local-value", f"{message.NAME} carries no data")
    try:
        text = json.dumps(message.model_dump(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise BlossomError("local-value", f"{message.NAME} cannot be written as JSON: {error}") from error


def _parse(cls: type[WireMessage], fields: bytes) -> WireMessage:
    if "data" in parse_object(fields, cls.NAME):
        raise FrameError(f"{cls.NAME}: data among the fields")
    try:
        # from the text once more: only there do strict models take arrays for tuples
        return cls.model_validate_json(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"][:4])
        raise FrameError(f"{cls.NAME}: {where!r}: {first['msg'][:200]}") from None


def _signed_part(header: bytes, body: bytes) -> bytes:
    return hashlib.sha256(header).digest() + hashlib.sha256(body).digest()


def _to_sign(kind: int, scope: str, signed_part: bytes) -> bytes:
    return _CONTEXT + bytes([kind]) + scope.encode("utf-8") + b"\0" + signed_part
