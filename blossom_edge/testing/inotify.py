"""Which files of a few folders were written: Linux' inotify, for fakes that answer to what is written to them."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_CLOSE_WRITE = 0x8
_EVENT = struct.Struct("iIII")


class FolderWatch:
    """Tells of every file that was opened for writing and closed, in order."""

    def __init__(self) -> None:
        """Raises OSError where the system grants no more of them."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        self._folders: dict[int, Path] = {}

    def add(self, folder: Path) -> None:
        """Watch a folder, until it is removed."""
        watch = self._libc.inotify_add_watch(self.descriptor, os.fsencode(folder), _CLOSE_WRITE)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch failed", str(folder))
        self._folders[watch] = folder

    def read(self) -> Iterator[tuple[Path, str]]:
        """(folder, name) of the files written since the last call; does not wait."""
        try:
            data = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return
        start = 0
        while start < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, start)
            start += _EVENT.size + length
            name = data[start - length : start].rstrip(b"\0").decode()
            if name and watch in self._folders:
                yield self._folders[watch], name

    def close(self) -> None:
        """Give it back."""
        os.close(self.descriptor)
