"""Files and folders that are written piece by piece over minutes, and get their name when they are whole.

For what can be fetched or unpacked again: a piece is not durable before `settle`. What a crash leaves has a name of its
own, so nobody takes it for the whole.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType

from blossom_edge.durable.failpoints import failpoint
from blossom_edge.durable.files import disk_failed, fsync_folder, write_all


class GrowingFile:
    """A file (0600 or `mode`) that goes on where it ended; `size` is how many bytes it has. Use with `with`.

    Raises:
        StorageError: `disk-failed`, here and in every method.
    """

    def __init__(self, path: Path, *, mode: int = 0o600, name: str = "growing") -> None:
        self.path = path
        self._name = name
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            self.size = os.fstat(self._fd).st_size
        except OSError as error:
            raise disk_failed(path, error, doing="open") from error

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end. Failpoint: `name:piece`."""
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise disk_failed(self.path, error) from error
        self.size += len(data)
        failpoint(f"{self._name}:piece")

    def restart(self) -> None:
        """Forget what is in it."""
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise disk_failed(self.path, error) from error
        self.size = 0

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def settle(path: Path, target: Path) -> None:
    """Give a file or folder that is whole its name, with all that is in it durable. `target` must not be there.

    Raises:
        StorageError: `disk-failed`.
    """
    try:
        os.sync()  # one call for the many files of a folder; fsync of each takes minutes on a memory card
        os.rename(path, target)
        fsync_folder(target.parent)
    except OSError as error:
        raise disk_failed(target, error, doing="rename to") from error


def discard(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing there is no fault.

    Raises:
        StorageError: `disk-failed`.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_failed(path, error, doing="remove") from error
