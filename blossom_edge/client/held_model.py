"""The model that a device has on disk, read without its lock: also while `join` runs. Never writes.

Each block is whole, because every file is replaced in one step; two blocks may be of two rounds, as on the device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blossom_edge.client.actions import Held
from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.folder import last_file, place_of
from blossom_edge.client.store import known_federation, read_checkpoint
from blossom_edge.codec import safetensors_file
from blossom_edge.core.blocks import BlockId, BlockKey, Tensors
from blossom_edge.core.errors import ConfigError, RemoteError, StorageError
from blossom_edge.federation.schema import Federation

_JOIN = "join the federation with this device first"


@dataclass(frozen=True, slots=True)
class HeldModel:
    """What a device holds of a federation.

    profile: its name. modalities: those of the profile; tasks: those that it serves, sorted. blocks: all that it owns,
    with their first values where it has no others. versions: of the shared blocks that it received. untrained: the
    blocks that have their first values.
    """

    device: str
    federation: Federation
    profile: str
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    blocks: dict[BlockId, Tensors]
    versions: dict[BlockId, int]
    untrained: tuple[BlockId, ...]


def read_device(folder: Path, federation_name: str | None = None) -> HeldModel:
    """Read the model of the device of this folder, in the federation of this name (default: the one joined last).

    Raises:
        StorageError: `nothing-found`: it never joined (that federation); `file-damaged`: status or checkpoint.
    """
    status = _status(folder)
    name = federation_name or status.get("federation")
    if not name:
        raise StorageError("nothing-found", f"device {folder.name} is in no federation yet", hint=_JOIN)
    if not last_file(folder, name).exists():
        joined = ", ".join(sorted(path.stem for path in folder.glob("*.last"))) or "none"
        what = f"device {folder.name} never joined federation {name!r}; it joined {joined}"
        raise StorageError("nothing-found", what, hint=_JOIN)
    federation = known_federation(folder, name)
    if federation is None:
        what = f"device {folder.name}: its copy of federation {name!r} cannot be read"
        raise StorageError(
            "file-damaged", what, hint="join again: it is fetched anew; install the packages of its blocks"
        )
    modalities, tasks = tuple(status["modalities"]), tuple(status["tasks"])
    place = place_of(folder, name, federation.digest)
    owned = DeviceBlocks(federation, modalities, tasks)
    held = {key: one for key, one in _held(place / "blocks") if key in owned.keys.values()}
    private = _private(place / "checkpoint.safetensors")
    has = {key.block for key in held} | {block for block in private if block in owned.private}
    return HeldModel(
        device=folder.name,
        federation=federation,
        profile=str(status.get("profile", "")),
        modalities=tuple(sorted(modalities)),
        tasks=tasks or federation.tasks_for(modalities),
        blocks=owned.model(held, private),
        versions={key.block: one.version for key, one in sorted(held.items())},
        untrained=tuple(sorted(block for block in owned.keys if block not in has)),
    )


def _status(folder: Path) -> dict[str, Any]:
    path = folder / "status.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise StorageError("nothing-found", f"{folder}: no device has joined from there", hint=_JOIN) from None
    except ValueError as error:
        raise StorageError(
            "file-damaged", f"{path} cannot be read: {error}", hint="start join: it is made anew"
        ) from None
    if not isinstance(found, dict):
        raise StorageError("file-damaged", f"{path} holds no object", hint="start join: it is made anew")
    return found


def _held(folder: Path) -> Iterator[tuple[BlockKey, Held]]:
    """The received versions that are whole."""
    for path in sorted(folder.glob("*.safetensors")):
        kind, _, name = path.name.removesuffix(".safetensors").partition(".")
        try:
            key = BlockKey.parse(f"{kind}/{name}")
            tensors, metadata = safetensors_file.read(path.read_bytes())
            data = tensors["bytes"].tobytes()
            version, sha256 = int(metadata["version"]), metadata["sha256"]
        except (FileNotFoundError, RemoteError, ConfigError, KeyError, ValueError):
            continue
        if hashlib.sha256(data).hexdigest() == sha256:
            yield key, Held(version, sha256, data)


def _private(path: Path) -> dict[BlockId, Tensors]:
    try:
        return dict(read_checkpoint(path.read_bytes()).private)
    except FileNotFoundError:
        return {}
    except (RemoteError, ConfigError, KeyError, ValueError) as error:
        raise StorageError(
            "file-damaged", f"{path} cannot be read: {error}", hint="join goes on from it, or says why"
        ) from None
