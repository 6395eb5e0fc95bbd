"""Which block versions the device should have, and the pieces of them that have arrived. No I/O, no clock.

What is wanted is named by signed messages (welcome, plan, commit) with its hash; chunks are not signed and
count for nothing until their whole has a hash that is wanted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from blossom_edge.client.actions import Held
from blossom_edge.codec import messages
from blossom_edge.codec.chunks import Assembler
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import FrameError

SILENCE_S = 1.0
"""After this long without a chunk of a wanted block, the device asks for what is missing."""
JITTER_S = 0.5
LONGEST_SILENCE_S = 30.0


@dataclass(slots=True)
class _Incoming:
    version: int
    sha256: str
    chunks: Assembler


@dataclass(slots=True)
class _Want:
    version: int
    sha256: str
    ask_at: float
    patience_s: float


class Downloads:
    """Shared blocks on their way in. `expected_bytes` gives the exact size of a block as it is cast."""

    def __init__(self, *, expected_bytes: Callable[[BlockKey], int], seed: str) -> None:
        self.held: dict[BlockKey, Held] = {}
        self._wants: dict[BlockKey, _Want] = {}
        self._incoming: dict[BlockKey, _Incoming] = {}
        self._arrived: dict[BlockKey, Held] = {}
        self._expected_bytes = expected_bytes
        self._random = random.Random(seed)  # noqa: S311 (jitter, no secret)

    def want(self, key: BlockKey, version: int, sha256: str, *, now: float, soon: bool = False) -> Held | None:
        """A signed message names this version; returns it if its bytes were here already.

        `soon`: nothing is being cast, so it is asked for after the jitter alone.
        """
        have = self.held.get(key)
        if have is not None and (have.version, have.sha256) == (version, sha256):
            self._wants.pop(key, None)
            return None
        known = self._wants.get(key)
        if known is None or known.version != version or soon:
            wait = self._random.uniform(0, JITTER_S) + (0.0 if soon else SILENCE_S)
            self._wants[key] = _Want(version, sha256, now + wait, SILENCE_S)
        return self._settle(key)

    def chunk(self, chunk: messages.CastChunk, now: float) -> tuple[BlockKey, Held] | None:
        """Take a chunk; returns the block if it is complete now and is the one wanted.

        Raises:
            FrameError: a chunk that does not fit what it says of itself.
        """
        key = BlockKey.parse(f"{chunk.block}@{chunk.cohort}" if chunk.cohort else chunk.block)
        if chunk.num_bytes != self._expected_bytes(key):
            raise FrameError(f"{key}: {chunk.num_bytes} bytes are cast, the block has {self._expected_bytes(key)}")
        have, want = self.held.get(key), self._wants.get(key)
        if have is not None and chunk.version <= have.version and want is None:
            return None
        incoming = self._incoming.get(key)
        if incoming is None or (incoming.version, incoming.sha256) != (chunk.version, chunk.sha256):
            if want is not None and want.sha256 != chunk.sha256 and chunk.version <= want.version:
                return None
            incoming = _Incoming(chunk.version, chunk.sha256, Assembler(chunk.num_bytes, chunk.sha256))
            self._incoming[key] = incoming
        incoming.chunks.add(chunk.index, chunk.data)
        if want is not None:
            want.ask_at = max(want.ask_at, now + SILENCE_S)
        if not incoming.chunks.complete:
            return None
        data = incoming.chunks.result()
        del self._incoming[key]
        self._arrived[key] = Held(chunk.version, chunk.sha256, data)
        settled = self._settle(key)
        return (key, settled) if settled is not None else None

    def missing(self) -> tuple[BlockKey, ...]:
        """Blocks that are wanted and not here."""
        return tuple(sorted(self._wants))

    def asks(self, now: float, epoch: int) -> list[messages.Ask]:
        """What to ask for now: everything wanted of which nothing came for a while."""
        found = []
        for key, want in sorted(self._wants.items()):
            if now < want.ask_at:
                continue
            want.patience_s = min(2 * want.patience_s, LONGEST_SILENCE_S)
            want.ask_at = now + want.patience_s + self._random.uniform(0, JITTER_S)
            incoming = self._incoming.get(key)
            partly = incoming is not None and incoming.version == want.version
            found.append(
                messages.Ask(
                    epoch=epoch,
                    block=str(key.block),
                    cohort=key.cohort,
                    version=want.version,
                    missing=incoming.chunks.bitmap() if partly and incoming is not None else "",
                )
            )
        return found

    def next_due(self) -> float | None:
        """When `asks` has something to give."""
        return min((want.ask_at for want in self._wants.values()), default=None)

    def forget(self) -> None:
        """Drop all versions: the federation began a new epoch."""
        self.held.clear()
        self._wants.clear()
        self._incoming.clear()
        self._arrived.clear()

    def _settle(self, key: BlockKey) -> Held | None:
        want, arrived = self._wants.get(key), self._arrived.get(key)
        if want is None or arrived is None or (arrived.version, arrived.sha256) != (want.version, want.sha256):
            return None
        self.held[key] = self._arrived.pop(key)
        del self._wants[key]
        return self.held[key]
