"""What pydantic finds wrong, said for a person: what was found, what was expected. Knows no format of ours."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

_SHOWN_CHARACTERS = 60
_STARTS = ("Input should be ", "String should ", "Value should ", "Tuple should ", "Dictionary should ")
_KINDS = {
    "model_type": "a table",
    "dict_type": "a table",
    "mapping_type": "a table",
    "tuple_type": "a list",
    "list_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
_PATTERNS = {
    r"^[a-z0-9][a-z0-9.-]{0,62}$": "1 to 63 of a-z, 0-9, '.' and '-'",
    r"^[a-z0-9][a-z0-9-]{0,30}$": "1 to 31 of a-z, 0-9 and '-'",
    r"^(([01]\d|2[0-3]):[0-5]\d)?$": "a time as HH:MM",
    r"^(([01]?\d|2[0-3])-([01]?\d|2[0-4]))?$": "two hours as 22-6",
    r"^/": "a path that starts with /",
    r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*$": "a class such as adafruit_mpu6050.MPU6050",
    r"^([A-Za-z_][\w.]*)(?:\[(\d+)\])?$": "an attribute such as acceleration[0]",
    r"^([A-Z0-9]{4})?$": "four capital letters or digits such as MJPG",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def found(value: object) -> str:
    """A value as it stands in the file, cut to a short length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def what(row: Any, known: Iterable[str] = ()) -> str:
    """One row of `ValidationError.errors`. known: the keys of the table in which it stands, for a suggestion."""
    kind, given = row["type"], row["input"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(row['loc'][-1]), known)}"
    if kind == "value_error":
        return str(row["ctx"]["error"])
    near = ""
    if kind == "literal_error" and isinstance(given, str):
        words = str(row["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        near = did_you_mean(given, words)
    return f"found {found(given)}{near}, expected {expected(row)}"


def expected(row: Any) -> str:
    """What one row of `ValidationError.errors` wants instead."""
    kind, ctx = row["type"], row.get("ctx", {})
    if kind == "literal_error":
        return str(ctx["expected"])
    if kind in _KINDS:
        return _KINDS[kind]
    message = str(row["msg"])
    for start in _STARTS:
        message = message.removeprefix(start)
    message = message.replace("have at", "at").replace(" after validation", "")
    return _PATTERNS.get(str(ctx.get("pattern", "")), message)


def fields_at(model: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """The keys that are known at a place of the model, for a suggestion."""
    fields: type[BaseModel] | None = model
    for part in location:
        if fields is None:
            return []
        by_name = {f.alias or n: f for n, f in fields.model_fields.items()}
        if isinstance(part, str) and part in by_name:
            fields = _model_in(by_name[part].annotation)
    return [f.alias or n for n, f in fields.model_fields.items()] if fields else []


def option_faults(rows: Sequence[Any], values: Mapping[str, Any], known: Sequence[str]) -> list[tuple[str, str]]:
    """(key, what) for each wrong value of a flat table; what two ways of a union want becomes one line.

    The key `address` is shown as it is written of buses: in hexadecimal.
    """
    by_key: dict[str, list[Any]] = {}
    for row in rows:
        by_key.setdefault(_key(row, values), []).append(row)
    lines: list[tuple[str, str]] = []
    for key, same in by_key.items():
        text = what(same[0], known)
        if len(same) > 1:
            text = f"found {found(same[0]['input'])}, expected " + " or ".join(dict.fromkeys(map(expected, same)))
        lines.append((key, re.sub(r"\b\d+\b", lambda number: hex(int(number[0])), text) if key == "address" else text))
    return lines


def _key(row: Any, values: Mapping[str, Any]) -> str:
    """Where it stands, without the names that pydantic gives the ways of a union."""
    text = ""
    at: Any = values
    for part in row["loc"]:
        if isinstance(at, Mapping) and part in at:
            text, at = f"{text}.{part}" if text else str(part), at[part]
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            text, at = f"{text}[{part}]", at[part]
    last = str(row["loc"][-1]) if row["loc"] else ""
    return (f"{text}.{last}" if text else last) if row["type"] == "missing" else text


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in an annotation such as `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _model_in(a)) is not None), None)
