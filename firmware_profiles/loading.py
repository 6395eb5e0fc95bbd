"""Finds profiles, merges parents and `--set`, and says in one line per fault which file and key to mend."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from firmware_profiles.schema import UNITS, KeyPath, Profile, contradictions
from firmware_profiles.wording import what

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_OWN_KEYS = ("id", "extends", "abstract", "tier")
"""Keys that say what a file is; a child does not inherit them."""

CHECK_AGAIN = "`blossom-edge profiles validate FILE` checks it again"
"""The next step after a fault that names itself."""


class ProfileError(ValueError):
    """A profile cannot be used. `problems` has one line per fault; `error_id` is that of our errors."""

    def __init__(self, error_id: str, problems: Sequence[str], *, hint: str = "") -> None:
        super().__init__("; ".join(problems))
        self.error_id = error_id
        self.problems = tuple(problems)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ProfileEntry:
    """One line of the list of profiles. problem: empty for one that can be used. tier: empty for one's own."""

    id: str
    title: str
    path: Path
    problem: str = ""
    tier: str = ""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One file of a chain of parents, or what --set gave, with a name for errors."""

    where: str
    values: dict[str, Any]


def profile_folders(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> tuple[Path, ...]:
    """Where profiles are looked for, first match wins: ./profiles, the user's configuration, the shipped ones."""
    env = os.environ if environ is None else environ
    config = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".config")
    shipped = Path(__file__).resolve().parent
    return ((cwd or Path.cwd()) / "profiles", Path(config) / "blossom-edge" / "profiles", shipped)


def load_profile(name_or_path: str, *, sets: Sequence[str] = (), folders: Sequence[Path] | None = None) -> Profile:
    """Load a profile by name, or by path (with a slash or ending in .toml), with `sets` of KEY=VALUE on top.

    Raises:
        ProfileError: `profile-not-found`, or `profile-invalid` with every fault found, each with file and key.
    """
    where = profile_folders() if folders is None else tuple(folders)
    return _resolve([_layer_of_sets(sets), *_chain(name_or_path, where)])


def check_profile_text(text: str, *, name: str, folders: Sequence[Path] | None = None) -> Profile:
    """What `load_profile` would give if `text` stood in `name`.toml in the first of `folders`. Writes nothing.

    Raises:
        ProfileError: `profile-invalid`.
    """
    where = profile_folders() if folders is None else tuple(folders)
    file = where[0] / f"{name}.toml"
    return _resolve([_layer_of_sets(()), *_chain_from(file, _parse(text, file), where)])


def _resolve(layers: Sequence[_Layer]) -> Profile:
    """The profile of `layers`: --set first, then the file and its parents."""
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values = _merge(values, layer.values)
    own = layers[1].values
    values = {key: value for key, value in values.items() if key not in _OWN_KEYS}
    values |= {key: own[key] for key in ("id", "extends", "tier") if key in own}
    if own.get("abstract"):
        raise ProfileError(
            "profile-invalid",
            [f"{layers[1].where}: abstract: this profile only serves as a parent"],
            hint="name a profile that extends it",
        )
    return _validate(values, layers)


def list_profiles(folders: Sequence[Path] | None = None) -> list[ProfileEntry]:
    """All profiles by name, those that shadow others only once; abstract ones are left out, faulty ones are marked."""
    where = profile_folders() if folders is None else tuple(folders)
    entries: dict[str, ProfileEntry] = {}
    for file in _files(where):
        try:
            raw = _read(file)
            if raw.get("abstract"):
                continue
            profile = load_profile(str(file), folders=where)
            entry = ProfileEntry(profile.id, profile.title, file, tier=profile.tier or "")
        except ProfileError as error:
            entry = ProfileEntry(file.stem, "", file, str(error))
        entries.setdefault(file.stem, entry)
    return [entries[name] for name in sorted(entries)]


def is_toml_value(text: str) -> bool:
    """Whether `text` is one value of TOML; a bare word is none."""
    try:
        return list(tomllib.loads(f"value = {text}")) == ["value"]
    except tomllib.TOMLDecodeError:
        return False


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from sorted(folder.glob("*.toml"))


def _is_abstract(file: Path) -> bool:
    try:
        return bool(_read(file).get("abstract"))
    except ProfileError:
        return False


def _find(name_or_path: str, folders: Sequence[Path], *, parents: bool = False) -> Path:
    """The file. parents: whether those that only serve as a parent are offered in the error."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return path
        raise ProfileError(
            "profile-not-found", [f"there is no file {name_or_path}"], hint="`blossom-edge profiles list` shows all"
        )
    for folder in folders:
        if (folder / f"{name_or_path}.toml").is_file():
            return folder / f"{name_or_path}.toml"
    have = sorted({file.stem for file in _files(folders) if parents or not _is_abstract(file)})
    raise ProfileError(
        "profile-not-found", [f"there is no profile {name_or_path!r}"], hint=_suggestion(name_or_path, have)
    )


def _suggestion(word: str, have: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, have, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(have) or 'none'}"


def _read(file: Path) -> dict[str, Any]:
    try:
        return _parse(file.read_text("utf-8"), file)
    except OSError as error:
        raise ProfileError("profile-invalid", [f"{file}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ProfileError("profile-invalid", [f"{file}: is not UTF-8 text"]) from error


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError("profile-invalid", [f"{file}: is no TOML: {error}"]) from error
    return values


def _chain(name_or_path: str, folders: Sequence[Path]) -> list[_Layer]:
    """The file and its parents, child first."""
    file = _find(name_or_path, folders)
    return _chain_from(file, _read(file), folders)


def _chain_from(file: Path, values: dict[str, Any], folders: Sequence[Path]) -> list[_Layer]:
    """The same for a file that has been read."""
    layers: list[_Layer] = []
    seen: list[Path] = []
    while True:
        stated = values.get("id", file.stem)
        if stated != file.stem:
            raise ProfileError("profile-invalid", [f"{file}: id: found {stated!r}, expected the file's name"])
        layers.append(_Layer(str(file), values | {"id": file.stem}))
        seen.append(file)
        parent = values.get("extends")
        if parent is None:
            return layers
        file = _find_parent(parent, file, folders)
        if file.resolve() in (f.resolve() for f in seen):
            names = " -> ".join(f.stem for f in (*seen, file))
            raise ProfileError("profile-invalid", [f"{seen[0]}: extends: profiles extend each other: {names}"])
        values = _read(file)


def _find_parent(parent: object, file: Path, folders: Sequence[Path]) -> Path:
    if not isinstance(parent, str):
        raise ProfileError("profile-invalid", [f"{file}: extends: found {parent!r}, expected one name as text"])
    is_path = "/" in parent or parent.endswith(".toml")
    try:
        return _find(str(file.parent / parent) if is_path else parent, (file.parent, *folders), parents=True)
    except ProfileError as error:
        raise ProfileError("profile-invalid", [f"{file}: extends: {error}"], hint=error.hint) from error


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge, arrays and scalars of `above` replace."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merge(old if isinstance(old, dict) else {}, value) if isinstance(value, Mapping) else value
    return result


def _layer_of_sets(sets: Sequence[str]) -> _Layer:
    result: dict[str, Any] = {}
    for text in sets:
        key, equals, raw = text.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise ProfileError(
                "profile-invalid", [f"--set {text}: expected KEY=VALUE, for example limits.train_nice=5"]
            )
        if path[0] in _OWN_KEYS:
            raise ProfileError("profile-invalid", [f"--set {text}: {path[0]} can only stand in a file"])
        value: Any = tomllib.loads(f"value = {raw}")["value"] if is_toml_value(raw) else raw.strip()
        for part in reversed(path):
            value = {part: value}
        result = _merge(result, value)
    return _Layer("--set", result)


def _validate(values: dict[str, Any], layers: Sequence[_Layer]) -> Profile:
    faults: list[tuple[KeyPath, str]] = []
    profile: Profile | None = None
    try:
        profile = Profile.model_validate(values)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            # the model's own check of how parts fit has no place; its findings follow below. An array
            # whose items all failed is reported as too short as well.
            if fault["loc"] and not (fault["type"] == "too_short" and fault["input"]):
                faults.append((fault["loc"], _say(fault)))
    faults += contradictions(values)
    if profile is not None and not faults:
        return profile
    lines = [f"{_origin(path, layers)}: {'.'.join(map(str, path))}: {fault}" for path, fault in faults]
    raise ProfileError("profile-invalid", sorted(dict.fromkeys(lines)), hint=CHECK_AGAIN)


def _say(fault: Mapping[str, Any]) -> str:
    """One fault of pydantic in our words, with what was found."""
    kind, path, given = fault["type"], fault["loc"], fault["input"]
    if kind == "extra_forbidden":
        return f"there is no such key; {_suggestion(str(path[-1]), _keys_at(path[:-1]))}"
    if kind == "missing":
        return "is missing"
    if path[-1] == "unit":
        return f"found {given!r}, expected a SenML unit: {', '.join(UNITS)}"
    if kind == "string_pattern_mismatch":
        return f"{given!r} is no name here, expected a pattern of {fault['ctx']['pattern']}"
    if kind == "tuple_type" and isinstance(given, Mapping):
        tables = path[-1] in ("sources", "channels")
        return "found a table, expected a list" + (
            f": write [[{'.'.join(map(str, path))}]] with two brackets" if tables else ""
        )
    return what(fault)


def _keys_at(path: Sequence[str | int]) -> list[str]:
    """The keys that the format knows in the table at `path`."""
    model: Any = Profile
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = {f.alias or name: f for name, f in model.model_fields.items()}.get(str(part))
            model = None if field is None else field.annotation
        else:  # dict[Name, X] or tuple[X, ...]: the part is a name or an index
            arguments = [a for a in getattr(model, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
            model = arguments[0] if arguments else None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    keys = [field.alias or name for name, field in model.model_fields.items()]
    return sorted([*keys, "abstract"] if model is Profile else keys)


def _origin(path: KeyPath, layers: Sequence[_Layer]) -> str:
    """The layer in which the longest part of `path` stands; the child's file when none has it."""
    best, where = 0, layers[1].where
    for layer in layers:
        depth = 0
        current: Any = layer.values
        for part in path:
            if isinstance(current, Mapping) and part in current:
                current = current[str(part)]
            elif isinstance(current, list) and isinstance(part, int) and part < len(current):
                current = current[part]
            else:
                break
            depth += 1
        if depth > best:
            best, where = depth, layer.where
    return where
