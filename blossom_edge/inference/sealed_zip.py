"""A zip file with a hash over all of it: equal content gives equal bytes, and no byte can change unseen.

Any unzip program opens it. The seal is the zip's comment: SHA-256 of every byte before the digest. It finds damage, not
forgery: who changes the content can seal it again, so a reader bounds and checks everything all the same. Knows nothing
of models; never writes to disk.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

from blossom_edge.core.errors import ConfigError

MAX_FILE_BYTES = 1 << 29
"""A larger file is refused before it is read; so much may its members have together, too."""
MAX_MEMBERS = 4096

COPY_AGAIN = "copy it again from where it was exported"
EXPORT_AGAIN = "export it again with `blossom-edge export --bundle`"

_SEAL = b"blossom-edge bundle, sha256 of all before: "
_COMMENT_BYTES = len(_SEAL) + 64
_END = struct.Struct("<4s4H2LH")
_LONGEST_ENTRY = 46 + 512
_ZIP_FAULTS = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError, struct.error,
)  # fmt: skip


def invalid(source: str, what: str, *, hint: str = COPY_AGAIN) -> ConfigError:
    """The error for a bundle that cannot be used. source: the file as the person named it; what: found, expected."""
    return ConfigError("bundle-invalid", f"{source}: {what}", hint=hint)


def write_sealed(members: Mapping[str, bytes]) -> bytes:
    """Pack members, sorted by name, all with the same date, and seal them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o600 << 16
            archive.writestr(info, members[name], compresslevel=6)
        archive.comment = _SEAL + b"0" * 64
    body = buffer.getvalue()[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


class SealedZip:
    """The members of a sealed zip file, read one by one within the bounds of the caller."""

    def __init__(self, data: bytes, source: str) -> None:
        """Look at the end and the list of members; decompresses nothing.

        Raises:
            ConfigError: `bundle-invalid`: too large, no zip file, cut off, not sealed, too many members, a name twice.
        """
        self._source, self._data = source, data
        _check_end(data, source)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _ZIP_FAULTS as error:
            raise invalid(source, f"the list of its members cannot be read: {_words(error)}") from None
        self._members = {info.filename: info for info in self._zip.infolist()}
        if len(self._members) != len(self._zip.infolist()):
            raise invalid(source, "a member stands in it twice", hint=EXPORT_AGAIN)

    @property
    def names(self) -> frozenset[str]:
        """The names of all members, as they stand in the file."""
        return frozenset(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member as the file states them.

        Raises:
            KeyError: there is no such member.
        """
        return self._members[name].file_size

    def read(self, name: str, *, limit: int) -> bytes:
        """The bytes of one member; at most `limit` are ever decompressed.

        Raises:
            ConfigError: `bundle-invalid`: it is missing, larger than `limit`, encrypted or damaged.
        """
        info = self._members.get(name)
        if info is None:
            raise invalid(self._source, f"member {name} is missing", hint=EXPORT_AGAIN)
        if info.file_size > limit:
            found = f"member {name}: found {info.file_size} bytes, expected at most {limit}"
            raise invalid(self._source, found, hint=EXPORT_AGAIN)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            found = f"member {name}: found a compression or an encryption that bundles do not have"
            raise invalid(self._source, f"{found}, expected deflate")
        try:
            with self._zip.open(info) as file:
                data = file.read(info.file_size + 1)
        except _ZIP_FAULTS as error:
            raise invalid(self._source, f"member {name} is damaged: {_words(error)}") from None
        if len(data) != info.file_size:
            raise invalid(self._source, f"member {name}: found {len(data)} bytes, expected {info.file_size}")
        return data

    def check_seal(self) -> None:
        """Hold the whole file against its seal.

        Raises:
            ConfigError: `bundle-invalid`: some byte is not as it was exported.
        """
        found = hashlib.sha256(self._data[:-64]).hexdigest()
        stated = self._data[-64:].decode("ascii", "replace")
        if found != stated:
            raise invalid(self._source, f"the file is damaged: found sha256 {found[:12]}, expected {stated[:12]!r}")


def _check_end(data: bytes, source: str) -> None:
    """The last record of the file: it says whether this is a whole bundle, and how many members to expect."""
    if len(data) > MAX_FILE_BYTES:
        raise invalid(source, f"found {len(data)} bytes, expected at most {MAX_FILE_BYTES}", hint=EXPORT_AGAIN)
    if not data.startswith(b"PK\x03\x04"):
        raise invalid(
            source,
            f"found {'an empty file' if not data else 'a file that is no zip'}, expected a bundle",
            hint="name a file that `blossom-edge export --bundle FILE` wrote",
        )
    if data[-22:-18] == b"PK\x05\x06" and data[-2:] == b"\0\0":
        hint = "use the file as it was exported: one that was packed again is no bundle"
        raise invalid(source, "found a zip file without a seal, expected a bundle", hint=hint)
    end = len(data) - _COMMENT_BYTES - _END.size
    if end < 0 or data[end + _END.size : -64] != _SEAL:
        raise invalid(source, f"the file is cut off or damaged: found {len(data)} bytes without a bundle's end")
    mark, disk, first_disk, here, members, length, offset, comment = _END.unpack_from(data, end)
    if mark != b"PK\x05\x06" or disk or first_disk or here != members or comment != _COMMENT_BYTES:
        raise invalid(source, "the file is damaged: its last record is not that of a bundle")
    if members > MAX_MEMBERS or length > members * _LONGEST_ENTRY or offset + length != end:
        raise invalid(source, f"found {members} members in a list of {length} bytes, expected at most {MAX_MEMBERS}")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
