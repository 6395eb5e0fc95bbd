"""Options, folders and words that several commands of a device share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from blossom_edge.console.output import Output
    from blossom_edge.sensors.driver import Host

Command = TypeVar("Command", bound=Callable[..., Any])
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Data folder of the devices [default: $XDG_STATE_HOME/blossom-edge].",
)


def seconds_option(help: str, *, default: float | None = None) -> Callable[[Command], Command]:
    """`--seconds`: how long to measure or to listen, a finite number above 0."""
    return click.option(
        "--seconds",
        type=float,
        default=default,
        show_default=default is not None,
        callback=_above_zero,
        metavar="S",
        help=help,
    )


def _above_zero(context: click.Context, option: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise click.BadParameter(f"found {seconds:g}, expected a number of seconds above 0", context, option)
    return seconds


def say_root(out: Output, host: Host) -> None:
    """Say where the hardware is looked for, if that is not this machine's own /sys, /proc and /dev."""
    if host.root != Path("/"):
        out.note(f"/sys, /proc and /dev are read below {host.root} (BLOSSOM_ROOT)")


def edge_folder(data_dir: Path | None) -> Path:
    """The data folder given, else `$XDG_STATE_HOME/blossom-edge` (`~/.local/state/blossom-edge`)."""
    if data_dir is not None:
        return data_dir.expanduser()
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "blossom-edge"
