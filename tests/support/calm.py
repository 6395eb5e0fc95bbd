"""Runs in which nothing breaks, to hold the others against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from support.learning import tiny
from support.stage import Stage

Cast = list[tuple[str, tuple[str, ...]]]
Versions = dict[str, tuple[int, str]]
Calm = Callable[[tuple[str, ...], Cast], Versions]


def make_calm(new_folder: Callable[[], Path]) -> Calm:
    """A function that gives the versions of a run in which nothing breaks; each is run once."""
    known: dict[str, Versions] = {}

    def calm(sets: tuple[str, ...], cast: Cast) -> Versions:
        name = f"{sets} {cast}"
        if name not in known:
            stage = Stage(new_folder(), tiny(*sets), cast)
            stage.run()
            known[name] = stage.versions()
            stage.close()
        return known[name]

    return calm


def each_update_once(stage: Stage) -> bool:
    """Whether the ledger has at most one accepted update per round, block and device."""
    counts = Counter((r["round"], r["block"], r["device"]) for r in stage.records("accept"))
    return set(counts.values()) <= {1}
