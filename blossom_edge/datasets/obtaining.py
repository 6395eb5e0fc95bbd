"""From a known source to a folder that `read_dataset` reads: fetch, check, unpack, put in place. Asks nobody.

In the folder of data sets, NAME/ is a set that is whole; NAME.zip.part and NAME.unpacking/ are not whole yet, and
NAME.json says what was fetched from where.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blossom_edge.core.errors import ConfigError
from blossom_edge.datasets.download import Progress, fetch, forget
from blossom_edge.datasets.sources import SOURCES, Source
from blossom_edge.datasets.unpack import unpack
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.durable.growing import discard, settle

_ROOM = 1.5
"""An archive may be so much larger than its source says."""


@dataclass(frozen=True, slots=True)
class Obtained:
    """A set that is there now. expected: the checksum that was compared; "" where none was known."""

    path: Path
    size: int
    sha256: str
    expected: str


def find_source(name: str) -> Source:
    """The source of a known data set.

    Raises:
        ConfigError: `nothing-found`.
    """
    if name not in SOURCES:
        raise ConfigError(
            "nothing-found",
            f"found no data set {name!r}, expected one of {', '.join(SOURCES)}",
            hint="blossom-edge data list",
        )
    return SOURCES[name]


def place(source: Source, folder: Path) -> Path:
    """Where the set lies when it is there."""
    return folder / source.name


def known_sha256(source: Source, folder: Path) -> str:
    """The checksum to expect: the source's, else the one found when it was fetched before; "" where neither is."""
    if source.sha256:
        return source.sha256
    try:
        noted = json.loads((folder / f"{source.name}.json").read_bytes()[:10_000])
    except (OSError, ValueError):
        return ""
    is_ours = isinstance(noted, dict) and noted.get("url") == source.url
    return str(noted.get("sha256", "")) if is_ours else ""


def obtain(
    source: Source,
    folder: Path,
    *,
    sha256: str = "",
    progress: Progress = lambda done, total: None,
    pause: Callable[[float], None] = lambda seconds: None,
) -> Obtained:
    """Fetch and unpack a set into folder/NAME, which must not be there; what was begun before is gone on with.

    sha256: expected instead of `known_sha256`.

    Raises:
        ConfigError: `data-invalid`: the archive is damaged or refused; the part is removed then.
        LinkError: `download-failed`.
        StorageError: `disk-failed`, `file-damaged`.
    """
    make_folder(folder)
    part = folder / f"{source.name}{source.suffix}.part"
    expected = sha256.lower() or known_sha256(source, folder)
    limit = int(source.size * _ROOM)
    fetched = fetch(source.url, part, limit=limit, sha256=expected, progress=progress, pause=pause)
    unpacking = folder / f"{source.name}.unpacking"
    discard(unpacking)
    try:
        unpack(part, unpacking, limit=source.unpacked, inner=source.inner)
    except ConfigError:
        discard(unpacking)
        forget(part)
        raise
    noted = {"url": source.url, "size": fetched.size, "sha256": fetched.sha256, "compared": bool(expected)}
    atomic_write(folder / f"{source.name}.json", json.dumps(noted, indent=2).encode(), name="data-note", mode=0o644)
    settle(unpacking, place(source, folder))
    forget(part)
    return Obtained(place(source, folder), fetched.size, fetched.sha256, expected)
