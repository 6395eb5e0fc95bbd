"""Rules of the federation file that were broken, said for a person: key, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from firmware_profiles.wording import did_you_mean, fields_at, found, what

__all__ = ["did_you_mean", "explain", "found", "key_text"]
_SHOWN = 4


def explain(error: ValidationError, model: type[BaseModel], values: Mapping[str, Any]) -> str:
    """All broken rules in one line, `key: what`; after the first few only their number."""
    lines: list[str] = []
    for row in error.errors(include_url=False):
        key = key_text(row["loc"])
        text = what(row, fields_at(model, row["loc"][:-1]))
        lines.append(f"{key}: {text}" if key else text)
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def key_text(location: Iterable[str | int]) -> str:
    """A place in the file as a person writes it: `modalities.accel.channels[0].unit`."""
    text = ""
    for part in location:
        if part == "[key]":
            continue
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (f'"{part}"' if "/" in part or "." in part else part)
    return text
