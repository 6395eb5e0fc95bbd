"""Names that may stand in a topic, a file name and a ledger: one alphabet for all of them."""

from __future__ import annotations

import re
from typing import NewType

from blossom_edge.core.errors import ConfigError

DeviceId = NewType("DeviceId", str)
FederationId = NewType("FederationId", str)
Modality = NewType("Modality", str)
TaskName = NewType("TaskName", str)

NAME_PATTERN = r"^[a-z0-9][a-z0-9.-]{0,62}$"
"""Ids, federation names and block names: safe in MQTT topics, file names and ACLs."""

PLAIN_NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,30}$"
"""Task and modality names: no dot, because a block name joins two of them with one."""

_NAME = re.compile(NAME_PATTERN.rstrip("$") + r"\Z")


def is_name(text: str) -> bool:
    """Whether `text` is made of 1 to 63 of a-z, 0-9, dot and hyphen and starts with a letter or digit."""
    return _NAME.match(text) is not None


def check_name(what: str, text: str) -> str:
    """Return `text` if it is a name; `what` says in the error what it should name.

    Raises:
        ConfigError: it is not a name.
    """
    if not is_name(text):
        raise ConfigError(
            "bad-name",
            f"{what} {text!r} is not a name",
            hint="use 1 to 63 of a-z, 0-9, '.' and '-', starting with a letter or digit",
        )
    return text
