"""The parts of a demo that run beside its live federation: the same devices alone, and with the full model.

A program of its own for each mode, `python -m blossom_edge.simulation.demo_modes JSON`, so that it can be ended at
any time. What it found and how far it is stands in two files of the demo's folder.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blossom_edge.core.errors import BlossomError
from blossom_edge.durable import atomic_write

MODES = ("alone", "full")


@dataclass(frozen=True, slots=True)
class Compared:
    """One device in one mode."""

    curve: tuple[float, ...]
    new_people_score: float


def arguments(mode: str, *, rounds: int, seed: int, labels_per_class: int | None) -> list[str]:
    """The program's command line, behind `python`; it works in the current folder."""
    text = json.dumps({"mode": mode, "rounds": rounds, "seed": seed, "labels_per_class": labels_per_class})
    return ["-m", "blossom_edge.simulation.demo_modes", text]


def read_progress(folder: Path) -> tuple[int, str]:
    """How many rounds of all modes are done, and the same in words."""
    done = {mode: _read(_progress_file(folder, mode)).get("done", 0) for mode in MODES}
    return sum(done.values()), ", ".join(f"{mode} {number}" for mode, number in done.items())


def read_compared(folder: Path) -> dict[str, dict[str, Compared]]:
    """What was found: mode -> device id -> result.

    Raises:
        BlossomError: `demo-failed`: it is not there.
    """
    compared = {}
    for mode in MODES:
        found = _read(_result_file(folder, mode))
        if not found:
            raise BlossomError("demo-failed", f"the comparison with {mode} left no result in {folder}")
        compared[mode] = {
            device: Compared(tuple(one["curve"]), one["new_people_score"]) for device, one in found.items()
        }
    return compared


def main() -> None:
    """Compare, in the current folder."""
    asked = json.loads(sys.argv[1])
    try:
        _compare(Path.cwd(), **asked)
    except BlossomError as error:
        sys.exit(f"error: {error.line()}")


def _compare(folder: Path, *, mode: str, rounds: int, seed: int, labels_per_class: int | None) -> None:
    from blossom_edge.simulation.modes import learn

    def tell(number: int) -> None:
        atomic_write(_progress_file(folder, mode), json.dumps({"done": number}).encode(), name="progress")

    learned = learn(
        mode,
        folder / "people",
        rounds=rounds,
        seed=seed,
        labels_per_class=labels_per_class,
        folder=folder / f"compared-{mode}",
        on_round=tell,
    )
    found = {device: {"curve": one.curve, "new_people_score": one.new_people_score} for device, one in learned.items()}
    atomic_write(_result_file(folder, mode), json.dumps(found).encode(), name="comparison")


def _progress_file(folder: Path, mode: str) -> Path:
    return folder / f"compared-{mode}.progress.json"


def _result_file(folder: Path, mode: str) -> Path:
    return folder / f"compared-{mode}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


if __name__ == "__main__":
    main()
