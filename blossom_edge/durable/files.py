"""Whole files that are old or new and never half: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from blossom_edge.core.errors import StorageError
from blossom_edge.durable.failpoints import failpoint

_CANNOT_LINK = frozenset({errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What a file system says that has no second names (FAT, some network mounts) or no more of them."""


def atomic_write(path: Path, data: bytes, *, name: str = "file", mode: int = 0o600) -> None:
    """Put `data` at `path` so that after any crash the file is the old one or the new one.

    When it returns, content and name survive a power cut. A crash may leave `.NAME.XXXXXXXX.tmp` beside the
    file (see `sweep_temporary`). `mode` is narrowed by the umask.
    Failpoints: `name:half`, `name:prerename`, `name:done`.

    Raises:
        StorageError: `disk-failed`; the file is the old one, unless only the last fsync of the folder failed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    view, half = memoryview(data), len(data) // 2
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            write_all(fd, view[:half])
            failpoint(f"{name}:half")
            write_all(fd, view[half:])
            os.fsync(fd)
        finally:
            os.close(fd)
        failpoint(f"{name}:prerename")
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise disk_failed(path, error) from error
    failpoint(f"{name}:done")


def link_or_copy(source: Path, target: Path, *, name: str = "file") -> bool:
    """Give the file at `source` the second name `target`, so that it stays when `source` is replaced or removed.

    True if both names are one file (nothing was copied), False where the file system has no second names: then the
    bytes are copied with `atomic_write`. A `target` that exists is replaced in one step. Both names must never be
    written in place. Failpoints: `name:prerename`, `name:done`, and those of `atomic_write`.

    Raises:
        StorageError: `disk-failed`, also when there is no `source`.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise disk_failed(target, error, doing=f"link {source} to") from error
        try:
            data = source.read_bytes()
        except OSError as unread:
            raise disk_failed(source, unread, doing="read") from unread
        atomic_write(target, data, name=name)
        return False
    try:
        failpoint(f"{name}:prerename")
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # a rename between two names of one file does nothing, says POSIX
        fsync_folder(target.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise disk_failed(target, error) from error
    failpoint(f"{name}:done")
    return True


def sweep_temporary(folder: Path) -> int:
    """Remove what killed writers left in `folder`; returns how many files. Only for who holds the folder's lock.

    Raises:
        StorageError: `disk-failed`.
    """
    try:
        left = list(folder.glob(".*.tmp"))
        for path in left:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_failed(folder, error) from error
    return len(left)


def make_folder(path: Path) -> None:
    """Make `path` and its missing parents, for this user only (0700), and make their names durable.

    A folder that exists is left as it is.

    Raises:
        StorageError: `disk-failed`: no right to do so, or a file stands in the way.
    """
    missing: list[Path] = []
    folder = path.absolute()
    try:
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(mode=0o700, exist_ok=True)
            fsync_folder(new.parent)
    except OSError as error:
        raise disk_failed(path, error, doing="make the folder") from error


def open_child_log(path: Path) -> BinaryIO:
    """Open `path` (0600, emptied) as the standard output of a child process. The one write that is not durable.

    Raises:
        StorageError: `disk-failed`.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_failed(path, error) from error
    return os.fdopen(fd, "wb")


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable.

    Raises:
        OSError: as the system says.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: memoryview | bytes) -> None:
    """Write every byte: `os.write` may take fewer than it was given.

    Raises:
        OSError: as the system says; some bytes may be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def disk_failed(path: Path, error: OSError, *, doing: str = "write") -> StorageError:
    """The `disk-failed` error for what the system said about `path`."""
    return StorageError(
        "disk-failed",
        f"cannot {doing} {path}: {error.strerror or error}",
        hint="look at free space and rights of the disk, then start again",
    )
