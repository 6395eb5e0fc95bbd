"""Updates on their way to the gateway: offered, sent in windows, until a receipt or a refusal. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from blossom_edge.client.updates import Outgoing
from blossom_edge.codec import messages
from blossom_edge.codec.chunks import chunk_span, num_chunks, parse_bitmap
from blossom_edge.core.blocks import BlockKey

WINDOW = 16
"""Chunks sent with an offer, before the gateway grants more."""
REOFFER_S = 5.0
"""An offer that is not answered for this long is made again; the pause doubles each time."""
BUSY_S = 2.0
LONGEST_PAUSE_S = 60.0


@dataclass(slots=True)
class _Entry:
    update: Outgoing
    offered: bool = False
    offer_at: float = 0.0
    pause_s: float = REOFFER_S


class Outbox:
    """The updates that are not settled yet. `next_sequence` numbers the device's signed messages."""

    def __init__(self, *, next_sequence: Callable[[], int]) -> None:
        self._entries: dict[BlockKey, _Entry] = {}
        self._next_sequence = next_sequence

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def updates(self) -> tuple[Outgoing, ...]:
        """What is not settled, in block order."""
        return tuple(entry.update for _, entry in sorted(self._entries.items()))

    def fill(self, updates: Iterable[Outgoing], *, sent_before: bool = False) -> None:
        """Replace what was there: a new round has begun.

        `sent_before`: an earlier run may have sent parts of them, so the gateway is asked which it needs.
        """
        self._entries = {update.key: _Entry(update, offered=sent_before) for update in updates}

    def reconnected(self) -> None:
        """The link was down: all is offered anew, and only what the gateway still needs is sent again."""
        for entry in self._entries.values():
            entry.offer_at, entry.pause_s = 0.0, REOFFER_S

    def due(self, now: float, epoch: int) -> list[messages.WireMessage]:
        """Offers that must be made (again) now. A first offer is followed at once by the first chunks."""
        found: list[messages.WireMessage] = []
        for _, entry in sorted(self._entries.items()):
            if now < entry.offer_at:
                continue
            update, first = entry.update, not entry.offered
            entry.offered, entry.offer_at = True, now + entry.pause_s
            entry.pause_s = min(2 * entry.pause_s, LONGEST_PAUSE_S)
            found.append(self._offer(update, epoch))
            if first:
                found += self._chunks(entry, range(min(WINDOW, num_chunks(len(update.data)))))
        return found

    def next_due(self) -> float | None:
        """When `due` has something to give."""
        return min((entry.offer_at for entry in self._entries.values()), default=None)

    def granted(self, grant: messages.Grant, now: float) -> list[messages.WireMessage]:
        """The gateway takes more chunks."""
        entry = self._find(grant.block, grant.cohort, grant.sha256)
        if entry is None:
            return []
        entry.offer_at = max(entry.offer_at, now + REOFFER_S)
        total = num_chunks(len(entry.update.data))
        return self._chunks(entry, range(grant.first, min(grant.first + grant.count, total)))

    def needed(self, need: messages.Need, now: float) -> list[messages.WireMessage]:
        """Some chunks did not arrive.

        Raises:
            FrameError: a bitmap that does not fit.
        """
        entry = self._find(need.block, need.cohort, need.sha256)
        if entry is None:
            return []
        entry.offer_at = max(entry.offer_at, now + REOFFER_S)
        return self._chunks(entry, parse_bitmap(need.missing, num_chunks(len(entry.update.data)))[:WINDOW])

    def settle(self, block: str, cohort: str, sha256: str) -> Outgoing | None:
        """A receipt or a final refusal came: the update, or None when it is not (any more) one of ours."""
        entry = self._find(block, cohort, sha256)
        if entry is None:
            return None
        del self._entries[entry.update.key]
        return entry.update

    def wait(self, block: str, cohort: str, sha256: str, now: float) -> None:
        """A refusal that is not final: offer again a little later, all chunks with it."""
        entry = self._find(block, cohort, sha256)
        if entry is not None:
            entry.offered, entry.offer_at = False, now + BUSY_S

    def _find(self, block: str, cohort: str, sha256: str) -> _Entry | None:
        entry = self._entries.get(BlockKey.parse(f"{block}@{cohort}" if cohort else block))
        return entry if entry is not None and entry.update.sha256 == sha256 else None

    def _offer(self, update: Outgoing, epoch: int) -> messages.Offer:
        return messages.Offer(
            epoch=epoch,
            round=update.round,
            block=str(update.key.block),
            cohort=update.key.cohort,
            base_version=update.base_version,
            num_samples=update.num_samples,
            num_steps=update.num_steps,
            codec=update.codec,
            sha256=update.sha256,
            num_bytes=len(update.data),
            num_chunks=num_chunks(len(update.data)),
            sequence=self._next_sequence(),
        )

    def _chunks(self, entry: _Entry, indices: Iterable[int]) -> list[messages.WireMessage]:
        update = entry.update
        chunks: list[messages.WireMessage] = []
        for index in indices:
            chunks.append(
                messages.UploadChunk(
                    block=str(update.key.block),
                    cohort=update.key.cohort,
                    round=update.round,
                    sha=update.sha256[:16],
                    index=index,
                    data=update.data[chunk_span(index)],
                )
            )
        return chunks
