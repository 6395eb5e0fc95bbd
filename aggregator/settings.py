"""How a gateway is set up: folders, address, broker, logs. Never a secret, and nothing about what is learned.

`gateway.toml`, all keys optional:

    data_dir = "/var/lib/blossom-edge"
    listen = "127.0.0.1"
    port = 18830
    broker = "auto"            # auto, mosquitto, amqtt or mqtt://HOST:PORT
    insecure_lan = false
    retention_rounds = 20
    log_level = "info"
    log_format = "text"
    home_assistant = true      # show what devices publish of their predictions to Home Assistant
    home_assistant_prefix = "homeassistant"
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from blossom_edge.core.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EMBEDDED_BROKERS = ("auto", "mosquitto", "amqtt")
"""Brokers that the gateway runs itself; anything else is an address."""


class GatewaySettings(BaseModel):
    """The settings of one gateway."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path
    """Ledger, updates, versions, keys, port and password live here."""
    listen: str = "127.0.0.1"
    """The address that the embedded broker binds."""
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """None: the port kept in the data folder, else 18830; 0: some free one, which is then kept."""
    broker: str = "auto"
    """One of `EMBEDDED_BROKERS`, or `mqtt://[user:password@]host[:port]` (with a login only on the command line)."""
    insecure_lan: bool = False
    """Listen beyond this machine without a federation password."""
    retention_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """For how many rounds the updates of single devices are kept."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    home_assistant: bool = True
    """Mirror published predictions below `blossom/`, with discovery configs below the prefix."""
    home_assistant_prefix: Annotated[str, Field(max_length=64)] = "homeassistant"
    """Where Home Assistant looks for configs: its own setting "discovery prefix"."""

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value != "localhost":
            try:
                ipaddress.ip_address(value)
            except ValueError:
                raise ValueError(
                    f"{value!r} is no IP address: give 127.0.0.1, 0.0.0.0 or one of this machine"
                ) from None
        return value

    @field_validator("broker")
    @classmethod
    def _is_broker(cls, value: str) -> str:
        if value not in EMBEDDED_BROKERS and not _is_broker_address(value):
            raise ValueError(f"{_without_login(value)!r} is none of {', '.join(EMBEDDED_BROKERS)}, mqtt://HOST:PORT")
        return value

    @field_validator("home_assistant_prefix")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        levels = value.split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_-]+", level) for level in levels) or levels[0] in ("bl", "blossom"):
            raise ValueError(f"{value!r} is no prefix: letters, digits, _, - and /, and not below bl or blossom")
        return value

    @property
    def mirror_prefix(self) -> str:
        """The discovery prefix; empty when nothing is mirrored."""
        return self.home_assistant_prefix if self.home_assistant else ""

    @property
    def runs_broker(self) -> bool:
        """Whether the gateway runs the broker itself."""
        return self.broker in EMBEDDED_BROKERS

    @property
    def listens_here_only(self) -> bool:
        """Whether only processes of this machine reach the embedded broker."""
        return self.listen == "localhost" or ipaddress.ip_address(self.listen).is_loopback


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/blossom-edge/gateway`, with `~/.local/state` when the variable is not set."""
    state = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(state) / "blossom-edge" / "gateway"


def load_settings(
    file: Path | None, overrides: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> GatewaySettings:
    """The settings from `file` (TOML), with `overrides` (key to value, from flags; None is no override) on top.

    Paths in the file are relative to its folder. `environ` (default: the process's own) gives the default data folder.

    Raises:
        ConfigError: `settings-invalid`, with file or flag, key, what was found and what is possible.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    values = _read(file) if file is not None else {}
    default = default_data_dir(os.environ if environ is None else environ)
    try:
        settings = GatewaySettings.model_validate({"data_dir": default, **values, **given})
    except ValidationError as error:
        raise _config_error(error, file, given) from error
    data_dir = settings.data_dir.expanduser()
    if file is not None and "data_dir" not in given:
        data_dir = file.parent / data_dir
    return settings.model_copy(update={"data_dir": data_dir})


def _read(file: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("settings-invalid", f"{file}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigError("settings-invalid", f"{file}: not TOML: {error}") from error
    broker = values.get("broker")
    if isinstance(broker, str) and "@" in broker:
        raise ConfigError(
            "settings-invalid",
            f"{file}: broker: a login stands in the file, settings hold no secrets",
            hint="write mqtt://HOST:PORT in the file, or give the whole address with --broker",
        )
    return values


def _config_error(error: ValidationError, file: Path | None, given: Mapping[str, Any]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    name = str(first["loc"][0])
    where = f"--{name.replace('_', '-')}" if name in given or file is None else f"{file}: {key}"
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, GatewaySettings.model_fields, n=1)
        known = ", ".join(GatewaySettings.model_fields)
        hint = f"did you mean {close[0]}?" if close else f"the keys are {known}"
        return ConfigError("settings-invalid", f"{where}: there is no such setting", hint=hint)
    found = "" if first["type"] == "value_error" else f" (found {first['input']!r})"
    text = first["msg"].removeprefix("Value error, ")
    return ConfigError("settings-invalid", f"{where}: {text}{found}")


def _is_broker_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme == "mqtt" and bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/")
    except ValueError:  # a port that is no number
        return False


def _without_login(value: str) -> str:
    return value.rpartition("@")[2]
