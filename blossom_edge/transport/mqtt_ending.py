"""How a connection to a broker ended, in words for a person and as an error id."""

from __future__ import annotations

from dataclasses import dataclass

from paho.mqtt.reasoncodes import ReasonCode

_UNSUPPORTED_VERSION = 0x84
_LOGIN_REASONS = frozenset({0x86, 0x87})  # bad user name or password; not authorized


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one connection, or of an attempt.

    `accepted`: the broker had let us in; `version_refused`: it does not speak this version of MQTT.
    """

    reason: str
    error_id: str
    accepted: bool = False
    version_refused: bool = False


def unreachable(where: str, error: Exception) -> Ending:
    """Nobody answers there."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Ending(f"cannot reach {where}: {text}", "gateway-unreachable")


def refused(where: str, code: ReasonCode) -> Ending:
    """The broker said no; `code` is that of MQTT 5, into which paho turns those of 3.1.1."""
    error_id = "login-refused" if code.value in _LOGIN_REASONS else "gateway-unreachable"
    reason = f"{where} refused the connection: {str(code).lower()}"
    return Ending(reason, error_id, version_refused=code.value == _UNSUPPORTED_VERSION)
