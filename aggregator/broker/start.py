"""Start the broker of a gateway: mosquitto where it is installed, else amqtt; or use one that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

from aggregator.broker.access import GATEWAY_USER, Login
from aggregator.broker.mosquitto import Mosquitto, find_mosquitto
from aggregator.broker.ports import choose_port, keep_port, reachable_host, wait_until_free
from blossom_edge.core.errors import ConfigError
from blossom_edge.durable import make_folder
from blossom_edge.transport.address import Address

PORT_WAIT_S = 5.0


class _Server(Protocol):
    """What runs: a child process or a thread."""

    def text(self) -> str: ...

    def alive(self) -> bool: ...

    def stop(self) -> None: ...


class Broker:
    """A broker in use. `address` is for the aggregator and has its login; devices get host and port alone."""

    def __init__(self, kind: str, address: Address, *, server: _Server | None, why: str = "") -> None:
        self.kind = kind
        self.address = address
        self._server = server
        self._why = why

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.address.port

    @property
    def pid(self) -> int | None:
        """Of the broker's own process; None when it has none of ours."""
        return self._server.pid if isinstance(self._server, Mosquitto) else None

    def describe(self) -> str:
        """One line for the log."""
        what = self._server.text() if self._server else "another's, not started or watched by us"
        why = f"; {self._why}" if self._why else ""
        return f"broker at {self.address}: {what}{why}"

    def alive(self) -> bool:
        """Whether it still runs; of an external broker nothing is known, so True."""
        return self._server is None or self._server.alive()

    def stop(self) -> None:
        """End it, if it is ours. May be called twice."""
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_broker(
    kind: str,
    folder: Path,
    *,
    listen: str = "127.0.0.1",
    port: int | None = None,
    device_password: str | None = None,
    viewer_password: str | None = None,
    viewer_prefix: str = "",
    port_wait_s: float = PORT_WAIT_S,
) -> Broker:
    """Start a broker and return once it can be connected to.

    `kind` is `auto`, `mosquitto`, `amqtt` or the `mqtt://` address of one that runs. Its files stand in `folder`, the
    port too, for the next start: `port` is the one asked for (0: some free one), else the kept one, else 18830. With
    `device_password` only users `gateway` and `device` are let in, and a device writes below its `up/` topics alone;
    with `viewer_password` also `viewer`, who reads below `blossom/` and `viewer_prefix` and writes nothing. Without a
    device password everybody is let in, so `listen` should then be an address of this machine only. mosquitto ends
    with the thread that calls this.

    Raises:
        ConfigError: `package-missing`: no broker is installed; `settings-invalid`: no such kind or address.
        LinkError: `port-taken` after `port_wait_s`; `broker-failed`.
    """
    if "://" in kind:
        return Broker("external", Address.parse(kind), server=None)
    if kind not in ("auto", "mosquitto", "amqtt"):
        raise ConfigError("settings-invalid", f"no broker is called {kind!r}", hint="auto, mosquitto, amqtt, mqtt://..")
    program = find_mosquitto()
    if kind == "mosquitto" and program is None:
        raise ConfigError("package-missing", "mosquitto is not installed", hint="apt install mosquitto")
    make_folder(folder)
    number = choose_port(folder, port)
    wait_until_free(listen, number, wait_s=port_wait_s)
    login = Login(device_password, viewer_password, viewer_prefix)
    server: _Server
    if kind != "amqtt" and program is not None:
        server, name, why = Mosquitto(program, folder, listen=listen, port=number, login=login), "mosquitto", ""
    else:
        server, name = _start_amqtt(listen, number, login), "amqtt"
        why = "no mosquitto is installed" if program is None else ""
    keep_port(folder, number)
    host = reachable_host(listen)
    if login.users:
        return Broker(name, Address(host, number, GATEWAY_USER, login.gateway_password), server=server, why=why)
    return Broker(name, Address(host, number), server=server, why=why)


def _start_amqtt(listen: str, port: int, login: Login) -> _Server:
    try:
        from aggregator.broker.amqtt_server import AmqttServer
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("amqtt", "dacite", "pwdlib", "transitions", "websockets"):
            raise
        raise ConfigError(
            "package-missing",
            f"no broker is installed: neither mosquitto nor amqtt (missing: {error.name})",
            hint="apt install mosquitto, or pip install 'blossom-edge[gateway]'",
        ) from error
    return AmqttServer(listen=listen, port=port, login=login)
