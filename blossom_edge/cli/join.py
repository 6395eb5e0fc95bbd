"""`blossom-edge join`: this device takes part in a federation. Wires profile, sensors, trainer, link and store."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import click

from blossom_edge.cli.joining import (
    check_known_labels,
    check_machine,
    check_packages,
    check_publishing,
    check_sensing,
    default_id,
    find_place,
    make_agent,
    member_options,
    stop_signals,
)
from blossom_edge.cli.options import data_dir_option, edge_folder
from blossom_edge.console.output import Output
from blossom_edge.console.program import command


@command(
    "join",
    example="blossom-edge join --profile jetson-imu --gateway localhost:18830 --mock\n"
    "blossom-edge join --profile rpi4-gyro --replay people/3",
)
@click.option("--profile", "profile_name", metavar="NAME", required=True, help="What this board is; see `profiles`.")
@click.option("--gateway", metavar="HOST:PORT", help="The gateway [default: $BLOSSOM_GATEWAY, else the last joined].")
@member_options
@data_dir_option
def join(
    out: Output,
    profile_name: str,
    gateway: str | None,
    federation: str | None,
    mock: bool,
    replay: Path | None,
    labels: tuple[str, ...],
    publish: bool,
    device: str | None,
    sets: tuple[str, ...],
    password: str | None,
    gateway_key: str | None,
    patience_s: float,
    data_dir: Path | None,
    log_file: Path | None,
    log_format: Literal["text", "json"],
    **learning: Any,
) -> None:
    """Take part in a federation until it is finished, or until Ctrl-C; a restart goes on where it was.

    The profile's compute.role says how: train, or infer and personalize with onnxruntime (`infer` shows what they see).
    """
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.client.store import Store
    from blossom_edge.console.logs import configure_logging
    from blossom_edge.core.names import check_name
    from blossom_edge.durable import make_folder
    from blossom_edge.simulation.learner import Live

    level = "debug" if out.verbose else "error" if out.quiet else "warning"
    configure_logging(level, format=log_format, file=log_file, file_level="debug" if out.verbose else "info")
    check_machine()
    profile = profile_of(profile_name, sets)
    label_values = check_sensing(profile, mock=mock, replay=replay, labels=labels)
    check_publishing(profile, publish)
    name = check_name("the device id", device or default_id(profile.id))
    root = edge_folder(data_dir)
    place = find_place(root, gateway, federation, password=password, patience_s=patience_s)
    check_packages(profile)
    make_folder(root)
    with ExitStack() as stack:
        store = Store(root, name)
        stack.callback(store.close)
        check_known_labels(label_values, store.known_federation(place.federation))
        live = None if mock or replay is not None else Live(store.folder, labels=label_values)
        learning |= {"mock": mock, "replay": replay, "live": live}
        agent = make_agent(out, profile, place, store, gateway_key=gateway_key, publish=publish, **learning)
        stack.callback(lambda: agent.leave("join has ended"))
        stopping = stack.enter_context(stop_signals())
        stop = agent.run(should_stop=lambda: bool(stopping))
        if stop.error is not None:
            raise stop.error
        if signal.SIGINT in stopping:
            raise KeyboardInterrupt
        out.line(f"{name}: {stop.reason}")
