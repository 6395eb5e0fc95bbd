"""Where a machine keeps its skeletons: those of the presets came with the package, others lie in folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from blossom_edge.codec.skeleton_file import MAX_SKELETON_BYTES, read_skeleton
from blossom_edge.core.errors import RemoteError
from blossom_edge.durable import atomic_write, make_folder

PACKAGED = Path(__file__).parent / "skeletons"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class SkeletonSet:
    """Skeletons by digest: the package's own first, then `<digest>.onnx` in each folder. Reads at each call.

    What lies there is held against its block when a session is made of it (`check_skeleton`), not here.
    """

    def __init__(self, *folders: Path, packaged: Path = PACKAGED) -> None:
        self._places = (packaged, *folders)

    def get(self, digest: str) -> bytes | None:
        """The skeleton with this digest, or None; a file that is not whole counts as not there: it is fetched again."""
        if not _DIGEST.match(digest):
            return None
        for place in self._places:
            try:
                with (place / f"{digest}.onnx").open("rb") as file:
                    data = file.read(MAX_SKELETON_BYTES + 1)
            except OSError:
                continue
            if _is_whole(data, digest):
                return data
        return None

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of `digests` that are nowhere here, each once, sorted."""
        return sorted({digest for digest in digests if self.get(digest) is None})

    def add(self, digest: str, data: bytes) -> None:
        """Keep a skeleton in the last folder, which is made if it is missing.

        Raises:
            RemoteError: `skeleton-invalid`: not a whole skeleton, or one of another digest.
            StorageError: `disk-failed`.
            ValueError: this set has no folder of its own.
        """
        if len(self._places) < 2:
            raise ValueError("a set of packaged skeletons only")
        facts = read_skeleton(data, name=f"skeleton {digest[:12]}")
        if facts.digest != digest or not _DIGEST.match(digest) or not facts.sealed:
            found = f"{facts.digest[:12] or 'none'}{'' if facts.sealed else ', not sealed'}"
            raise RemoteError(
                f"skeleton {digest[:12]}: found digest {found}, expected it sealed and {digest[:12]}",
                error_id="skeleton-invalid",
                hint="export it again: blossom-edge export, then add-skeleton",
            )
        make_folder(self._places[-1])
        atomic_write(self._places[-1] / f"{digest}.onnx", data, name="skeleton")


def _is_whole(data: bytes, digest: str) -> bool:
    try:
        facts = read_skeleton(data)
    except RemoteError:
        return False
    return facts.sealed and facts.digest == digest
