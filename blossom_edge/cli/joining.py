"""What `join` and `infer` share: their options, the gateway to find, the agent to make. Runs nothing."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from blossom_edge import __version__
from blossom_edge.console.output import Output
from blossom_edge.core.errors import BlossomError, ConfigError, LinkError

if TYPE_CHECKING:
    from blossom_edge.client.agent import Agent
    from blossom_edge.core.prediction import Prediction
    from blossom_edge.federation.schema import Federation
    from blossom_edge.transport.address import Address
    from firmware_profiles import Profile

Function = TypeVar("Function", bound=Callable[..., Any])


def label_count(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a number of labels per class; `all` is None."""
    if value is None or value == "all":
        return None
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number from 1 on nor 'all'", ctx, param)
    return int(value)


OPTIONS = (
    click.option("--federation", metavar="NAME", help="Which one, if there are several."),
    click.option("--mock", is_flag=True, help="Simulate the sensors of the profile."),
    click.option("--replay", type=click.Path(path_type=Path), metavar="PATH", help="Replay one person's recordings."),
    click.option(
        "--speed", type=float, metavar="X", help="Pace of --mock and --replay; 0: at once [--mock and infer: 1]."
    ),
    click.option("--label", "labels", multiple=True, metavar="TASK=CLASS", help="What is going on, for real sensors."),
    click.option(
        "--labels-per-class", callback=label_count, metavar="N|all", help="Use so few labelled windows [all]."
    ),
    click.option("--holdout", type=float, metavar="PART", help="Part of the windows kept for the own score [0.3]."),
    click.option("--task", "tasks", multiple=True, metavar="NAME", help="Serve this task only."),
    click.option("--id", "device", metavar="ID", help="Name of this device [profile and a part of the machine id]."),
    click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the profile."),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Of simulated sensors and the choice of labels."
    ),
    click.option(
        "--publish", is_flag=True, help="Roles infer, personalize: predictions go to the gateway, for Home Assistant."
    ),
    click.option("--password", envvar="BLOSSOM_PASSWORD", metavar="WORD", help="The federation's [$BLOSSOM_PASSWORD]."),
    click.option("--gateway-key", metavar="FINGERPRINT", help="Trust this gateway only."),
    click.option(
        "--wait", "patience_s", type=float, default=5.0, show_default=True, help="Seconds to look for the gateway."
    ),
    click.option("--log-file", type=click.Path(path_type=Path), metavar="FILE", help="Log every event to this file."),
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of its lines [text]."),
)


def member_options(function: Function) -> Function:
    """The options of a command that takes part in a federation, behind its own."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class Place:
    """Where to join: address, federation, and the login that the broker wants."""

    address: Address
    federation: str


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


def check_sensing(profile: Profile, *, mock: bool, replay: Path | None, labels: tuple[str, ...]) -> dict[str, str]:
    """Hold what windows are to come from against each other and the profile; returns `--label` as task -> class.

    Raises:
        ConfigError: `usage`, and what is wrong with the recording or the profile's sources.
    """
    from blossom_edge.sensors.labels import parse_labels
    from blossom_edge.sensors.recordings import read_recording
    from blossom_edge.sensors.sources import check_sources

    if mock and replay is not None:
        raise ConfigError("usage", "--mock and --replay exclude each other", hint="leave one of them out")
    if labels and (mock or replay is not None):
        raise ConfigError("usage", "--label is for real sensors; --mock and --replay bring their own labels")
    values = parse_labels(labels)
    if replay is not None:
        read_recording(replay)  # what is wrong with it is said before anybody is called
    elif not mock:
        check_sources(profile)
    return values


def check_packages(profile: Profile) -> None:
    """Whether what computes is installed: said before the gateway hears of this device.

    Raises:
        BlossomError: `package-missing`; ConfigError: `runtime-too-old`.
    """
    if profile.compute.role != "train":
        from blossom_edge.inference.runtime import load_onnxruntime

        load_onnxruntime()
    elif importlib.util.find_spec("torch") is None:
        raise BlossomError(
            "package-missing",
            "this needs the package torch, which is not installed",
            hint="pip install 'blossom-edge[torch]'; a board without it: --set compute.role=personalize",
        )


def check_publishing(profile: Profile, publish: bool) -> None:
    """Only a device that predicts can publish predictions.

    Raises:
        ConfigError: `usage`.
    """
    if publish and profile.compute.role == "train":
        hint = "leave it out, or --set compute.role=infer"
        raise ConfigError("usage", f"--publish: {profile.id} has compute.role train, which predicts nothing", hint=hint)


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


def make_agent(
    out: Output,
    profile: Profile,
    place: Place,
    store: Any,
    *,
    gateway_key: str | None,
    publish: bool = False,
    stays: bool = False,
    on_prediction: Callable[[Prediction], None] = lambda prediction: None,
    **learning: Any,
) -> Agent:
    """The agent of this device, not yet running; `learning` is what `make_learner` takes beside the profile.

    stays: it goes on when the federation is finished. publish: predictions go to the gateway.
    """
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
    session = Session(facts, federation=store.known_federation(place.federation), stays=stays)
    link = MqttLink(
        place.address,
        # with the key in it: another device under the same id is refused, and does not throw this one out before
        client_id=f"{place.federation}-{store.device}-{store.key.public_hex[:8]}",
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
        observe=Screen(out, str(place.address), publishes=publish),
        governor=Governor.of_board(Host.here().root, profile.limits, clock=time.monotonic),
        upload_kbps=profile.limits.upload_kbps,
        publish=publish,
        on_prediction=on_prediction,
    )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
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
