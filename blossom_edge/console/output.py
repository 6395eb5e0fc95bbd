"""What a command prints: results to stdout, everything else to stderr. Never logs, and never computes a result.

    out.table([("encoder/accel", 3)], ["block", "version"])      dropped with --json
    out.json({"blocks": [...]})                                  printed with --json, and only then
    out.note("waiting for the gateway")                          stderr, not with --quiet

Without a terminal there are 80 columns and no colour; NO_COLOR is obeyed.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence, Set
from typing import Any, TextIO

COLUMNS = 80
GAP = "  "
COLOURS = {"good": "32", "bad": "31", "warn": "33", "strong": "1", "dim": "2"}


class Output:
    """Where the results and notes of one command go.

    The streams are looked up at construction, so that a library which prints later cannot spoil --json.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._stdout = sys.stdout if stdout is None else stdout
        self._stderr = sys.stderr if stderr is None else stderr
        environ = os.environ if environ is None else environ
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        self.colour = self._stdout.isatty() and not plain
        self.width = shutil.get_terminal_size((COLUMNS, 24)).columns if self._stdout.isatty() else COLUMNS
        self._json_printed = self._streams = False
        self._progress_shown = False

    def line(self, text: str = "") -> None:
        """Print a line of the result; nothing with --json."""
        if not self.as_json:
            self.end_progress()
            _print(self._stdout, text)

    def table(self, rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
        """Print rows below headers, as `table_lines` lays them out; nothing with --json."""
        for line in table_lines(rows, headers, width=self.width):
            self.line(line)

    def json(self, value: Mapping[str, Any]) -> None:
        """Print the one JSON object of --json; nothing without it. NaN and infinity become null."""
        if not self.as_json:
            return
        if self._json_printed:
            raise RuntimeError("a command printed a second JSON object")
        import json

        self._json_printed = True
        _print(self._stdout, json.dumps(_plain(value), indent=2, allow_nan=False))

    def json_line(self, value: Mapping[str, Any]) -> None:
        """Print one of many JSON objects of --json, each in a line of its own: for what goes on until it is stopped."""
        if self.as_json:
            import json

            self._json_printed = self._streams = True
            _print(self._stdout, json.dumps(_plain(value), allow_nan=False))

    def note(self, text: str) -> None:
        """Say something that is no result; on stderr, nothing with --quiet."""
        if not self.quiet:
            self.end_progress()
            _print(self._stderr, text)

    def warn(self, text: str) -> None:
        """Say on stderr what the person should know, also with --quiet."""
        self.end_progress()
        _print(self._stderr, f"warning: {' '.join(text.split())}")

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Show one moving line on a terminal's stderr; nothing elsewhere and nothing with --quiet."""
        if self.quiet or not self._stderr.isatty():
            return
        filled = 20 * done // total if total else 20
        shown = f"[{'#' * filled}{'.' * (20 - filled)}] {done}/{total} {text}"[: self.width - 1]
        self._stderr.write(f"\r{shown:<{self.width - 1}}")
        self._stderr.flush()
        self._progress_shown = True

    def redraw(self, lines: Sequence[str], before: int) -> int:
        """Print lines over the `before` lines printed last; returns how many these are, for the next call.

        Where stdout is no terminal they are printed below; nothing with --json.
        """
        if self._stdout.isatty() and before and not self.as_json:
            self._stdout.write(f"\x1b[{before}A\x1b[J")
        for line in lines:
            self.line(line)
        return len(lines)

    def end_progress(self) -> None:
        """Leave the moving line as it stands and go on below it."""
        if self._progress_shown:
            self._progress_shown = False
            _print(self._stderr, "")

    def paint(self, text: str, role: str) -> str:
        """Colour the text where colours are wanted; role is good, bad, warn, strong or dim."""
        return f"\x1b[{COLOURS[role]}m{text}\x1b[0m" if self.colour else text

    def failure(self, error_id: str, message: str, *, hint: str = "") -> None:
        """Say an error in one line on stderr, and with --json as the one object on stdout."""
        self.end_progress()
        message, hint = (" ".join(text.split()) for text in (message, hint))
        _print(self._stderr, f"error: {message}{f'; {hint}' if hint else ''} [{error_id}]")
        if self.as_json and (self._streams or not self._json_printed):
            self.json_line({"error": {"id": error_id, "message": message, "hint": hint}})

    def finish(self) -> None:
        """Hold a command to its word: with --json it has printed its object."""
        self.end_progress()
        if self.as_json and not self._json_printed:
            raise RuntimeError("a command with --json printed no JSON object")


def table_lines(rows: Sequence[Sequence[object]], headers: Sequence[str], *, width: int = COLUMNS) -> list[str]:
    """Lay out a table in lines of at most `width` characters; the widest columns give way and wrap.

    Columns of numbers stand right; a float gets three decimals, None and NaN are a dash.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(headers))]
    widths = [max(len(text) for text in column) for column in zip(headers, *cells, strict=True)]
    room = max(width - len(GAP) * (len(headers) - 1), 3 * len(headers))
    while sum(widths) > room:
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] -= 1
    lines = [*_row_lines(headers, widths, right), GAP.join("-" * w for w in widths)]
    return lines + [line for row in cells for line in _row_lines(row, widths, right)]


def format_bytes(num_bytes: float) -> str:
    """A size for people, in decimal units: 950 B, 1,208 kB, 12.3 MB."""
    if num_bytes < 1_000:
        return f"{num_bytes:.0f} B"
    return f"{num_bytes / 1e3:,.0f} kB" if num_bytes < 1e7 else f"{num_bytes / 1e6:,.1f} MB"


def format_seconds(seconds: float) -> str:
    """A duration for people: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _row_lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    wrapped = [textwrap.wrap(text, w, break_on_hyphens=False) or [""] for text, w in zip(row, widths, strict=True)]
    lines = []
    for i in range(max(len(parts) for parts in wrapped)):
        texts = [parts[i] if i < len(parts) else "" for parts in wrapped]
        columns = zip(texts, widths, right, strict=True)
        lines.append(GAP.join(t.rjust(w) if r else t.ljust(w) for t, w, r in columns).rstrip())
    return lines


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else " ".join(str(value).split())


def _plain(value: Any) -> Any:
    """Reduce to what JSON has; numpy scalars and arrays are known by their methods, numpy itself is not imported."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted(_plain(item) for item in value)
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _print(stream: TextIO, text: str) -> None:
    """Write a line; a character that the stream's encoding lacks becomes an escape instead of an error."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
