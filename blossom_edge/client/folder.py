"""Which federations a device has entered, by its folder. Apart from `store` for commands that only look."""

from __future__ import annotations

from pathlib import Path


def last_file(folder: Path, federation: str) -> Path:
    """In a device's folder, the file with the digest of the federation of this name that it entered last."""
    return folder / f"{federation}.last"


def has_joined(folder: Path, federation: str | None) -> bool:
    """Whether the device of this folder ever entered the federation of this name."""
    return federation is not None and last_file(folder, federation).exists()


def place_of(folder: Path, federation: str, digest: str) -> Path:
    """In a device's folder, that of one federation: another digest is another federation, so nothing mixes."""
    return folder / f"{federation}-{digest[:12]}"
