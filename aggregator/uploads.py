"""Uploads under way: which chunks of which offers have arrived, and what to ask for next. No I/O, no clock.

A device sends the first `WINDOW` chunks with its offer; a `Grant` asks for more, a `Need` for what got
lost. Memory is bounded: an update's size is known from the spec before the first chunk, and the sum over
all uploads has a limit, beyond which an offer is refused as `busy`, to be made again later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aggregator.rounds import key_of
from blossom_edge.codec import messages
from blossom_edge.codec.chunks import Assembler, num_chunks
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.names import DeviceId

WINDOW = 16
"""Chunks that a device may send beyond those that arrived."""
SILENCE_S = 1.0
"""After this long without a chunk, the missing ones are asked for."""
GIVE_UP_S = 30.0
"""After this long without a chunk, the upload is dropped (a slow loris does not hold memory)."""
MAX_BYTES = 256 * 1024 * 1024


@dataclass(slots=True)
class Upload:
    """One offer and what has arrived of it."""

    offer: messages.Offer
    chunks: Assembler
    granted: int
    heard_at: float
    asked_at: float
    received: int = field(default=0)


class Uploads:
    """All uploads under way, by device and block."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._uploads: dict[tuple[DeviceId, BlockKey], Upload] = {}
        self._max_bytes = max_bytes

    def begin(self, device: DeviceId, offer: messages.Offer, now: float) -> messages.Need | None:
        """Take chunks of an offer. Offered again, it is answered with what is still missing.

        Raises:
            OverflowError: no room now; the offer should be refused as `busy`.
            ValueError: the number of chunks is not that of the number of bytes.
        """
        if offer.num_chunks != num_chunks(offer.num_bytes):
            raise ValueError(
                f"{offer.num_bytes} bytes are {num_chunks(offer.num_bytes)} chunks, not {offer.num_chunks}"
            )
        pair = (device, key_of(offer))
        known = self._uploads.get(pair)
        if known is not None and known.offer.sha256 == offer.sha256 and known.offer.round == offer.round:
            known.offer, known.heard_at, known.asked_at = offer, now, now
            return self._need(known) if known.received else None
        others = sum(u.offer.num_bytes for p, u in self._uploads.items() if p != pair)
        if others + offer.num_bytes > self._max_bytes:
            raise OverflowError(f"uploads under way hold {others} of {self._max_bytes} bytes")
        chunks = Assembler(offer.num_bytes, offer.sha256)
        self._uploads[pair] = Upload(offer, chunks, min(WINDOW, offer.num_chunks), now, now)
        return None

    def add(
        self, device: DeviceId, chunk: messages.UploadChunk, now: float
    ) -> tuple[Upload | None, messages.Grant | None]:
        """Keep a chunk: the upload, if it is complete now, and a grant, if more chunks should come.

        Chunks of no upload are ignored.

        Raises:
            FrameError: a chunk that does not belong where it says.
        """
        pair = (device, key_of(chunk))
        upload = self._uploads.get(pair)
        if upload is None or upload.offer.round != chunk.round or not upload.offer.sha256.startswith(chunk.sha):
            return None, None
        if upload.chunks.add(chunk.index, chunk.data):
            upload.received += 1
            upload.heard_at = now
        if upload.chunks.complete:
            return upload, None
        total = upload.offer.num_chunks
        if upload.granted < total and upload.granted - upload.received <= WINDOW // 2:
            count = min(WINDOW // 2, total - upload.granted)
            offer = upload.offer
            grant = messages.Grant(
                round=offer.round,
                block=offer.block,
                cohort=offer.cohort,
                sha256=offer.sha256,
                first=upload.granted,
                count=count,
            )
            upload.granted += count
            return None, grant
        return None, None

    def end(self, device: DeviceId, key: BlockKey) -> None:
        """Forget an upload."""
        self._uploads.pop((device, key), None)

    def forget(self, round_number: int) -> None:
        """Forget all uploads of this round and older ones."""
        self._uploads = {p: u for p, u in self._uploads.items() if u.offer.round > round_number}

    def tick(self, now: float) -> list[tuple[DeviceId, messages.Need]]:
        """Ask for what got lost; drop uploads that have gone quiet."""
        asks = []
        for (device, key), upload in list(self._uploads.items()):
            if now - upload.heard_at >= GIVE_UP_S:
                self.end(device, key)
            elif now - max(upload.heard_at, upload.asked_at) >= SILENCE_S:
                upload.asked_at = now
                asks.append((device, self._need(upload)))
        return asks

    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        times = [max(u.heard_at, u.asked_at) + SILENCE_S for u in self._uploads.values()]
        return min(times) if times else None

    def __len__(self) -> int:
        return len(self._uploads)

    def _need(self, upload: Upload) -> messages.Need:
        offer = upload.offer
        return messages.Need(
            round=offer.round,
            block=offer.block,
            cohort=offer.cohort,
            sha256=offer.sha256,
            missing=upload.chunks.bitmap(),
        )
