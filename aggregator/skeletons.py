"""The skeletons that a gateway can give away: those of the package, and those that an operator added.

Devices that run blocks as ONNX ask for graphs they lack; a gateway sends what it has and says why it has not. It never
exports one (it has no torch) and takes none from a device: the only way in is `federations add-skeleton`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import blossom_edge
from blossom_edge.codec import messages
from blossom_edge.codec.skeleton_file import MAX_SKELETON_BYTES, check_skeleton, read_skeleton
from blossom_edge.console.logs import log_event
from blossom_edge.core.blocks import BlockId
from blossom_edge.core.errors import ConfigError, PolicyViolation, RemoteError
from blossom_edge.core.names import DeviceId
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import has_skeleton, skeleton_digest

log = logging.getLogger("aggregator")

FOLDER = "skeletons"
"""Of the data folder; the file of a skeleton is `DIGEST.onnx`."""
PACKAGE = Path(blossom_edge.__file__).parent / "inference" / "skeletons"
"""Those of the presets; found by path, since the gateway never loads what runs them."""
AGAIN_S = 1.0
"""The same skeleton goes to the same device at most once in so many seconds."""
AT_ONCE = 4
"""So many are sent before the gateway looks at its other messages."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A skeleton that is here: its bytes, already checked against its blocks, and where they are from."""

    digest: str
    data: bytes
    path: Path


class Skeletons:
    """All skeletons that one federation needs, looked up in the package and in `folder` each time one is wanted.

    So a file that is added while the gateway runs is found. `blocks` has the blocks that share each digest.
    """

    def __init__(self, federation: Federation, folder: Path, *, package: Path | None = None) -> None:
        self.federation = federation
        self.folder = folder
        self._package = PACKAGE if package is None else package
        self._blocks: dict[str, tuple[BlockId, ...]] = {}

    @property
    def blocks(self) -> Mapping[str, tuple[BlockId, ...]]:
        """Digest -> blocks of the federation that share it, in the order of the specification."""
        if not self._blocks:
            found: dict[str, tuple[BlockId, ...]] = {}
            for spec in self.federation.spec.blocks:
                if has_skeleton(spec.id):
                    digest = skeleton_digest(self.federation, spec.id)
                    found[digest] = (*found.get(digest, ()), spec.id)
            self._blocks = found
        return self._blocks

    def find(self, digest: str) -> Skeleton | None:
        """The skeleton of a digest of this federation, the package's before the folder's; None when there is none.

        Raises:
            KeyError: no block of the federation has this digest.
            RemoteError: `skeleton-invalid`: what is there is damaged.
        """
        spec, damage = self.federation.spec[self.blocks[digest][0]], None
        for folder in (self._package, self.folder):
            path = folder / f"{digest}.onnx"
            try:
                data = read_bounded(path)
                if data is not None:
                    check_skeleton(data, spec, digest=digest, name=str(path))
                    return Skeleton(digest, data, path)
            except RemoteError as error:
                damage = damage or error
        if damage is not None:
            raise damage
        return None

    def check(self, path: Path) -> Skeleton:
        """Hold a file against the federation: it has to be the skeleton of one of its blocks.

        Raises:
            ConfigError: `skeleton-invalid`, with what was found and expected; `nothing-found`.
        """
        try:
            data = read_bounded(path)
            if data is None:
                raise ConfigError("nothing-found", f"{path}: there is no such file")
            digest = read_skeleton(data, name=str(path)).digest
            if digest not in self.blocks:
                raise ConfigError("skeleton-invalid", self._foreign(path, digest), hint=self.how_to_export())
            check_skeleton(data, self.federation.spec[self.blocks[digest][0]], digest=digest, name=str(path))
        except RemoteError as error:
            raise ConfigError("skeleton-invalid", str(error), hint=self.how_to_export()) from None
        return Skeleton(digest, data, path)

    def add(self, skeletons: Iterable[Skeleton]) -> list[Path]:
        """Write checked skeletons into the folder; a running gateway finds them at once.

        Raises:
            StorageError: `disk-failed`.
        """
        make_folder(self.folder)
        written = []
        for skeleton in skeletons:
            path = self.folder / f"{skeleton.digest}.onnx"
            atomic_write(path, skeleton.data, name="skeleton")
            written.append(path)
        return written

    def how_to_export(self) -> str:
        """The next step where one is missing."""
        return (
            "on a machine with torch: blossom-edge export --federation FILE --skeletons out/, "
            "then on the gateway: blossom-aggregator federations add-skeleton out/*.onnx"
        )

    def names(self, digest: str) -> str:
        """The blocks of a digest, for people."""
        return ", ".join(map(str, self.blocks[digest]))

    def _foreign(self, path: Path, digest: str) -> str:
        expected = "; ".join(f"{names(blocks)} {known[:12]}" for known, blocks in self.blocks.items())
        return (
            f"{path}: skeleton of another block: found digest {digest[:12] or 'none'}, "
            f"{self.federation.name} expects {expected}"
        )


def names(blocks: Iterable[BlockId]) -> str:
    """Blocks for people."""
    return ", ".join(map(str, blocks))


def read_bounded(path: Path) -> bytes | None:
    """A file of at most the size of a skeleton; None when there is none.

    Raises:
        RemoteError: `skeleton-invalid`: it is larger, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SKELETON_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RemoteError(f"{path}: {error.strerror or error}", error_id="skeleton-invalid") from error
    if len(data) > MAX_SKELETON_BYTES:
        what = f"{path}: too large: more than {MAX_SKELETON_BYTES} bytes"
        raise RemoteError(what, error_id="skeleton-invalid")
    return data


class SkeletonDesk:
    """Answers `want` messages, a few per call of `send_due`, so that updates are never kept waiting.

    `send` hands a message to a device. What is queued is bounded by the devices and the digests of the federation.
    """

    def __init__(self, skeletons: Skeletons, *, send: Callable[[DeviceId, messages.WireMessage], None]) -> None:
        self._skeletons = skeletons
        self._send = send
        self._queue: dict[tuple[DeviceId, str], None] = {}
        self._sent_at: dict[tuple[DeviceId, str], float] = {}
        self._said: set[str] = set()

    def __len__(self) -> int:
        """How many answers wait."""
        return len(self._queue)

    def want(self, device: DeviceId, want: messages.WantSkeletons, now: float) -> None:
        """Queue the answers to a device; what it got less than a second ago is not sent again.

        Raises:
            PolicyViolation: some of the digests are no block's of this federation; the others are answered.
        """
        foreign = [digest for digest in want.skeletons if digest not in self._skeletons.blocks]
        for digest in want.skeletons:
            pair = (device, digest)
            if digest in self._skeletons.blocks and now - self._sent_at.get(pair, float("-inf")) >= AGAIN_S:
                self._queue[pair] = None
        if foreign:
            what = f"{device} wants {len(foreign)} skeletons of no block here, {foreign[0][:12]} among them"
            raise PolicyViolation(what)

    def send_due(self, now: float) -> None:
        """Send the next answers."""
        for pair in list(self._queue)[:AT_ONCE]:
            del self._queue[pair]
            self._sent_at[pair] = now
            self._send(pair[0], self._answer(pair[1]))

    def forget(self, device: DeviceId) -> None:
        """A device is no longer known."""
        for pair in [p for p in self._queue if p[0] == device]:
            del self._queue[pair]
        for pair in [p for p in self._sent_at if p[0] == device]:
            del self._sent_at[pair]

    def _answer(self, digest: str) -> messages.Skeleton:
        names, step = self._skeletons.names(digest), self._skeletons.how_to_export()
        try:
            found = self._skeletons.find(digest)
        except RemoteError as error:
            found, reason = None, f"the skeleton of {names} here is damaged: {error}; {step}"
        else:
            reason = f"no skeleton of {names} here; {step}"
        if found is None:
            if digest not in self._said:
                self._said.add(digest)
                log_event(log, "skeleton-missing", level=logging.WARNING, reason=reason)
            return messages.Skeleton(digest=digest, sha256=hashlib.sha256(b"").hexdigest(), reason=reason[:500])
        self._said.discard(digest)
        return messages.Skeleton(digest=digest, sha256=hashlib.sha256(found.data).hexdigest(), data=found.data)
