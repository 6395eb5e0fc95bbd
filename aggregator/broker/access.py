"""Who may log in to an embedded broker with a password, and what each may do there; the same for both brokers."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

GATEWAY_USER = "gateway"
DEVICE_USER = "device"

DEVICE_WRITES = ("bl/1/+/up/#",)
DEVICE_READS = ("bl/1/+/down/#", "bl/1/+/cast/#", "bl/1/+/head")

_PBKDF2_ITERATIONS = 1000
"""mosquitto hashes in its only thread at each login: a thousand devices that come back must not stop it for seconds.
The passwords are random, so the count hardly matters."""


@dataclass(frozen=True, slots=True)
class Login:
    """The two logins of an embedded broker: the gateway's is made anew at each start, the devices' is the federation's.

    Without a device password everybody is let in and may do everything: only for a broker that this machine alone
    reaches, or one that somebody declared open.
    """

    device_password: str | None = field(default=None, repr=False)
    gateway_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def users(self) -> Mapping[str, str]:
        """Passwords by user; empty when everybody is let in."""
        if self.device_password is None:
            return {}
        return {GATEWAY_USER: self.gateway_password, DEVICE_USER: self.device_password}


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


def acl_file() -> bytes:
    """Mosquitto's access list: a device writes below `up/` only."""
    lines = [f"user {GATEWAY_USER}", "topic readwrite #", "", f"user {DEVICE_USER}"]
    lines += [f"topic write {topic}" for topic in DEVICE_WRITES]
    lines += [f"topic read {topic}" for topic in DEVICE_READS]
    return ("\n".join(lines) + "\n").encode()
