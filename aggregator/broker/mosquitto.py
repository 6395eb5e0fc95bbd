"""mosquitto as a child process: dies with us, keeps nothing, takes no larger message than we send."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from aggregator.broker.access import Login, acl_file, password_file
from aggregator.broker.ports import RETRY_S, port_taken, reachable_host, who_listens
from blossom_edge.console.processes import ending_with_us
from blossom_edge.core.errors import LinkError
from blossom_edge.durable import atomic_write, open_child_log
from blossom_edge.transport.link import MAX_PAYLOAD_BYTES

MAX_PACKET_BYTES = MAX_PAYLOAD_BYTES + 16 * 1024
"""Never below what a link sends: an oversized packet ends the connection, the link refuses it before."""
MAX_QUEUED_MESSAGES = 10_000
MAX_QUEUED_BYTES = 256 * 1024 * 1024
"""Per client that is slow; the first of the two limits counts. What is above is dropped, and sent again by us."""
MAX_INFLIGHT_MESSAGES = 20
STOP_S = 5.0

CONFIG_FILE = "mosquitto.conf"
LOG_FILE = "mosquitto.log"
PID_FILE = "mosquitto.pid"


def find_mosquitto() -> str | None:
    """The program's path; also looks where Debian puts it, which is not on every user's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    return shutil.which("mosquitto", path=path)


class Mosquitto:
    """A running mosquitto. Start it from a thread that lives on: it ends with the thread that started it."""

    kind = "mosquitto"

    def __init__(self, program: str, folder: Path, *, listen: str, port: int, login: Login) -> None:
        """Write its configuration into `folder`, start it and wait until it listens.

        Raises:
            LinkError: `port-taken`; `broker-failed`, with the last line of its log.
            StorageError: the folder cannot be written.
        """
        self.log_file = folder / LOG_FILE
        config = folder / CONFIG_FILE
        if login.users:
            atomic_write(folder / "mosquitto.passwords", password_file(login.users), name="broker")
            atomic_write(folder / "mosquitto.acl", acl_file(login), name="broker")
        atomic_write(config, _config(folder, listen=listen, port=port, locked=bool(login.users)), name="broker")
        command = ending_with_us([program, "-c", str(config)])
        with open_child_log(self.log_file) as output:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )  # a session of its own: Ctrl-C is for us, so that we can say goodbye
        try:
            self._wait_until_it_listens(reachable_host(listen), port)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def text(self) -> str:
        """What it is, for the log."""
        return f"mosquitto (pid {self.pid}, log in {self.log_file})"

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child.poll() is None

    def stop(self) -> None:
        """End it and wait for that."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _wait_until_it_listens(self, host: str, port: int) -> None:
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                break
            try:
                socket.create_connection((host, port), timeout=1).close()
            except OSError:
                time.sleep(RETRY_S)
                continue
            holder = who_listens(port)
            if holder is None or holder[0] == self.pid:
                return
            time.sleep(RETRY_S)  # somebody else took the port: ours is about to end
        tail = self._last_words()
        if re.search("address already in use", tail, re.IGNORECASE):
            raise port_taken(port)
        raise LinkError("broker-failed", f"mosquitto did not start: {tail or 'no word from it'}", hint=self._hint())

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or [""])[-1]

    def _hint(self) -> str:
        return f"see {self.log_file}, or use --broker amqtt"


def _config(folder: Path, *, listen: str, port: int, locked: bool) -> bytes:
    lines = [
        "# written at each start; changes are lost",
        f"listener {port} {listen}",
        f"pid_file {folder.absolute() / PID_FILE}",
        "persistence false",
        f"allow_anonymous {'false' if locked else 'true'}",
        f"max_packet_size {MAX_PACKET_BYTES}",
        f"max_queued_messages {MAX_QUEUED_MESSAGES}",
        f"max_queued_bytes {MAX_QUEUED_BYTES}",
        f"max_inflight_messages {MAX_INFLIGHT_MESSAGES}",
        "set_tcp_nodelay true",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
    ]
    if locked:
        lines.append(f"password_file {folder.absolute() / 'mosquitto.passwords'}")
        lines.append(f"acl_file {folder.absolute() / 'mosquitto.acl'}")
    if os.geteuid() == 0:  # else it gives up root for a user who may not read our folder
        lines.append(f"user {pwd.getpwuid(0).pw_name}")
    return ("\n".join(lines) + "\n").encode()
