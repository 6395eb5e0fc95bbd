"""A device in a test's own hands: signed messages over any link, nothing done by itself. And skeletons without onnx."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blossom_edge.codec import messages
from blossom_edge.codec.envelope import decode, encode
from blossom_edge.codec.keys import SigningKey
from blossom_edge.codec.skeleton_file import seal_skeleton
from blossom_edge.core.blocks import BlockId
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.transport import topics
from blossom_edge.transport.link import Link, Message

_DOWN = {message.NAME: message for message in messages.DOWN}


@dataclass
class RawDevice:
    """Says what it is told to; its key follows from its id."""

    link: Link
    federation: Federation
    device: str
    modalities: tuple[str, ...] = ("accel",)
    role: str = "infer"
    profile: str = "watch"
    boot: int = 1
    connection: int = 1
    sequence: int = 0

    def __post_init__(self) -> None:
        self.key = SigningKey.from_bytes(hashlib.sha256(self.device.encode()).digest())
        self.link.subscribe(topics.down(self.federation.name, self.device, "+"))

    def say(self, message: messages.WireMessage, *, key: SigningKey | None = None) -> None:
        """Send a message, signed by its own key or another one."""
        payload = encode(message, scope=f"{self.federation.name}/{self.device}", sign=key or self.key)
        self.link.publish(topics.up(self.federation.name, self.device, message.NAME), payload)

    def hello(self, **more: Any) -> None:
        """Say hello, with the software of a release."""
        facts: dict[str, Any] = {
            "boot": self.boot,
            "connection": self.connection,
            "protocol_min": 1,
            "protocol_max": 1,
            "software": "blossom-edge 0.4.0",
            "key": self.key.public_hex,
            "profile": self.profile,
            "profile_digest": "0" * 64,
            "role": self.role,
            "modalities": self.modalities,
            "tasks": (),
            "codecs": ("float32",),
            "sequence": self.sequence,
        }
        self.say(messages.Hello(**{**facts, **more}))

    def bye(self) -> None:
        """Say goodbye."""
        self.say(messages.Bye(boot=self.boot, connection=self.connection, reason="stopped"))

    def state(self, phase: Any, round_number: int) -> None:
        """Say what it does."""
        self.sequence += 1
        self.say(messages.State(epoch=1, round=round_number, phase=phase, sequence=self.sequence))

    def want(self, *digests: str) -> None:
        """Ask for skeletons."""
        self.say(messages.WantSkeletons(epoch=1, skeletons=digests))

    def predict(self, task: str, *labels: str, **more: Any) -> None:
        """Say a prediction: a classification, unless `more` says otherwise."""
        self.sequence += 1
        facts: dict[str, Any] = {
            "epoch": 1,
            "task": task,
            "kind": "classification",
            "labels": labels,
            "confidence": 0.925,
            "latency_ms": 1.5,
            "age_s": 0.0,
            "present": self.modalities,
            "versions": (messages.UsedVersion(block="encoder/accel", version=3),),
            "sequence": self.sequence,
        }
        self.say(messages.PredictionReport(**{**facts, **more}))

    def heard(self, kind: type[messages.WireMessage] | None = None) -> list[messages.WireMessage]:
        """What came since the last call, of one kind or of all."""
        found = []
        while (event := self.link.receive(0.0)) is not None:
            parsed = topics.Topic.parse(event.topic) if isinstance(event, Message) else None
            if isinstance(event, Message) and parsed is not None and parsed.direction == "down":
                found.append(decode(event.payload, allowed=(_DOWN[parsed.kind],)).message)
        return [message for message in found if kind is None or isinstance(message, kind)]


def make_skeleton(
    federation: Federation, block: str, *, digest: str = "", inside: Mapping[str, bytes] | None = None
) -> bytes:
    """The file of a block's skeleton: its parameters, no operators. `inside`: values that stand in the file."""
    spec = federation.spec[BlockId.parse(block)]
    graph = b""
    for tensor in spec.tensors:
        body = b"".join(_number(1, size) for size in tensor.shape) + _number(2, 1) + _bytes(8, tensor.name.encode())
        values = (inside or {}).get(tensor.name)
        body += _number(14, 1) if values is None else _bytes(9, values)
        graph += _bytes(5, body)
    digest = digest or skeleton_digest(federation, spec.id)
    facts = {"blossom_edge.digest": digest, "blossom_edge.type": spec.type, "blossom_edge.exporter": "a test"}
    entries = b"".join(_bytes(14, _bytes(1, k.encode()) + _bytes(2, v.encode())) for k, v in facts.items())
    return seal_skeleton(_number(1, 10) + _bytes(8, _bytes(1, b"") + _number(2, 20)) + _bytes(7, graph) + entries)


def _varint(value: int) -> bytes:
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F)
    return bytes([*(part | 0x80 for part in parts[:-1]), parts[-1]])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
