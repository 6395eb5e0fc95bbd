"""`blossom-edge join`: this device takes part in a federation. Wires profile, sensors, trainer, link and store."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from blossom_edge import __version__
from blossom_edge.cli.options import data_dir_option, edge_folder
from blossom_edge.console.output import Output
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError, LinkError

if TYPE_CHECKING:
    from blossom_edge.client.agent import Agent
    from blossom_edge.federation.schema import Federation
    from blossom_edge.transport.address import Address
    from firmware_profiles import Profile


def label_count(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a number of labels per class; `all` is None."""
    if value is None or value == "all":
        return None
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number from 1 on nor 'all'", ctx, param)
    return int(value)


@dataclass(frozen=True, slots=True)
class Place:
    """Where to join: address, federation, and the login that the broker wants."""

    address: Address
    federation: str


@command(
    "join",
    example="blossom-edge join --profile jetson-imu --gateway localhost:18830 --mock\n"
    "blossom-edge join --profile rpi4-gyro --replay people/3",
)
@click.option("--profile", "profile_name", metavar="NAME", required=True, help="What this board is; see `profiles`.")
@click.option("--gateway", metavar="HOST:PORT", help="The gateway [default: $BLOSSOM_GATEWAY, else the last joined].")
@click.option("--federation", metavar="NAME", help="Which one, if the gateway has several.")
@click.option("--mock", is_flag=True, help="Simulate the sensors of the profile.")
@click.option("--replay", type=click.Path(path_type=Path), metavar="PATH", help="Replay one person's recordings.")
@click.option("--speed", type=float, metavar="X", help="Pace of --mock and --replay; 0: all at once.")
@click.option("--label", "labels", multiple=True, metavar="TASK=CLASS", help="What is going on, for real sensors.")
@click.option("--labels-per-class", callback=label_count, metavar="N|all", help="Use so few labelled windows [all].")
@click.option("--holdout", type=float, metavar="PART", help="Part of the windows kept for the own score [0.3].")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Serve this task only.")
@click.option("--id", "device", metavar="ID", help="Name of this device [profile and a part of the machine id].")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the profile.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of simulated sensors and the choice of labels.")
@click.option("--password", envvar="BLOSSOM_PASSWORD", metavar="WORD", help="The federation's [$BLOSSOM_PASSWORD].")
@click.option("--gateway-key", metavar="FINGERPRINT", help="Trust this gateway only.")
@click.option(
    "--wait", "patience_s", type=float, default=5.0, show_default=True, help="Seconds to look for the gateway."
)
@click.option("--log-file", type=click.Path(path_type=Path), metavar="FILE", help="Log every event to this file.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of its lines [text].")
@data_dir_option
def join(
    out: Output,
    profile_name: str,
    gateway: str | None,
    federation: str | None,
    mock: bool,
    replay: Path | None,
    labels: tuple[str, ...],
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
    """Take part in a federation until it is finished, or until Ctrl-C; a restart goes on where it was."""
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.client.store import Store
    from blossom_edge.console.logs import configure_logging
    from blossom_edge.core.names import check_name
    from blossom_edge.durable import make_folder
    from blossom_edge.sensors.labels import parse_labels
    from blossom_edge.sensors.recordings import read_recording
    from blossom_edge.sensors.sources import check_sources
    from blossom_edge.simulation.learner import Live

    level = "debug" if out.verbose else "error" if out.quiet else "warning"
    configure_logging(level, format=log_format, file=log_file, file_level="debug" if out.verbose else "info")
    if mock and replay is not None:
        raise ConfigError("usage", "--mock and --replay exclude each other", hint="leave one of them out")
    if labels and (mock or replay is not None):
        raise ConfigError("usage", "--label is for real sensors; --mock and --replay bring their own labels")
    label_values = parse_labels(labels)
    check_machine()
    profile = profile_of(profile_name, sets)
    if profile.compute.role != "train":
        raise ConfigError(
            "role-missing",
            f"{profile.id}: compute.role is {profile.compute.role!r}, this version can only train",
            hint="where torch fits: --set compute.role=train",
        )
    if replay is not None:
        read_recording(replay)  # what is wrong with it is said before anybody is called
    elif not mock:
        check_sources(profile)
    name = check_name("the device id", device or default_id(profile.id))
    root = edge_folder(data_dir)
    place = find_place(root, gateway, federation, password=password, patience_s=patience_s)
    make_folder(root)
    with ExitStack() as stack:
        store = Store(root, name)
        stack.callback(store.close)
        check_known_labels(label_values, store.known_federation(place.federation))
        live = None if mock or replay is not None else Live(store.folder, labels=label_values)
        learning |= {"mock": mock, "replay": replay, "live": live}
        agent = _make_agent(out, profile, place, store, gateway_key=gateway_key, **learning)
        stack.callback(lambda: agent.leave("join has ended"))
        stopping = stack.enter_context(_stop_signals())
        stop = agent.run(should_stop=lambda: bool(stopping))
        if stop.error is not None:
            raise stop.error
        if signal.SIGINT in stopping:
            raise KeyboardInterrupt
        out.line(f"{name}: {stop.reason}")


def check_known_labels(labels: Mapping[str, str], federation: Federation | None) -> None:
    """Hold `--label` against the federation as the last join knew it; nothing is known of a new one.

    Raises:
        ConfigError: `usage`.
    """
    from blossom_edge.sensors.labels import check_labels

    if federation is None:
        return
    try:
        check_labels(labels, federation)
    except ConfigError as error:
        hint = f"{error.hint + '; ' if error.hint else ''}if the gateway has new tasks, join without --label first"
        raise ConfigError(error.error_id, str(error), hint=hint) from error


def find_place(
    root: Path, gateway: str | None, federation: str | None, *, password: str | None, patience_s: float
) -> Place:
    """The gateway to join: the flag's; else `BLOSSOM_GATEWAY`, then that of the last successful join.

    Raises:
        LinkError: none is known, or none answers; every one that was tried is named.
        ConfigError: an address that is none.
    """
    from dataclasses import replace

    from blossom_edge.client.discovery import find_federation
    from blossom_edge.client.store import last_gateway
    from blossom_edge.transport.address import Address

    known = [("BLOSSOM_GATEWAY", os.environ.get("BLOSSOM_GATEWAY")), ("the last join", last_gateway(root))]
    candidates = [("--gateway", gateway)] if gateway is not None else known
    tried = []
    failed: LinkError | None = None
    for source, text in candidates:
        if not text:
            tried.append(f"{source}: not set")
            continue
        address = Address.parse(text)
        if password is not None:
            address = replace(address, username=address.username or "device", password=password)
        try:
            return Place(address, find_federation(address, name=federation, patience_s=patience_s))
        except LinkError as error:
            failed = error
            tried.append(f"{source}: {error}")
    if failed is None:
        raise LinkError(
            "gateway-unknown", f"no gateway is known ({'; '.join(tried)})", hint="name one with --gateway HOST:PORT"
        )
    hint = failed.hint or "is `blossom-aggregator serve` running there?"
    raise LinkError(failed.error_id, f"no gateway answers ({'; '.join(tried)})", hint=hint)


def check_machine(platform: str = sys.platform, *, bits: int = sys.maxsize.bit_length() + 1) -> None:
    """Refuse what cannot be a device: there are no packages for 32 bit, and no sensors as here outside Linux.

    Raises:
        ConfigError: `machine-unsupported`.
    """
    if platform.startswith("linux") and bits == 64:
        return
    if platform.startswith("linux"):
        found, hint = f"a {bits}-bit Python", "install the 64-bit system image: torch and onnxruntime exist for it only"
    else:
        found, hint = platform, "use Linux; on Windows the Linux inside WSL 2"
    raise ConfigError("machine-unsupported", f"found {found}, expected 64-bit Linux", hint=hint)


def default_id(profile: str) -> str:
    """Profile and six hex digits of the machine id: the same at every start, different on every board."""
    import hashlib
    import uuid

    try:
        machine = Path("/etc/machine-id").read_text("utf-8").strip()
    except OSError:
        machine = f"{uuid.getnode():x}"
    return f"{profile}-{hashlib.sha256(machine.encode()).hexdigest()[:6]}"


def _make_agent(
    out: Output,
    profile: Profile,
    place: Place,
    store: Any,
    *,
    gateway_key: str | None,
    **learning: Any,
) -> Agent:
    from blossom_edge.cli.screen import Screen
    from blossom_edge.client.actions import DeviceFacts
    from blossom_edge.client.agent import Agent
    from blossom_edge.client.governor import Governor
    from blossom_edge.client.session import Session
    from blossom_edge.client.will import make_will
    from blossom_edge.sensors.driver import Host
    from blossom_edge.simulation.learner import make_learner
    from blossom_edge.transport.malloc import tune_malloc
    from blossom_edge.transport.mqtt import MqttLink

    tune_malloc()
    learner = make_learner(profile, device_id=store.device, **learning)
    facts = DeviceFacts(
        device=store.device,
        boot=store.boot,
        key=store.key.public_hex,
        profile=profile.id,
        profile_digest=profile.digest,
        modalities=tuple(sorted(profile.modalities)),
        role=profile.compute.role,
        tasks=tuple(sorted(learning["tasks"])),
        software=f"blossom-edge {__version__}",
    )
    session = Session(facts, federation=store.known_federation(place.federation))
    link = MqttLink(
        place.address,
        client_id=f"{place.federation}-{store.device}",
        will=make_will(place.federation, facts, store.key),
        keepalive_s=profile.transport.keepalive_s,
    )
    return Agent(
        link,
        session,
        store,
        federation_name=place.federation,
        make_learner=learner,
        clock=time.monotonic,
        gateway_key=gateway_key,
        observe=Screen(out, str(place.address)),
        governor=Governor.of_board(Host.here().root, profile.limits, clock=time.monotonic),
        upload_kbps=profile.limits.upload_kbps,
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is not empty once SIGINT or SIGTERM came; a second one ends at once."""
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
