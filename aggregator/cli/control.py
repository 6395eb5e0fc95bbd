"""Commands to a running gateway. They go through files in its data folder, which it takes up within a second."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blossom_edge.console.output import Output
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from aggregator.cli.commands import Ask

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
    from aggregator.cli.commands import Ask
    from aggregator.cli.status import read_status

    folder = gateway_folder(data_dir)
    if not read_status(folder)["running_here"]:
        hint = "start it with `blossom-aggregator serve` and this --data-dir"
        raise StorageError("nothing-found", f"no gateway is running in {folder}", hint=hint)
    ask = Ask(folder, words)
    try:
        _await(out, folder, ask)
    finally:
        ask.withdraw()
    out.line(done)


def _await(out: Output, folder: Path, ask: Ask) -> None:
    """Return when the command was carried out; the end of a round is waited for as long as the gateway runs."""
    from aggregator.cli.status import read_status

    until, said = time.monotonic() + PATIENCE_S, False
    while (answer := ask.answer()) is None or answer.state == "waits":
        if answer is not None and not said:
            left = read_status(folder)["deadline_in_s"]
            most = f", at most {left:.0f} s" if left is not None else ""
            out.note(f"waiting {answer.message}{most}")
            said = True
        if time.monotonic() > until:
            if answer is None or not read_status(folder)["running_here"]:
                hint = "is `blossom-aggregator serve` still running with this --data-dir? See its log"
                raise StorageError("nothing-found", f"the gateway in {folder} did not answer the command", hint=hint)
            until = time.monotonic() + PATIENCE_S
        time.sleep(0.05)
    if answer.state == "refused":
        raise ConfigError("nothing-found", answer.message, hint=answer.hint)
