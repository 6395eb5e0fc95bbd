"""One process per folder: an flock that dies with the process. Never left behind, never to be removed by hand."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from blossom_edge.core.errors import StorageError
from blossom_edge.durable.files import disk_failed, make_folder, write_all

_MAX_NOTE_BYTES = 200


class FolderLock:
    """Holds `folder/lock` until released, or until the process ends however it ends. A context manager."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.folder = folder
        self._fd: int | None = fd

    @classmethod
    def acquire(cls, folder: Path, *, what: str, option: str = "--data-dir") -> FolderLock:
        """Take the lock of `folder`, which is made if it is missing; never waits.

        `what` says who takes it (`gateway`, `device pi-7`); it is what the next one is told, with the process id and
        the `option` that names another folder.

        Raises:
            StorageError: `folder-in-use` with who holds it, or `disk-failed`.
        """
        make_folder(folder)
        path = folder / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_failed(path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            write_all(fd, f"{os.getpid()} {what}\n".encode())
        except BlockingIOError as error:
            pid, _, holder = os.pread(fd, _MAX_NOTE_BYTES, 0).decode(errors="replace").strip().partition(" ")
            os.close(fd)
            raise StorageError(
                "folder-in-use",
                f"{folder} is in use by {holder or 'another process'} (process {pid or 'unknown'})",
                hint=f"stop that process, or give another folder with {option}",
            ) from error
        except OSError as error:
            os.close(fd)
            raise disk_failed(path, error) from error
        return cls(folder, fd)

    def release(self) -> None:
        """Give the folder free; a second time does nothing. The file stays: removing it would race with the next."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
