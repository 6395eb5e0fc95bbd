"""Commands to a running gateway. They go through a file in its data folder, which it takes up within a second."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from blossom_edge.console.output import Output
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import StorageError

CONTROL_FILE = "control.json"
PATIENCE_S = 10.0

data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="The gateway's data folder."
)


def gateway_folder(data_dir: Path | None) -> Path:
    """The gateway's data folder: the one given, else the default."""
    from aggregator.settings import load_settings

    return load_settings(None, {"data_dir": data_dir}).data_dir


@command("pause", example="blossom-aggregator pause --data-dir gateway/")
@data_dir_option
def pause(out: Output, data_dir: Path | None) -> None:
    """Let the open round end and open no further one; devices stay joined."""
    _tell(out, data_dir, {"word": "pause"}, "paused: no further round opens until `blossom-aggregator resume`")


@command("resume", example="blossom-aggregator resume --data-dir gateway/")
@data_dir_option
def resume(out: Output, data_dir: Path | None) -> None:
    """Go on after a pause, or after the federation had finished."""
    _tell(out, data_dir, {"word": "resume"}, "rounds go on")


@command("finish", example="blossom-aggregator finish --data-dir gateway/")
@data_dir_option
def finish(out: Output, data_dir: Path | None) -> None:
    """End the federation: the open round is the last; devices evaluate once more and stop."""
    _tell(out, data_dir, {"word": "finish"}, "the federation ends")


devices = LazyGroup(
    "devices",
    help="The devices that the gateway knows.",
    targets={"forget": ("aggregator.cli.control:forget", "Forget a device and its key.")},
)


@command("forget", example="blossom-aggregator devices forget jetson-imu-3fa2c1 --data-dir gateway/")
@click.argument("device")
@data_dir_option
def forget(out: Output, device: str, data_dir: Path | None) -> None:
    """Forget DEVICE and its key, between two rounds, so that a device set up anew may take its id."""
    _tell(out, data_dir, {"word": "forget", "device": device}, f"{device} is forgotten")


def _tell(out: Output, data_dir: Path | None, words: dict[str, str], done: str) -> None:
    from blossom_edge.durable import atomic_write

    folder = gateway_folder(data_dir)
    if not (folder / "status.json").exists():
        raise StorageError("nothing-found", f"no gateway has run in {folder}", hint="name its folder with --data-dir")
    path = folder / CONTROL_FILE
    atomic_write(path, json.dumps(words).encode(), name="control")
    until = time.monotonic() + PATIENCE_S
    while path.exists():
        if time.monotonic() > until:
            path.unlink(missing_ok=True)
            raise StorageError(
                "nothing-found",
                f"no gateway running in {folder} took the command within {PATIENCE_S:.0f} s",
                hint="is `blossom-aggregator serve` running with this --data-dir? forget waits for the end of a round",
            )
        time.sleep(0.05)
    out.line(done)
