"""Where a broker is, as a person writes it: `host`, `host:port` or `mqtt://user:password@host:port`."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from blossom_edge.core.errors import ConfigError

DEFAULT_PORT = 18830
"""The port of an embedded broker: free on most machines, unlike 1883."""

MQTT_PORT = 1883


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's host and port, and the login for it; never shows the password."""

    host: str
    port: int = DEFAULT_PORT
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host`, `host:port` (port 18830 unless said) or a `mqtt://` URL (port 1883 unless said).

        Raises:
            ConfigError: `settings-invalid`; the message never repeats a password.
        """
        has_scheme = "://" in text
        try:
            parts = urlsplit(text.strip() if has_scheme else f"//{text.strip()}")
            host, port = parts.hostname, parts.port
        except ValueError as error:  # a port that is no number or above 65535, an open bracket
            raise _invalid(text, str(error)) from None
        if has_scheme and parts.scheme != "mqtt":
            raise _invalid(text, f"the scheme is {parts.scheme}://, this version speaks mqtt:// only")
        if not host or not host.replace("_", "a").isprintable() or any(c in host for c in " ,;\\\"'"):
            raise _invalid(text, "no host name in it")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise _invalid(text, "nothing may follow the port")
        if port == 0:
            raise _invalid(text, "port 0 cannot be connected to")
        default = MQTT_PORT if has_scheme else DEFAULT_PORT
        return cls(host, port or default, unquote(parts.username or ""), unquote(parts.password or ""))

    def url(self) -> str:
        """The address with its login, as `parse` reads it: a secret when there is a password."""
        login = ""
        if self.username:
            login = quote(self.username, safe="")
            if self.password:
                login += ":" + quote(self.password, safe="")
            login += "@"
        return f"mqtt://{login}{self}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _invalid(text: str, why: str) -> ConfigError:
    shown = text.rsplit("@", 1)[-1]
    return ConfigError(
        "settings-invalid",
        f"{shown!r} is no broker address: {why}",
        hint="write host:port or mqtt://user:password@host:port",
    )
