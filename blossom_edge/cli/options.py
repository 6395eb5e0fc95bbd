"""Options and folders that several commands of a device share."""

from __future__ import annotations

import os
from pathlib import Path

import click

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Data folder of the devices [default: $XDG_STATE_HOME/blossom-edge].",
)


def edge_folder(data_dir: Path | None) -> Path:
    """The data folder given, else `$XDG_STATE_HOME/blossom-edge` (`~/.local/state/blossom-edge`)."""
    if data_dir is not None:
        return data_dir.expanduser()
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "blossom-edge"
