"""What a person sees while the demo runs: a live table on a terminal, else one line per round. Decides nothing."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from blossom_edge.console.output import Output, format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

BAR_COLUMNS = 24


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device as it is now."""

    id: str
    profile: str
    modalities: tuple[str, ...]
    state: str = "starting"
    round: int = 0
    score: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """The whole demo as it is now. `done` and `total` are steps of the comparison that runs beside the federation."""

    devices: tuple[DeviceRow, ...]
    round: int
    rounds: int
    phase: str
    done: int
    total: int
    comparing: str
    seconds: float

    @property
    def mean_score(self) -> float | None:
        """Over the devices that have one."""
        scores = [row.score for row in self.devices if row.score is not None]
        return sum(scores) / len(scores) if scores else None


class View(Protocol):
    """Something that shows pictures."""

    def show(self, picture: Picture) -> None:
        """Show this one now."""
        ...

    def close(self) -> None:
        """Leave the last one as it stands."""
        ...


def make_view(out: Output, *, environ: Mapping[str, str] = os.environ) -> View:
    """A live table where rich is installed and stdout is a terminal; with --json one moving line; else lines."""
    if out.as_json or out.quiet:
        return MovingLine(out)
    lively = sys.stdout.isatty() and environ.get("TERM") != "dumb"
    if lively and importlib.util.find_spec("rich") is not None:
        return LiveTable()
    return Lines(out)


class MovingLine:
    """One line on a terminal's stderr, nothing elsewhere."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def show(self, picture: Picture) -> None:
        """Count rounds and steps of the comparison together."""
        text = f"{picture.phase}, {format_seconds(picture.seconds)}"
        self._out.progress(picture.round + picture.done, picture.rounds + picture.total, text)

    def close(self) -> None:
        """Go on below the line."""
        self._out.end_progress()


class Lines:
    """A line when a round is over or another part begins; on stderr, as it is no result."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._shown: tuple[int, str] | None = None

    def show(self, picture: Picture) -> None:
        """Say what is new."""
        now = (picture.round, picture.phase)
        if now == self._shown:
            return
        if self._shown is None or picture.phase != self._shown[1]:
            self._out.note(f"{picture.phase} ({format_seconds(picture.seconds)})")
        if picture.round and (self._shown is None or picture.round != self._shown[0]):
            mean = picture.mean_score
            score = "" if mean is None else f", mean own score {mean:.3f}"
            at = format_seconds(picture.seconds)
            self._out.note(f"round {picture.round} of {picture.rounds} is over{score} ({at})")
        self._shown = now

    def close(self) -> None:
        """Nothing moves, so nothing is to be ended."""


class LiveTable:
    """A table redrawn in place. No thread of its own: it is drawn when it is told."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="crop")
        self._started = False

    def show(self, picture: Picture) -> None:
        """Draw this one over the last."""
        if not self._started:
            self._started = True
            self._live.start()
        self._live.update(_group(picture), refresh=True)

    def close(self) -> None:
        """Give the cursor back."""
        if self._started:
            self._live.stop()


def _group(picture: Picture) -> Group:
    from rich.console import Group
    from rich.text import Text

    round_bar = _bar("rounds", picture.round, picture.rounds, picture.phase)
    comparison = _bar("comparison", picture.done, picture.total, picture.comparing)
    return Group(_table(picture), round_bar, comparison, Text(format_seconds(picture.seconds), style="dim"))


def _table(picture: Picture) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for name, right in (
        ("device", False),
        ("profile", False),
        ("modalities", False),
        ("state", False),
        ("round", True),
        ("score", True),
        ("up", True),
        ("down", True),
    ):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in picture.devices:
        cells = [row.id, row.profile, ", ".join(row.modalities), row.state, str(row.round or "-")]
        cells.append("-" if row.score is None else f"{row.score:.3f}")
        cells += [format_bytes(row.bytes_up), format_bytes(row.bytes_down)]
        table.add_row(*(Text(cell, style="green" if i == 5 else "") for i, cell in enumerate(cells)))
    return table


def _bar(name: str, done: int, total: int, text: str) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1))
    line.add_column(width=10)
    line.add_column(width=BAR_COLUMNS)
    line.add_column(width=7, justify="right")
    line.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(total=max(total, 1), completed=done, width=BAR_COLUMNS)
    line.add_row(Text(name), bar, Text(f"{done}/{total}"), Text(text))
    return line
