"""Fetches one large file over HTTP: goes on where it was cut off, checks size and SHA-256. Standard library only.

Beside the file that grows, `.part`, lies `.part.json` with what the server said of it; a server that since then has
another file makes it start again. Never follows from https to http.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from blossom_edge.core.errors import ConfigError, LinkError, StorageError
from blossom_edge.durable import atomic_write
from blossom_edge.durable.growing import GrowingFile, discard

PIECE = 1 << 20
TRIES = 5
TIMEOUT_S = 60.0
SPARE_BYTES = 50_000_000
"""Left free on the disk."""
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)$")

Progress = Callable[[int, int], None]
"""Called with bytes that are here and bytes in all (0: the server did not say)."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The whole file at `path`, and what it was found to be."""

    path: Path
    size: int
    sha256: str


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"the server leads from https to {newurl.partition(':')[0]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str,
    part: Path,
    *,
    limit: int,
    sha256: str = "",
    progress: Progress = lambda done, total: None,
    pause: Callable[[float], None] = lambda seconds: None,
) -> Fetched:
    """Fetch `url` into the file `part`, or the rest of it where some is there; `limit` bytes are too many.

    sha256: expected, in hex; "" accepts any. pause: waits between tries, seconds. Without a checksum a cut that the
    server does not admit cannot be seen, unless it told the size.

    Raises:
        ConfigError: `usage`: no web address.
        LinkError: `download-failed`: no answer, an error, or too many cuts; what came stays in `part`.
        StorageError: `disk-failed`: no room; `file-damaged`: another checksum; `part` is removed then.
    """
    if not url.startswith(("https://", "http://")):
        raise ConfigError("usage", f"found the address {url!r}, expected https://...", hint="give a web address")
    opener = urllib.request.build_opener(_NoDowngrade)
    with GrowingFile(part, name="download") as file:
        for attempt in range(TRIES):
            before = file.size
            reason = _go_on(opener, url, file, limit=limit, progress=progress)
            if not reason:
                break
            if attempt == TRIES - 1:
                raise LinkError(
                    "download-failed",
                    f"{url}: {reason}; {file.size} bytes are here",
                    hint="run the same command again: it goes on from there",
                )
            pause(float(2**attempt) if file.size == before else 0.5)
        size = file.size
    found = file_sha256(part)
    if sha256 and found != sha256:
        forget(part)
        raise StorageError(
            "file-damaged",
            f"{url}: found sha256 {found}, expected {sha256}; the file was removed",
            hint="fetch it again; if it is the same again, the data set has changed at its source (--sha256)",
        )
    return Fetched(part, size, found)


def forget(part: Path) -> None:
    """Remove a part and what was noted of it.

    Raises:
        StorageError: `disk-failed`.
    """
    discard(part)
    discard(_notes(part))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        StorageError: `disk-failed`.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    except OSError as error:
        raise StorageError("disk-failed", f"cannot read {path}: {error.strerror}", hint="look at the disk") from error
    return digest.hexdigest()


def _go_on(
    opener: urllib.request.OpenerDirector, url: str, file: GrowingFile, *, limit: int, progress: Progress
) -> str:
    """One connection. Empty when the file is whole, else why it is not."""
    known = _read_notes(file.path) if file.size else {}
    if file.size and known.get("url") != url:
        file.restart()
    headers = {"User-Agent": "blossom-edge", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked
    if file.size:
        request.add_header("Range", f"bytes={file.size}-")
        if known.get("tag"):
            request.add_header("If-Range", known["tag"])
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return _take(answer, url, file, known, limit=limit, progress=progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
                if whole == str(file.size):
                    return ""
                file.restart()
                return "the server has another file than before"
            if error.code < 500 and error.code not in (408, 429):
                raise LinkError(
                    "download-failed",
                    f"{url}: the server answers {error.code} {error.reason}",
                    hint="look at the data set's page, it may have moved",
                ) from error
            return f"the server answers {error.code} {error.reason}"
    except http.client.IncompleteRead:
        return "the connection was cut"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer ({getattr(error, 'reason', None) or error})"


def _take(
    answer: http.client.HTTPResponse,
    url: str,
    file: GrowingFile,
    known: Mapping[str, str],
    *,
    limit: int,
    progress: Progress,
) -> str:
    """Append what the server sends; the file starts again if that is the whole."""
    start, total = 0, int(answer.headers.get("Content-Length") or 0)
    if answer.status == http.client.PARTIAL_CONTENT:
        matched = _RANGE.match(answer.headers.get("Content-Range") or "")
        if matched is None or int(matched[1]) != file.size:
            file.restart()
            return "the server sent another part than asked for"
        start, total = file.size, 0 if matched[2] == "*" else int(matched[2])
        if known.get("total", "0") not in ("0", str(total)):
            file.restart()
            return "the server has another file than before"
    elif file.size:
        file.restart()
    _check_room(file, total or start, limit=limit, url=url)
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    tag = "" if tag.startswith("W/") else tag
    atomic_write(
        _notes(file.path), json.dumps({"url": url, "tag": tag, "total": total}).encode(), name="download-notes"
    )
    progress(file.size, total)
    while piece := answer.read(PIECE):
        if file.size + len(piece) > limit:
            raise _too_much(url, limit)
        file.append(piece)
        progress(file.size, total)
    return "the connection was cut" if total and file.size < total else ""


def _check_room(file: GrowingFile, total: int, *, limit: int, url: str) -> None:
    if total > limit:
        raise _too_much(url, limit)
    free = shutil.disk_usage(file.path.parent).free
    if total - file.size + SPARE_BYTES > free:
        raise StorageError(
            "disk-failed",
            f"{file.path.parent}: found {free / 1e6:,.0f} MB free, expected {(total - file.size) / 1e6:,.0f} MB more",
            hint="make room, or name another folder with --data-folder",
        )


def _too_much(url: str, limit: int) -> LinkError:
    return LinkError(
        "download-failed",
        f"{url}: found more than {limit / 1e6:,.0f} MB, expected the data set",
        hint="look at the data set's page: it may have changed",
    )


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_notes(part: Path) -> Mapping[str, str]:
    """What the server said of the file that is here; nothing if that cannot be read."""
    try:
        notes = json.loads(_notes(part).read_bytes()[:10_000])
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in notes.items()} if isinstance(notes, dict) else {}
