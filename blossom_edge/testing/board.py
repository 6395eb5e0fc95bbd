"""`python -m blossom_edge.testing.board PROFILE`: a board with fake hardware for other terminals, until Ctrl-C.

It prints the line that makes a terminal use it, `export BLOSSOM_ROOT=...`, and reads what happens to its sensors from
stdin, a line each: `imu unplug`, `imu rate(0.5)`, `imu at 1s unplug; at 3s replug`, `activity 2`.

Chips behind `smbus2` live in the process that reads them: this board cannot lend those, and says so.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from blossom_edge.console.output import Output
from blossom_edge.core.errors import BlossomError
from blossom_edge.sensors.driver import ROOT_VARIABLE
from blossom_edge.testing.boards import FakeBoard
from blossom_edge.testing.faults import calls, parse_script, play, stop_all
from blossom_edge.testing.refusals import KitError


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep a board until SIGINT or SIGTERM; returns the exit code."""
    options = _parser().parse_args(arguments)
    out = Output()
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT is ignored in a shell's background
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fake-board-")))
            media = dict(_medium(text) for text in options.media)
            board = stack.enter_context(FakeBoard(options.profile, folder.absolute(), only=options.only, media=media))
            stack.callback(stop_all)
            serve(board, sys.stdin, out)
    except KeyboardInterrupt:
        return 0
    except BlossomError as error:
        out.failure(error.error_id, error.args[0], hint=error.hint)
        return error.exit_status
    return 0


def serve(board: FakeBoard, lines: TextIO, out: Output) -> None:
    """Say how to reach the board, obey `lines`, then wait; ends with KeyboardInterrupt.

    Raises:
        ConfigError: `usage`: no other process could see any sensor of it.
    """
    lent = [name for name in board.fakes if name not in board.inside]
    if not lent:
        raise KitError(
            "usage",
            f"{', '.join(board.inside)}: only I2C chips, which are faked inside the process that reads them",
            hint="use `device(...).join(gateway())` in a test, or another source with --only",
        )
    out.line(f"export {ROOT_VARIABLE}={shlex.quote(str(board.host.root))}")
    if board.media_options:
        out.line(f"# and with each command: {shlex.join(board.media_options)}")
    for name in board.inside:
        out.note(f"{name} is missing there: an I2C chip, faked only in the process that reads it")
    out.note(
        f"faults, a line each: `{lent[0]} unplug`, `{lent[0]} at 1s unplug; at 3s replug`, `activity 2`; Ctrl-C ends"
    )
    for line in lines:
        try:
            if line.strip():
                obey(board, line)
        except BlossomError as error:
            out.failure(error.error_id, error.args[0], hint=error.hint)
    while True:
        signal.pause()


def obey(board: FakeBoard, line: str) -> None:
    """Do what one line says: `SENSOR FAULT`, `SENSOR at SECONDS FAULT; ...`, or `activity N`.

    Raises:
        ConfigError: `usage`: it is none of these.
    """
    name, _, what = line.strip().partition(" ")
    if name == "activity" and what.strip().isdecimal():
        board.activity = int(what)
        return
    fake = board.fakes.get(name)
    if fake is None or isinstance(fake, Path):
        able = [sensor for sensor, other in board.fakes.items() if not isinstance(other, Path)]
        why = "plays a file, it has no faults" if fake else "is no sensor of this board"
        raise KitError("usage", f"{name!r} {why}, expected {', '.join([*able, 'activity'])}")
    if what.strip().startswith("at "):
        play(what, on=fake)
        return
    for _, call in calls(parse_script(f"at 0s {what}"), fake):
        call()


def _medium(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise KitError("usage", f"--media: found {text!r}, expected SENSOR=FILE, for example mic=hum.wav")
    return name, Path(path).absolute()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m blossom_edge.testing.board",
        description="A board with fake hardware for other terminals. Reads faults from stdin; Ctrl-C ends it.",
    )
    parser.add_argument("profile", help="name or file of a profile")
    parser.add_argument(
        "--only", action="append", default=[], metavar="DRIVER", help="fake only sources of this driver"
    )
    parser.add_argument("--folder", type=Path, help="where the fake files are put (a temporary folder)")
    parser.add_argument("--media", action="append", default=[], metavar="SENSOR=FILE", help="what a microphone plays")
    return parser


if __name__ == "__main__":
    sys.exit(main())
