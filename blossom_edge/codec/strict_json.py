"""JSON from outside: no repeated keys, NaN, infinity, endless number or deep nesting. Callers bound its length."""

from __future__ import annotations

import json
import math
from typing import Any

from blossom_edge.core.errors import FrameError

MAX_DEPTH = 16
"""Deepest nesting taken; our deepest message (a federation in a welcome) has 7."""


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Read one JSON object from UTF-8; `what` names it in errors.

    Raises:
        FrameError: not UTF-8, not JSON, not an object, or one of the things this module refuses.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except RecursionError:
        raise FrameError(f"{what}: nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise FrameError(f"{what}: no valid JSON ({str(error)[:120]!r})") from None
    if not isinstance(value, dict):
        raise FrameError(f"{what}: a JSON {type(value).__name__}, not an object")
    _check_depth(value, what)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _short(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a number is too large")
    return int(text)


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            below.extend(
                child
                for child in (item.values() if isinstance(item, dict) else item)
                if isinstance(child, (dict, list))
            )
        if not below:
            return
        level = below
    raise FrameError(f"{what}: nested deeper than {MAX_DEPTH}")
