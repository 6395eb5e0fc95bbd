"""Unpacks archives of others: no path leaves the folder, no link is made, no more bytes come out than allowed."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from blossom_edge.core.errors import ConfigError
from blossom_edge.durable import make_folder
from blossom_edge.durable.growing import GrowingFile, discard

PIECE = 1 << 20
MAX_MEMBERS = 300_000
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


class _Budget:
    """How many bytes and members may still come out, of an archive and those in it."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        self.bytes_left, self.members_left = limit, MAX_MEMBERS

    def take(self, num_bytes: int) -> None:
        self.bytes_left -= num_bytes
        if self.bytes_left < 0:
            raise _refused(self.path, f"more than {self.limit / 1e6:,.0f} MB in it", "a data set of that size")

    def take_member(self) -> None:
        self.members_left -= 1
        if self.members_left < 0:
            raise _refused(self.path, f"more than {MAX_MEMBERS} files in it", "fewer")


def unpack(archive: Path, folder: Path, *, limit: int, inner: Sequence[str] = ()) -> int:
    """Unpack a zip or tar file into `folder`, which is made; returns how many files were written.

    limit: bytes that may come out in all. inner: names (ends of paths) of archives in it that are unpacked where they
    lie and removed then.

    Raises:
        ConfigError: `data-invalid`: damaged, or something that is refused. What is in `folder` then is incomplete.
        StorageError: `disk-failed`.
    """
    budget = _Budget(archive, limit)
    make_folder(folder)
    written = _unpack_one(archive, folder, budget)
    for name in inner:
        for found in sorted(path for path in folder.rglob(PurePosixPath(name).name) if path.is_file()):
            written += _unpack_one(found, found.parent, budget) - 1
            discard(found)
    return written


def _unpack_one(archive: Path, folder: Path, budget: _Budget) -> int:
    try:
        if zipfile.is_zipfile(archive):
            return _unpack_zip(archive, folder, budget)
        return _unpack_tar(archive, folder, budget)
    except _DAMAGED as error:
        raise _refused(archive, f"what cannot be unpacked ({error})", "a zip or tar file") from error
    except OSError as error:  # gzip says BadGzipFile, an OSError; writing raises StorageError
        raise _refused(archive, f"what cannot be read ({error})", "a zip or tar file") from error


def _unpack_zip(archive: Path, folder: Path, budget: _Budget) -> int:
    written = 0
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            budget.take_member()
            kind = stat.S_IFMT(member.external_attr >> 16)
            target = _target(archive, folder, member.filename, is_plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            if member.is_dir():
                make_folder(target)
            else:
                with members.open(member) as source:
                    written += _write(source, target, budget)
    return written


def _unpack_tar(archive: Path, folder: Path, budget: _Budget) -> int:
    written = 0
    with tarfile.open(archive, "r:*") as members:
        for member in members:
            budget.take_member()
            target = _target(archive, folder, member.name, is_plain=member.isreg() or member.isdir())
            if member.isdir():
                make_folder(target)
                continue
            source = members.extractfile(member)
            if source is not None:
                with source:
                    written += _write(source, target, budget)
    return written


def _target(archive: Path, folder: Path, name: str, *, is_plain: bool) -> Path:
    """Where a member goes.

    Raises:
        ConfigError: `data-invalid`: a link, a device, or a path that would leave the folder.
    """
    parts = PurePosixPath(name).parts
    if not is_plain:
        raise _refused(archive, f"{name[:80]!r}, a link or device", "files and folders")
    if not name or name.startswith("/") or ".." in parts or any(c in name for c in "\\\0:") or len(name) > 1000:
        raise _refused(archive, f"the path {name[:80]!r}", "paths below the folder")
    return folder.joinpath(*parts)


def _write(source: IO[bytes], target: Path, budget: _Budget) -> int:
    make_folder(target.parent)
    with GrowingFile(target, mode=0o644, name="unpack") as file:
        if file.size:
            raise _refused(budget.path, f"{target.name} twice", "each file once")
        while piece := source.read(PIECE):
            budget.take(len(piece))
            file.append(piece)
    return 1


def _refused(archive: Path, found: str, expected: str) -> ConfigError:
    return ConfigError(
        "data-invalid", f"{archive.name}: found {found}, expected {expected}", hint="fetch it again, or from its page"
    )
