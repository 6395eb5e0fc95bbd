"""`blossom-edge infer`: what the model says of each window, on a screen or as JSON lines. Trains no shared block."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import click

from blossom_edge.cli.joining import check_machine, check_sensing, default_id, member_options, stop_signals
from blossom_edge.cli.options import data_dir_option, edge_folder
from blossom_edge.console.output import Output
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError

SENSING = ("seed", "speed", "labels_per_class", "holdout", "tasks")
"""Options that go to the sensors and windows as they are."""


@command(
    "infer",
    has_json=True,
    streams=True,
    example="blossom-edge infer --profile rpi-zero2-imu --gateway gateway.local --publish\n"
    "blossom-edge infer --bundle har.blossom --replay people/3 --json",
)
@click.option("--profile", "profile_name", metavar="NAME", help="What this board is; see `profiles`.")
@click.option("--gateway", metavar="HOST:PORT", help="Take part and follow its versions [without: what is here].")
@click.option(
    "--bundle", type=click.Path(path_type=Path), metavar="FILE", help="Run this file of `export --bundle` instead."
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after so many predictions.")
@member_options
@data_dir_option
def infer(
    out: Output,
    profile_name: str | None,
    gateway: str | None,
    bundle: Path | None,
    count: int | None,
    federation: str | None,
    publish: bool,
    mock: bool,
    replay: Path | None,
    labels: tuple[str, ...],
    device: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    log_file: Path | None,
    log_format: Literal["text", "json"],
    **options: Any,
) -> None:
    """Predict each window, with class, confidence, latency and the versions used, until Ctrl-C.

    With --gateway the device takes part as its profile says (compute.role infer or personalize) and goes on when the
    federation is finished. Without it the model on disk runs, what the last join or infer left, until the end of a
    recording. A gateway that does not answer at the start is looked for again meanwhile.
    """
    from blossom_edge.cli.infer_modes import Run, run_bundle, run_held, run_member
    from blossom_edge.cli.prediction_view import PredictionView
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.console.logs import configure_logging
    from blossom_edge.core.names import check_name

    level = "debug" if out.verbose else "error"  # what a person wants to know, the screen says in words
    configure_logging(level, format=log_format, file=log_file, file_level="debug" if out.verbose else "info")
    check_machine()
    _check_flags(profile_name, gateway, bundle, publish=publish, federation=federation)
    opened = None
    if bundle is not None:
        from blossom_edge.cli.infer_bundle import open_bundle_model

        opened = open_bundle_model(bundle)
    profile = opened.profile if opened is not None and profile_name is None else profile_of(profile_name or "", sets)
    values = check_sensing(profile, mock=mock, replay=replay, labels=labels)
    with ExitStack() as stack:
        stopping = stack.enter_context(stop_signals())
        view = PredictionView(out, limit=count)
        run = Run(
            out=out,
            profile=profile,
            view=view,
            stack=stack,
            should_stop=lambda: bool(stopping) or view.full,
            sensing={"mock": mock, "replay": replay, **{name: options.pop(name) for name in SENSING}},
            labels=values,
            root=edge_folder(data_dir),
            name=check_name("the device id", device or default_id(profile.id)),
        )
        if opened is not None:
            run_bundle(run, opened)
        elif gateway is not None:
            run_member(run, gateway, federation, publish=publish, **options)
        else:
            run_held(run, federation)
        view.end()
        if signal.SIGINT in stopping and not out.as_json:
            raise KeyboardInterrupt


def _check_flags(
    profile: str | None, gateway: str | None, bundle: Path | None, *, publish: bool, federation: str | None
) -> None:
    if bundle is None and profile is None:
        raise ConfigError("usage", "neither --profile nor --bundle is given", hint="blossom-edge profiles list")
    if bundle is not None and (gateway is not None or federation is not None):
        raise ConfigError("usage", "a bundle needs no gateway and brings its federation", hint="leave --gateway out")
    if publish and gateway is None:
        raise ConfigError("usage", "--publish sends predictions to a gateway", hint="name it with --gateway")
