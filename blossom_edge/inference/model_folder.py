"""What a torch-free device keeps of its model, below the folder of its federation. Builds and judges nothing.

    model/model.json                       what is in use, before it, pinned, refused, on trial
    model/{sha256}.safetensors             a version of a block as the store keeps it: a second name of its file
    model/head.{task}.{number}.safetensors own heads, those in use and those before
    model/orders/                          what a person wants of a running device

The store's own file of a block (`blocks/`) is replaced with each version that comes. Order of every change: first the
files that model.json will name, then model.json, then the exchange in memory; files that nothing names go last.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from blossom_edge.codec import safetensors_file
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import BlossomError, StorageError
from blossom_edge.durable import atomic_write, link_or_copy, make_folder, sweep_temporary
from blossom_edge.inference.generation import Received, Used
from blossom_edge.inference.head_values import MAX_HEAD_BYTES, HeadValues, head_from_bytes, head_to_bytes
from blossom_edge.inference.model_state import Kept, ModelState, read_state

FOLDER = "model"
ORDERS = "orders"
STATE_FILE = "model.json"
MAX_STATE_BYTES = 1024 * 1024
MAX_FILE_BYTES = 1024 * 1024 * 1024
"""Longest file that is read: a transfer has at most 768 MiB."""
_OURS = re.compile(r"([0-9a-f]{64}|head\.[a-z0-9-]+\.\d+)\.safetensors\Z")


class ModelFolder:
    """The model folder of one device in one federation; `place` is the folder of that federation.

    `damage` names what could not be read since it was opened. One process at a time: hold the device's lock.
    """

    def __init__(self, place: Path) -> None:
        """Make the folder if it is missing, and read its state.

        A model.json that cannot be read is named in `damage`; then nothing is in use, and the gateway is waited for.

        Raises:
            StorageError: `disk-failed`.
        """
        self.place, self.path = place, place / FOLDER
        self.damage: list[str] = []
        make_folder(self.path / ORDERS)
        sweep_temporary(self.path)
        self.state = ModelState()
        try:
            self.state = look(place) or ModelState()
        except StorageError as error:
            self.damage.append(str(error))

    def write(self, state: ModelState) -> None:
        """Make `state` what is true, for good. Failpoints: `model:...`.

        Raises:
            StorageError: `disk-failed`; then the old state holds.
        """
        if state != self.state:
            atomic_write(self.path / STATE_FILE, state.to_json(), name="model")
            self.state = state

    def keep_block(self, key: BlockKey, received: Received) -> None:
        """Keep a version under its hash: as a second name of the store's file, or written. Failpoints: `tensors:...`.

        Raises:
            StorageError: `disk-failed`.
        """
        target, source = block_file(self.place, received.used), store_file(self.place, key)
        for path in (target, source):
            with suppress(StorageError):
                if _read_file(path)[1] == received.sha256:
                    if path == source:
                        link_or_copy(source, target, name="tensors")
                    return
        tensors = {"bytes": np.frombuffer(received.data, dtype=np.uint8)}
        metadata = {"version": str(received.version), "sha256": received.sha256}
        atomic_write(target, safetensors_file.write(tensors, metadata), name="tensors")

    def keep_heads(self, number: int, heads: Mapping[str, HeadValues]) -> dict[str, str]:
        """Write own heads; returns the SHA-256 of each file. Failpoints: `own-head:...`.

        Raises:
            StorageError: `disk-failed`.
        """
        found = {}
        for task, head in sorted(heads.items()):
            data = head_to_bytes(head, {"task": task})
            atomic_write(self._head_file(task, number), data, name="own-head")
            found[task] = hashlib.sha256(data).hexdigest()
        return found

    def read_heads(self, kept: Kept) -> dict[str, HeadValues]:
        """The own heads of a generation; one that is damaged is named in `damage` and left out, to be fitted anew."""
        heads = {}
        for task, sha256 in sorted(kept.heads.items()):
            path = self._head_file(task, kept.head_number)
            try:
                data = _read_bytes(path, MAX_HEAD_BYTES)
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise StorageError("file-damaged", f"{path} has other bytes than were written")
                heads[task] = head_from_bytes(data)
            except BlossomError as error:
                self.damage.append(f"own head of {task}: {error}")
        return heads

    def sweep(self) -> int:
        """Remove what neither the generation in use nor the one before nor a pin names; returns how many files.

        Raises:
            StorageError: `disk-failed`.
        """
        named = {block_file(self.place, used).name for used in self.state.pinned.values()}
        for kept in (self.state.in_use, self.state.previous):
            if kept is not None:
                named |= {block_file(self.place, used).name for used in kept.versions.values()}
                named |= {self._head_file(task, kept.head_number).name for task in kept.heads}
        left = [path for path in self.path.iterdir() if _OURS.match(path.name) and path.name not in named]
        try:
            for path in left:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError("disk-failed", f"cannot remove {path}: {error.strerror}") from error
        return len(left)

    def _head_file(self, task: str, number: int) -> Path:
        return self.path / f"head.{task}.{number}.safetensors"


def look(place: Path) -> ModelState | None:
    """What the model.json of a device says; None if it has none. Only reads, needs no lock.

    Raises:
        StorageError: `file-damaged`.
    """
    path = place / FOLDER / STATE_FILE
    if not path.exists():
        return None
    try:
        data = _read_bytes(path, MAX_STATE_BYTES)
        return read_state(data)
    except ValueError as error:
        hint = "delete it: the model is taken anew from what the gateway sent; pins and refusals are lost"
        raise StorageError("file-damaged", f"{path} cannot be read: {error}", hint=hint) from None


def read_block(place: Path, key: BlockKey, used: Used) -> Received:
    """A version that is kept, checked against its hash; if its file is damaged, the store's may have the same.

    Raises:
        StorageError: `file-damaged`: neither is there and whole.
    """
    path, why = block_file(place, used), ""
    for file in (path, store_file(place, key)):
        try:
            data, sha256 = _read_file(file)
            if sha256 == used.sha256:
                return Received(used.version, used.sha256, data)
            why = why or f"{file} has other bytes than its name says"
        except StorageError as error:
            why = why or str(error)
    hint = "the gateway sends shared blocks again by itself"
    raise StorageError("file-damaged", f"{key} version {used.version}: {why}", hint=hint)


def newest_received(place: Path, key: BlockKey) -> Used | None:
    """The version that the store holds of a block; None if there is none or its file is damaged."""
    try:
        data = _read_bytes(store_file(place, key))
        tensors, metadata = safetensors_file.read(data)
        used = Used(int(metadata["version"]), metadata["sha256"])
        return used if hashlib.sha256(tensors["bytes"].tobytes()).hexdigest() == used.sha256 else None
    except (BlossomError, KeyError, ValueError):
        return None


def block_file(place: Path, used: Used) -> Path:
    """Where a version in use is kept."""
    return place / FOLDER / f"{used.sha256}.safetensors"


def store_file(place: Path, key: BlockKey) -> Path:
    """Where the store keeps the newest version of a block."""
    return place / "blocks" / (str(key).replace("/", ".") + ".safetensors")


def _read_file(path: Path) -> tuple[bytes, str]:
    """A block's bytes and their true SHA-256. Raises StorageError `file-damaged`."""
    try:
        tensors, _ = safetensors_file.read(_read_bytes(path))
        data = tensors["bytes"].tobytes()
    except (BlossomError, KeyError) as error:
        raise StorageError("file-damaged", f"{path} cannot be read: {error}") from None
    return data, hashlib.sha256(data).hexdigest()


def _read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Raises StorageError `file-damaged`: it is not there, too long, or the disk does not give it."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise StorageError("file-damaged", f"{path} has {size} bytes, at most {limit} are read")
        return path.read_bytes()
    except OSError as error:
        raise StorageError("file-damaged", f"{path} cannot be read: {error.strerror or error}") from None
