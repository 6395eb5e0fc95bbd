"""Rules of the federation file that were broken, said for a person: key, what was found, what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_SHOWN = 4


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def explain(error: ValidationError, model: type[BaseModel], values: Mapping[str, Any]) -> str:
    """All broken rules in one line, `key: what`; after the first few only their number."""
    lines: list[str] = []
    for row in error.errors(include_url=False):
        key = key_text(row["loc"])
        text = _what(row, model)
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


def found(value: object) -> str:
    """A value as it stands in the file, cut to a short length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _what(row: Any, model: type[BaseModel]) -> str:
    kind, location, given = row["type"], row["loc"], row["input"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(location[-1]), _fields_at(model, location[:-1]))}"
    if kind == "value_error":
        return str(row["ctx"]["error"])
    if kind == "literal_error":
        expected = str(row["ctx"]["expected"])
        words = expected.replace("'", "").replace(" or ", ", ").split(", ")
        near = did_you_mean(given, words) if isinstance(given, str) else ""
        return f"found {found(given)}{near}, expected {expected}"
    message = str(row["msg"])
    for start in ("Input should be ", "String should ", "Value should ", "Tuple should ", "Dictionary should "):
        message = message.removeprefix(start)
    message = message.replace("have at", "at").replace(" after validation", "")
    if kind == "model_type" or kind == "dict_type":
        message = "a table"
    return f"found {found(given)}, expected {_PATTERNS.get(str(row.get('ctx', {}).get('pattern', '')), message)}"


_PATTERNS = {
    r"^[a-z0-9][a-z0-9.-]{0,62}$": "1 to 63 of a-z, 0-9, '.' and '-'",
    r"^[a-z0-9][a-z0-9-]{0,30}$": "1 to 31 of a-z, 0-9 and '-'",
    r"^(([01]\d|2[0-3]):[0-5]\d)?$": "a time as HH:MM",
    r"^(([01]?\d|2[0-3])-([01]?\d|2[0-4]))?$": "two hours as 22-6",
}


def _fields_at(model: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """The keys that are known at a place of the model, for a suggestion."""
    fields: type[BaseModel] | None = model
    for part in location:
        if fields is None:
            return []
        by_name = {f.alias or n: f for n, f in fields.model_fields.items()}
        if isinstance(part, str) and part in by_name:
            fields = _model_in(by_name[part].annotation)
    return [f.alias or n for n, f in fields.model_fields.items()] if fields else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in an annotation such as `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _model_in(a)) is not None), None)
