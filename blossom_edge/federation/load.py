"""Federation files: found by name or path, changed by `--set`, read and checked. The presets are package data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.problems import did_you_mean
from blossom_edge.federation.schema import Federation

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_BYTES = 1 << 20
_PRESETS = Path(__file__).parent / "presets"


def load_federation(name_or_path: str, *, sets: Sequence[str] = ()) -> Federation:
    """Read a federation: the name of a preset, or a path (it ends with `.toml` or contains a slash).

    Each of `sets` is `a.b=value` with a TOML value or a bare word; it replaces that key before the check.

    Raises:
        ConfigError: `federation-not-found`, or `federation-invalid` as `file: key: what, found, expected`.
    """
    is_path = name_or_path.endswith(".toml") or "/" in name_or_path
    source = name_or_path if is_path else f"{name_or_path}.toml"
    place = Path(name_or_path) if is_path else _preset(name_or_path)
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            "federation-not-found", f"{source}: no such file", hint=f"presets are {', '.join(_names())}"
        ) from None
    except OSError as error:
        raise ConfigError("federation-not-found", f"{source}: {error.strerror or error}") from None
    values = _parse(data, source)
    for text in sets:
        _set(values, text)
    return Federation.from_dict(values, source=source)


def list_federations() -> list[tuple[str, str]]:
    """The presets, name and title, sorted by name."""
    return [(name, load_federation(name).title) for name in _names()]


def _names() -> list[str]:
    return sorted(file.stem for file in _PRESETS.glob("*.toml"))


def _preset(name: str) -> Path:
    names = _names()
    if name not in names:
        raise ConfigError(
            "federation-not-found",
            f"no federation {name!r}{did_you_mean(name, names)}",
            hint=f"presets are {', '.join(names)}; a file of yours is given as a path",
        )
    return _PRESETS / f"{name}.toml"


def _parse(data: bytes, source: str) -> dict[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError("federation-invalid", f"{source}: found {len(data)} bytes, expected at most {MAX_FILE_BYTES}")
    try:
        values: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError("federation-invalid", f"{source}: byte {error.start} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("federation-invalid", f"{source}: not TOML: {error}") from None
    return values


def _set(values: dict[str, Any], text: str) -> None:
    """Apply one `a.b=value`; parts with dots are quoted: `blocks."fusion/har.accel".visibility=shared`."""
    key, equals, value = text.partition("=")
    parts = _key_parts(key.strip())
    if not equals or not all(parts):
        raise ConfigError(
            "federation-invalid", f"--set {text}: found no key=value, expected one such as training.lr=0.1"
        )
    table = values
    for depth, part in enumerate(parts[:-1]):
        below = table.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError("federation-invalid", f"--set {text}: {'.'.join(parts[: depth + 1])} is no table")
        table = below
    table[parts[-1]] = _value(value.strip())


def _key_parts(key: str) -> list[str]:
    """`a."b.c".d` -> a, b.c, d."""
    parts = [""]
    quoted = False
    for character in key:
        if character == '"':
            quoted = not quoted
        elif character == "." and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts if not quoted else [""]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
