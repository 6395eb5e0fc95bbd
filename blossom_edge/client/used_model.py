"""The model that a device of role `infer` or `personalize` uses, read from its disk without its lock. Never writes.

It is not always the newest that was received: a version may be refused, pinned or rolled back. Files are named by their
content, so what is read is what was in use at one moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from blossom_edge.codec import safetensors_file
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, BlockKey, Tensors
from blossom_edge.core.errors import BlossomError, StorageError
from blossom_edge.federation.schema import Federation
from blossom_edge.inference.generation import Used
from blossom_edge.inference.head_values import MAX_HEAD_BYTES, HeadValues, head_from_bytes
from blossom_edge.inference.model_folder import FOLDER, look, store_file
from blossom_edge.inference.model_state import Kept

TRIES = 3
"""A running device may exchange its model, and remove the old files, between two reads."""


@dataclass(frozen=True, slots=True)
class UsedModel:
    """Blocks with their versions, and own heads by task with the number of this set of them.

    gates: by task, where the own head is mixed with the shared one; see `ModelState.gates`.
    """

    blocks: dict[BlockId, Tensors]
    versions: dict[BlockId, int]
    heads: dict[str, HeadValues]
    head_number: int
    gates: Mapping[str, float] = field(default_factory=dict)


def read_used(place: Path, federation: Federation) -> UsedModel | None:
    """What is in use, from the device's folder of this federation; None if nothing is yet.

    Raises:
        StorageError: `file-damaged`.
    """
    for left in reversed(range(TRIES)):
        state = look(place)
        if state is None or state.in_use is None:
            return None
        try:
            return replace(_read(place, federation, state.in_use), gates=dict(state.gates))
        except StorageError:
            now = look(place)
            if not left or now is None or now.in_use == state.in_use:
                raise
    return None


def _read(place: Path, federation: Federation, kept: Kept) -> UsedModel:
    codec = make_codec(federation.codec.down)
    blocks: dict[BlockId, Tensors] = {}
    for key, used in sorted(kept.versions.items()):
        if key.block in federation.spec:
            spec = federation.spec[key.block]
            limit = codec.encoded_size(spec) + safetensors_file.MAX_HEADER_BYTES + 8
            blocks[key.block] = codec.decode(_block_bytes(place, key, used, limit), spec)
    heads = {task: _head(place, task, kept.head_number, sha256) for task, sha256 in sorted(kept.heads.items())}
    versions = {key.block: used.version for key, used in sorted(kept.versions.items()) if key.block in blocks}
    return UsedModel(blocks, versions, heads, kept.head_number)


def _block_bytes(place: Path, key: BlockKey, used: Used, limit: int) -> bytes:
    for path in (place / FOLDER / f"{used.sha256}.safetensors", store_file(place, key)):
        try:
            data = safetensors_file.read(_bounded(path, limit))[0]["bytes"].tobytes()
        except (OSError, BlossomError, KeyError):
            continue
        if hashlib.sha256(data).hexdigest() == used.sha256:
            return data
    raise StorageError(
        "file-damaged",
        f"{key}: version {used.version}, which is in use, is not whole on disk",
        hint="start join: the gateway sends it again",
    )


def _head(place: Path, task: str, number: int, sha256: str) -> HeadValues:
    path = place / FOLDER / f"head.{task}.{number}.safetensors"
    try:
        data = _bounded(path, MAX_HEAD_BYTES)
        if hashlib.sha256(data).hexdigest() == sha256:
            return head_from_bytes(data)
        why = "it has other bytes than were written"
    except (OSError, BlossomError) as error:
        why = str(error)
    hint = "start join: a new own head is learned"
    raise StorageError("file-damaged", f"own head of {task}: {path} cannot be read: {why}", hint=hint)


def _bounded(path: Path, limit: int) -> bytes:
    """The whole file. Raises OSError: it is not there or longer than `limit`."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"more than {limit} bytes")
    return data
