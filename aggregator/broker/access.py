"""Who may log in to an embedded broker with a password, and what each may do there; the same for both brokers."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

GATEWAY_USER = "gateway"
DEVICE_USER = "device"
VIEWER_USER = "viewer"
"""For Home Assistant and other programs that look on: reads what is mirrored, writes nothing."""

DEVICE_WRITES = ("bl/1/+/up/#",)
DEVICE_READS = ("bl/1/+/down/#", "bl/1/+/cast/#", "bl/1/+/head")
MIRRORED = "blossom/#"

_PBKDF2_ITERATIONS = 1000
"""mosquitto hashes in its only thread at each login: a thousand devices that come back must not stop it for seconds.
The passwords are random, so the count hardly matters."""


@dataclass(frozen=True, slots=True)
class Login:
    """The logins of an embedded broker: the gateway's is made anew at each start, the devices' is the federation's.

    Without a device password everybody is let in and may do everything: only for a broker that this machine alone
    reaches, or one that somebody declared open. With a viewer password there is a third login, which reads below
    `blossom/` and `viewer_prefix` and writes nothing.
    """

    device_password: str | None = field(default=None, repr=False)
    viewer_password: str | None = field(default=None, repr=False)
    viewer_prefix: str = ""
    gateway_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def users(self) -> Mapping[str, str]:
        """Passwords by user; empty when everybody is let in."""
        if self.device_password is None:
            return {}
        viewer = {} if self.viewer_password is None else {VIEWER_USER: self.viewer_password}
        return {GATEWAY_USER: self.gateway_password, DEVICE_USER: self.device_password, **viewer}

    def reads(self, user: str) -> tuple[str, ...]:
        """What a user may read, as filters."""
        prefix = (f"{self.viewer_prefix}/#",) if self.viewer_prefix else ()
        return {GATEWAY_USER: ("#",), DEVICE_USER: DEVICE_READS, VIEWER_USER: (MIRRORED, *prefix)}.get(user, ())

    def writes(self, user: str) -> tuple[str, ...]:
        """What a user may write, as filters."""
        return {GATEWAY_USER: ("#",), DEVICE_USER: DEVICE_WRITES}.get(user, ())


def password_file(users: Mapping[str, str]) -> bytes:
    """Mosquitto's password file: PBKDF2 with SHA-512, `user:$7$iterations$salt$hash`.

    Source: mosquitto 2.0, src/password_mosq.h and password_mosq.c.
    """
    lines = []
    for user, password in users.items():
        salt = secrets.token_bytes(12)
        digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _PBKDF2_ITERATIONS)
        salt_text, digest_text = (base64.b64encode(value).decode() for value in (salt, digest))
        lines.append(f"{user}:$7${_PBKDF2_ITERATIONS}${salt_text}${digest_text}\n")
    return "".join(lines).encode()


def acl_file(login: Login) -> bytes:
    """Mosquitto's access list: a device writes below `up/` only, a viewer nowhere."""
    lines = []
    for user in login.users:
        lines += [f"user {user}", *(f"topic write {topic}" for topic in login.writes(user))]
        lines += [*(f"topic read {topic}" for topic in login.reads(user)), ""]
    return "\n".join(lines).encode()
