"""The port of an embedded broker: which one, whether it is free, and who holds it when not."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import time
from pathlib import Path

from blossom_edge.core.errors import LinkError
from blossom_edge.durable import atomic_write
from blossom_edge.transport.address import DEFAULT_PORT

PORT_FILE = "broker.port"
RETRY_S = 0.05


def choose_port(folder: Path, port: int | None) -> int:
    """The port asked for, else the one kept in `folder`, else 18830; 0 becomes some free port."""
    if port is not None:
        return port or _some_free_port()
    with contextlib.suppress(OSError, ValueError):
        kept = int((folder / PORT_FILE).read_text("ascii"))
        if 0 < kept < 65536:
            return kept
    return DEFAULT_PORT


def reachable_host(listen: str) -> str:
    """Where this machine's own programs reach what listens at `listen`."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(listen)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
    return listen


def keep_port(folder: Path, port: int) -> None:
    """Remember the port for the next start: the devices know it."""
    atomic_write(folder / PORT_FILE, f"{port}\n".encode(), name="port")


def wait_until_free(host: str, port: int, *, wait_s: float) -> None:
    """Return once the port can be bound; a predecessor that is just dying gets `wait_s` to let go of it.

    Raises:
        LinkError: `port-taken`, naming who holds it where that can be seen; `broker-failed` for no address of ours.
    """
    deadline = time.monotonic() + wait_s
    while not _is_free(host, port):
        if time.monotonic() > deadline:
            raise port_taken(port)
        time.sleep(RETRY_S)


def port_taken(port: int) -> LinkError:
    """The error for a port that stays taken."""
    holder = who_listens(port)
    held_by = f" by {holder[1]} (pid {holder[0]})" if holder else " by another program"
    return LinkError("port-taken", f"port {port} is taken{held_by}", hint="stop it, or choose another with --port N")


def who_listens(port: int) -> tuple[int, str] | None:
    """Process id and name of a listener on `port`; None where /proc does not tell (not Linux, not our process)."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return None
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for handle in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(handle) in sockets:
                        return int(folder.name), (folder / "comm").read_text().strip()
    return None


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(fields[9])
    return inodes


def _is_free(host: str, port: int) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen(1)
    except PermissionError as error:
        raise LinkError("broker-failed", f"no right to listen on port {port}", hint="use --port above 1023") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise LinkError(
            "broker-failed", f"cannot listen on {host}:{port}: {error.strerror or error}", hint="check --listen"
        ) from error
    return True


def _some_free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
