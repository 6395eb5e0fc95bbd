"""Recorded files that stand in for a microphone or a camera: which, in which order, their class. Opens none of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from blossom_edge.core.errors import ConfigError


def recorded_files(path: str, endings: Collection[str], what: str) -> tuple[Path, ...]:
    """The file, or all files below the folder that end so, by the name of the file, whatever folder they lie in.

    Raises:
        ConfigError: `replay-invalid`: there is none.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return (root,)
    files = [file for file in root.rglob("*") if file.suffix.lower() in endings and file.is_file()]
    if not files:
        found = "an empty folder" if root.is_dir() else "nothing"
        raise ConfigError(
            "replay-invalid",
            f"{path}: found {found}, expected {what}",
            hint=f"path: a file, or a folder with files {', '.join(sorted(endings))}",
        )
    return tuple(sorted(files, key=lambda file: (file.name, str(file))))


def class_of(file: Path) -> str:
    """The class that a file shows: the name of its folder."""
    return file.parent.name
