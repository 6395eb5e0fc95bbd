"""Files named by the SHA-256 of their content: the updates as they came, and the versions of blocks.

Knows nothing of rounds: who keeps what is the caller's rule (`drop`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterator
from pathlib import Path

from blossom_edge.core.errors import StorageError
from blossom_edge.durable import atomic_write, fsync_folder, make_folder, sweep_temporary

_NAME = re.compile(r"[0-9a-f]{64}")
_PIECE_BYTES = 1 << 20
_BACKUP = "put it back from a backup of the data folder"


class Spool:
    """One folder of such files. One process at a time: hold the lock of the data folder."""

    def __init__(self, folder: Path) -> None:
        """Open or make the folder and remove what a killed writer left.

        Raises:
            StorageError: `disk-failed`.
        """
        self.folder = folder
        make_folder(folder)
        sweep_temporary(folder)

    def put(self, data: bytes) -> str:
        """Keep `data`; when its SHA-256 is returned (hex), it survives a power cut.

        Content that is there already is not written again; a damaged copy is replaced.

        Raises:
            StorageError: `disk-failed`.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.folder / sha256
        try:
            if path.is_file() and path.read_bytes() == data:
                # Its writer may have been killed before the name was durable.
                fsync_folder(self.folder)
                return sha256
        except OSError as error:
            raise StorageError("disk-failed", f"cannot read {path}: {error.strerror or error}") from error
        atomic_write(path, data, name=self.folder.name)
        return sha256

    def get(self, sha256: str) -> bytes:
        """The content with this hash, checked.

        Raises:
            StorageError: `file-damaged`: it is not there, cannot be read, or has another hash.
            ValueError: not the hex of a SHA-256.
        """
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error
        _check_hash(path, hashlib.sha256(data).hexdigest(), len(data))
        return data

    def check(self, sha256: str) -> int:
        """Check the content with this hash without holding it in memory; returns its number of bytes.

        Raises:
            StorageError, ValueError: as `get`.
        """
        path, digest, num_bytes = self._path(sha256), hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    num_bytes += len(piece)
        except OSError as error:
            raise _unreadable(path, error) from error
        _check_hash(path, digest.hexdigest(), num_bytes)
        return num_bytes

    def read(self, sha256: str, *, start: int, num_bytes: int) -> bytes:
        """A stretch of the content with this hash; who reads it in stretches calls `check` before.

        Raises:
            StorageError: `file-damaged`: it is not there, cannot be read, or ends before.
            ValueError: not the hex of a SHA-256.
        """
        path = self._path(sha256)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                data = file.read(num_bytes)
        except OSError as error:
            raise _unreadable(path, error) from error
        if len(data) != num_bytes:
            found = f"{path} ends {num_bytes - len(data)} bytes before what was there a moment ago"
            raise StorageError("file-damaged", found, hint=_BACKUP)
        return data

    def has(self, sha256: str) -> bool:
        """Whether a file of this name is there (its content is checked by `get`).

        Raises:
            ValueError: not the hex of a SHA-256.
        """
        return self._path(sha256).is_file()

    def drop(self, keep: Container[str]) -> int:
        """Remove every file whose hash is not in `keep`; returns how many.

        Raises:
            StorageError: `disk-failed`.
        """
        num_removed = 0
        try:
            for path in self._files():
                if path.name not in keep:
                    path.unlink(missing_ok=True)
                    num_removed += 1
        except OSError as error:
            raise StorageError("disk-failed", f"cannot clear {self.folder}: {error.strerror or error}") from error
        return num_removed

    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(path.stat().st_size for path in self._files())

    def _files(self) -> Iterator[Path]:
        return (path for path in sorted(self.folder.iterdir()) if _NAME.fullmatch(path.name))

    def _path(self, sha256: str) -> Path:
        if not _NAME.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not the hex of a SHA-256")
        return self.folder / sha256


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError("file-damaged", f"cannot read {path}: {error.strerror or error}", hint=_BACKUP)


def _check_hash(path: Path, found: str, num_bytes: int) -> None:
    if found != path.name:
        what = f"{path} has {num_bytes} bytes with sha256 {found[:16]}..., not those that its name says"
        raise StorageError("file-damaged", what, hint=_BACKUP)
