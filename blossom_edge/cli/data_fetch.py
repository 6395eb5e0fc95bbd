"""`blossom-edge data fetch`: shows what a data set is and weighs, asks, and fetches it. Never without a yes."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blossom_edge.cli.data import data_folder_option, sets_folder
from blossom_edge.console.output import Output, format_bytes
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError

if TYPE_CHECKING:
    from blossom_edge.datasets.sources import Source

_MB = 1_000_000


@command("fetch", has_json=True, example="blossom-edge data fetch ucihar\nblossom-edge data fetch ptbxl --yes")
@click.argument("name")
@data_folder_option
@click.option("--sha256", metavar="HEX", default="", help="Expect this checksum of the archive.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def fetch(out: Output, name: str, data_folder: Path | None, sha256: str, yes: bool) -> int:
    """Fetch the data set NAME from its home, after showing size, licence and checksum. A cut fetch goes on.

    What is only given to those who sign a form is not fetched: the steps are shown instead. Exit code 1 when nothing
    was fetched.
    """
    from blossom_edge.datasets.obtaining import find_source, known_sha256, obtain, place

    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError("usage", f"--sha256: found {sha256[:70]!r}, expected 64 hex digits", hint="copy it whole")
    source, folder = find_source(name), sets_folder(data_folder)
    path = place(source, folder)
    expected = sha256.lower() or known_sha256(source, folder)
    shown: dict[str, Any] = {"name": name, "source": f"{name}:{path}", "fetched": False, "steps": list(source.steps)}
    if path.is_dir():
        out.json({**shown, "here": True})
        out.line(f"{name} is here: read it as {name}:{path}")
        return 0
    _say(out, source, expected, given=bool(sha256))
    if not source.url:
        out.json({**shown, "here": False})
        out.line("this is not fetched for you; instead:")
        _say_steps(out, source, folder)
        return 1
    if not (yes or click.confirm(f"fetch it to {path}?", default=True, err=True)):
        out.json({**shown, "here": False})
        out.note("nothing was fetched")
        return 1
    got = obtain(source, folder, sha256=sha256, progress=_Progress(out), pause=time.sleep)
    out.end_progress()
    out.json({**shown, "here": True, "fetched": True, "sha256": got.sha256, "compared": bool(got.expected)})
    if not got.expected:
        out.line(f"sha256 {got.sha256} (nothing to compare it with; noted in {folder / (name + '.json')})")
    out.line(f"fetched {format_bytes(got.size)}: read it as {name}:{got.path}")
    if source.steps:
        out.line("still to do:")
        _say_steps(out, source, folder)
    return 0


class _Progress:
    """The moving line, redrawn for each MB at most."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._last = -1

    def __call__(self, done: int, total: int) -> None:
        if done // _MB != self._last:
            self._last = done // _MB
            self._out.progress(done // _MB, max(total, done) // _MB, "MB")


def _say(out: Output, source: Source, expected: str, *, given: bool) -> None:
    """What a person should know before the answer; on stderr, so that --json stays alone."""
    out.note(source.title)
    out.note(f"home: {source.homepage}")
    out.note(f"licence: {source.licence}")
    if source.url:
        about = "" if source.sha256 else "about "
        out.note(f"from: {source.url}")
        out.note(f"size: {about}{format_bytes(source.size)}")
        by = "you" if given else source.vouched or "the first fetch"
        out.note(f"sha256: {expected} (said by {by})" if expected else "sha256: not known; the one found is shown")


def _say_steps(out: Output, source: Source, folder: Path) -> None:
    for number, step in enumerate(source.steps, start=1):
        out.line(f"  {number}. {step.replace('FOLDER', str(folder))}")
