"""A file of records that only grows: length, crc32, record; durable after every append.

Layout, per record: u32 little-endian length of the record, u32 little-endian crc32 over those four length bytes and
the record, the record. A crash can only damage the end of the file: that is cut when the log is opened. Damage with
valid records behind it is no crash, and opening refuses. A cut at a record's border cannot be seen here; who needs
that keeps the number of records elsewhere (receipts do).
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

from blossom_edge.core.errors import StorageError
from blossom_edge.durable.failpoints import failpoint
from blossom_edge.durable.files import disk_failed, fsync_folder, write_all

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""No record is longer; a length above it is damage."""

_LENGTH = struct.Struct("<I")
_HEADER = struct.Struct("<II")


class AppendLog:
    """An append-only file of records. One process at a time: hold the folder's lock.

    `records` are those found when it was opened, in order; they are the caller's, and appending does not extend them.
    `cut_bytes` is the length of the damaged tail that was cut then.
    """

    def __init__(self, path: Path, fd: int, *, records: list[bytes], cut_bytes: int, name: str) -> None:
        self.path = path
        self.records = records
        self.cut_bytes = cut_bytes
        self._fd = fd
        self._name = name
        self._is_open = True
        self._has_failed = False

    @classmethod
    def open(cls, path: Path, *, name: str = "log") -> AppendLog:
        """Open or make the log at `path` (0600), read its records and cut a damaged tail.

        Raises:
            StorageError: `ledger-damaged`, the file stays as it is; or `disk-failed`.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_failed(path, error, doing="open") from error
        try:
            data = path.read_bytes()
            records, end = _read(data)
            if end < len(data):
                _check_tail(path, data, end, len(records))
                os.ftruncate(fd, end)
            # What a killed process left may so far be in the page cache only, the file's name too.
            os.fsync(fd)
            fsync_folder(path.parent)
        except OSError as error:
            os.close(fd)
            raise disk_failed(path, error, doing="open") from error
        except StorageError:
            os.close(fd)
            raise
        return cls(path, fd, records=records, cut_bytes=len(data) - end, name=name)

    def append(self, record: bytes) -> None:
        """Add `record`; when it returns, the record survives a power cut.

        After a failure the state of the file is unknown (a second fsync may report success for lost pages), so the
        log takes no more until it is opened anew. Failpoints: `name:torn`, `name:presync`, `name:done`.

        Raises:
            StorageError: `disk-failed`, now or in an earlier append.
            ValueError: the log is closed, or the record is longer than `MAX_RECORD_BYTES`.
        """
        if not self._is_open:
            raise ValueError(f"{self.path} is closed")
        if len(record) > MAX_RECORD_BYTES:
            raise ValueError(f"a record has {len(record)} bytes, at most {MAX_RECORD_BYTES} are possible")
        if self._has_failed:
            raise StorageError(
                "disk-failed",
                f"{self.path} takes no more records since a write failed",
                hint="start again when the disk is in order",
            )
        frame = memoryview(_frame(record))
        half = len(frame) // 2
        try:
            write_all(self._fd, frame[:half])
            failpoint(f"{self._name}:torn")
            write_all(self._fd, frame[half:])
            failpoint(f"{self._name}:presync")
            os.fdatasync(self._fd)
        except OSError as error:
            self._has_failed = True
            raise disk_failed(self.path, error) from error
        failpoint(f"{self._name}:done")

    def close(self) -> None:
        """Close the file; a second time does nothing. Everything appended is durable already."""
        if self._is_open:
            self._is_open = False
            with suppress(OSError):
                os.close(self._fd)


def _frame(record: bytes) -> bytes:
    length = _LENGTH.pack(len(record))
    return length + _LENGTH.pack(zlib.crc32(record, zlib.crc32(length))) + record


def _record_at(data: bytes, offset: int) -> bytes | None:
    """The valid record whose header starts at `offset`, if there is one."""
    start = offset + _HEADER.size
    if start > len(data):
        return None
    length, crc = _HEADER.unpack_from(data, offset)
    if length > MAX_RECORD_BYTES or start + length > len(data):
        return None
    record = data[start : start + length]
    return record if zlib.crc32(record, zlib.crc32(data[offset : offset + _LENGTH.size])) == crc else None


def _read(data: bytes) -> tuple[list[bytes], int]:
    """All records from the start of `data`, and the offset behind the last valid one."""
    records: list[bytes] = []
    offset = 0
    while (record := _record_at(data, offset)) is not None:
        records.append(record)
        offset += _HEADER.size + len(record)
    return records, offset


def _check_tail(path: Path, data: bytes, end: int, num_records: int) -> None:
    """Refuse damage at `end` when a valid record stands anywhere behind it: a crash does not do that."""
    for offset in range(end + 1, len(data) - _HEADER.size + 1):
        if _record_at(data, offset) is not None:
            raise StorageError(
                "ledger-damaged",
                f"{path} is damaged at byte {end} (record {num_records + 1}), a valid record follows at byte {offset}",
                hint="it was left as it is: put back a good copy from a backup, or start with an empty data folder",
            )
