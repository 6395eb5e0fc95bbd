"""`blossom-aggregator serve`: the gateway as a process. Wires broker, link, ledger and round machine together."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aggregator.cli.control import data_dir_option
from blossom_edge.console.output import Output
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError, LinkError, StorageError

if TYPE_CHECKING:
    from aggregator.broker import Broker
    from aggregator.recovery import Truth
    from aggregator.rounds import Member
    from aggregator.service import Service
    from aggregator.settings import GatewaySettings
    from blossom_edge.federation.schema import Federation

STATUS_EVERY_S = 0.5
PREDICTIONS_EVERY_S = 2.0
"""Where nothing but predictions changed."""
PASSWORD_FILE = "device.password"  # noqa: S105 (a file name)
VIEWER_FILE = "viewer.password"


@command(
    "serve",
    example="blossom-aggregator serve --federation har\n"
    "blossom-aggregator serve --federation my.toml --set rounds.min_devices=3",
    log_level="info",
)
@click.option("--federation", "name", metavar="NAME", help="A preset or a file; default: the data folder's own.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the federation.")
@data_dir_option
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Gateway settings, gateway.toml.")
@click.option("--listen", metavar="ADDRESS", help="Address of the embedded broker [default: 127.0.0.1].")
@click.option("--port", type=int, metavar="PORT", help="Its port; 0: a free one [default: the kept one, else 18830].")
@click.option("--broker", metavar="KIND", help="auto, mosquitto, amqtt, or mqtt://HOST:PORT of another one.")
@click.option("--insecure-lan", is_flag=True, default=None, help="Listen beyond this machine without a password.")
@click.option("--log-file", type=click.Path(path_type=Path), metavar="FILE", help="Log to this file as well.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Form of the log lines.")
@click.option("--until-finished", is_flag=True, help="End when the federation is finished and its devices are done.")
def serve(
    out: Output,
    name: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    config: Path | None,
    log_file: Path | None,
    until_finished: bool,
    **flags: Any,
) -> None:
    """Run the gateway of a federation until it is stopped with Ctrl-C or SIGTERM; a restart goes on."""
    from aggregator.settings import load_settings
    from blossom_edge.console.logs import configure_logging
    from blossom_edge.durable import FolderLock, make_folder
    from blossom_edge.transport.malloc import tune_malloc

    settings = load_settings(config, {"data_dir": data_dir, **flags})
    level = "debug" if out.verbose else "error" if out.quiet else settings.log_level
    configure_logging(level, format=settings.log_format, file=log_file)
    tune_malloc()
    make_folder(settings.data_dir)
    with ExitStack() as stack:
        stack.enter_context(FolderLock.acquire(settings.data_dir, what="gateway"))
        federation = _federation(settings.data_dir, name, sets)
        truth, broker = _start(settings, federation, stack)
        _say_where(out, settings, federation, broker, truth)
        _serve(out, settings, truth, broker, stack, until_finished=until_finished)


def _federation(folder: Path, name: str | None, sets: tuple[str, ...]) -> Federation:
    """The federation asked for, else the one of the data folder."""
    from aggregator.recovery import kept_federation
    from blossom_edge.federation.load import load_federation

    if name is not None:
        return load_federation(name, sets=sets)
    kept = kept_federation(folder)
    if kept is None:
        raise ConfigError("usage", f"{folder} holds no federation yet", hint="name one with --federation, e.g. har")
    if sets:
        raise ConfigError("usage", "--set changes the federation, which this data folder has fixed already")
    return kept


def _start(settings: GatewaySettings, federation: Federation, stack: ExitStack) -> tuple[Truth, Broker]:
    from aggregator.broker import start_broker
    from aggregator.recovery import open_truth

    truth = open_truth(settings.data_dir, federation)
    stack.callback(truth.ledger.close)
    password = viewer = None
    if settings.runs_broker and not settings.listens_here_only and not settings.insecure_lan:
        password = _password(settings.data_dir / PASSWORD_FILE)
        viewer = _password(settings.data_dir / VIEWER_FILE) if settings.home_assistant else None
    broker = stack.enter_context(
        start_broker(
            settings.broker,
            settings.data_dir / "broker",
            listen=settings.listen,
            port=settings.port,
            device_password=password,
            viewer_password=viewer,
            viewer_prefix=settings.mirror_prefix,
        )
    )
    return truth, broker


def _password(path: Path) -> str:
    """A password for devices or for viewers, made at the first start that needs one."""
    from blossom_edge.durable import atomic_write

    if not path.exists():
        atomic_write(path, secrets.token_urlsafe(12).encode(), name="password")
    return path.read_text("utf-8")


def _say_where(out: Output, settings: GatewaySettings, federation: Federation, broker: Broker, truth: Truth) -> None:
    from aggregator.broker.access import VIEWER_USER

    out.line(f"federation {federation.name} ({federation.visibility}), digest {federation.digest[:12]}")
    out.line(broker.describe())
    if broker.kind == "amqtt":
        out.line("the broker runs inside the aggregator: they stop together")
    out.line(f"data folder {settings.data_dir}, gateway key {truth.key.fingerprint}")
    path = settings.data_dir / PASSWORD_FILE
    secret = f" --password {path.read_text('utf-8')}" if broker.address.password and path.exists() else ""
    host = "GATEWAY_ADDRESS" if not settings.listens_here_only else broker.address.host
    out.line(f"join with: blossom-edge join --profile PROFILE --gateway {host}:{broker.port}{secret}")
    viewer = settings.data_dir / VIEWER_FILE
    if settings.home_assistant and settings.runs_broker and broker.address.password and viewer.exists():
        login = f"broker {host}, port {broker.port}, user {VIEWER_USER}, password {viewer.read_text('utf-8')}"
        out.line(f"Home Assistant, or who else may see published predictions: {login}")
    if settings.runs_broker and not settings.listens_here_only and not broker.address.password:
        out.warn(f"the broker listens on {settings.listen} without a password: whoever reaches it can join and listen")
    if federation.rounds.min_cohort <= 1:
        out.note("min_cohort is 1: of a block that one device owns, the gateway sees that device's update alone")


def _serve(
    out: Output, settings: GatewaySettings, truth: Truth, broker: Broker, stack: ExitStack, *, until_finished: bool
) -> None:
    from aggregator.cli.commands import Commands
    from aggregator.home_assistant import gateway_will
    from aggregator.schedule import Gate
    from aggregator.service import Service
    from blossom_edge.transport.mqtt import MqttLink

    client_id = f"gateway-{truth.key.public_hex[:12]}"
    will = gateway_will(truth.machine.federation.name) if settings.home_assistant else None
    link = MqttLink(broker.address, client_id=client_id, keepalive_s=15, will=will)
    stack.callback(link.close)
    schedule = truth.machine.federation.schedule
    gate = Gate(schedule, local_time=_local_time, round_number=truth.machine.state.round)
    commands = Commands(settings.data_dir)

    def may_open(round_number: int) -> bool:
        return not commands.waiting and gate(round_number)

    service = Service(
        truth,
        link,
        clock=time.monotonic,
        may_open=may_open,
        retention_rounds=settings.retention_rounds,
        mirror_prefix=settings.mirror_prefix,
    )
    stopping = stack.enter_context(_stop_signals())
    status = _StatusFile(settings, broker, out)
    try:
        while not stopping and not (until_finished and _is_over(service)):
            due = service.next_due()
            wait = 0.25 if due is None else min(max(due - time.monotonic(), 0.0), 0.25)
            service.step(wait)
            commands.carry_out(service)
            status.write(service)
            if not broker.alive():
                raise LinkError("broker-failed", "the embedded broker has died", hint=f"see {settings.data_dir}/broker")
    finally:
        service.goodbye()
        status.write(service, last=True)


def _local_time() -> datetime:
    return datetime.now(timezone.utc).astimezone()


def _is_over(service: Service) -> bool:
    """Finished, and every device is gone, or has no part in rounds and has used and judged the last versions."""
    state = service.machine.state

    def is_awaited(member: Member) -> bool:
        return member.online and (member.role == "train" or member.evaluated <= state.round)

    return service.out.running_word() == "finished" and not any(map(is_awaited, state.members.values()))


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is not empty once SIGTERM or SIGINT came: the loop ends between two events."""
    received: list[int] = []
    old = {number: signal.signal(number, lambda n, _: received.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _essence(found: dict[str, Any]) -> dict[str, Any]:
    """A state without what each prediction changes: a gateway's disk is not there for every window of everybody."""
    often = ("predictions", "bytes_up", "bytes_down")
    devices = [{k: v for k, v in d.items() if k not in often or not d["predictions"]} for d in found.get("devices", ())]
    return {**found, "devices": devices}


class _StatusFile:
    """Writes `status.json` when something changed, at most every half second; says new warnings, once each."""

    def __init__(self, settings: GatewaySettings, broker: Broker, out: Output) -> None:
        from aggregator.status import STATUS_FILE

        self._path = settings.data_dir / STATUS_FILE
        self._broker = broker
        self._out = out
        self._warned: set[str] = set()
        self._written_at = float("-inf")
        self._last: dict[str, Any] = {}
        self._calm_until = float("-inf")

    def write(self, service: Service, *, last: bool = False) -> None:
        from aggregator.status import snapshot
        from blossom_edge.durable import atomic_write

        now = time.monotonic()
        if not last and now - self._written_at < STATUS_EVERY_S:
            return
        self._written_at = now
        found = snapshot(service, now)
        same = {**found, "deadline_in_s": None}
        if not last and (same == self._last or (_essence(same) == _essence(self._last) and now < self._calm_until)):
            return
        self._last, self._calm_until = same, now + PREDICTIONS_EVERY_S
        if last:
            found["devices"] = [{**device, "predictions": []} for device in found["devices"]]
        for warning in found["warnings"] if found["round"] else ():  # before the first round devices are still coming
            if warning not in self._warned:
                self._warned.add(warning)
                self._out.warn(warning)
        found.update(
            running_here=not last,
            written_s=now,  # `deadline_in_s` is that of this moment of the machine's monotonic clock
            pid=os.getpid(),
            address=str(self._broker.address),
            broker=self._broker.describe(),
            updated=_local_time().isoformat(timespec="seconds"),
        )
        try:
            atomic_write(self._path, json.dumps(found, indent=1).encode(), name="status")
        except StorageError:
            if not last:
                raise
