"""What a device keeps on disk: its key, whom it trusts, and per federation its private blocks, versions and outbox.

    {root}/gateway.json                         address of the last successful join
    {root}/devices/{id}/                        lock, device.key, boot, trust.json, status.json
    {root}/devices/{id}/{federation}-{digest}/  federation.json, checkpoint.safetensors, blocks/*.safetensors

All writes go through `durable`. A device that joins another federation gets another folder, so nothing mixes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blossom_edge.client.actions import Checkpoint, Held
from blossom_edge.client.folder import last_file, place_of
from blossom_edge.client.updates import Outgoing
from blossom_edge.codec import safetensors_file
from blossom_edge.codec.keys import SigningKey, fingerprint
from blossom_edge.core.blocks import BlockId, BlockKey, Tensors
from blossom_edge.core.errors import ConfigError, LinkError, RemoteError, StorageError
from blossom_edge.durable import FolderLock, atomic_write, make_folder, sweep_temporary
from blossom_edge.federation.schema import Federation

KEY_FILE = "device.key"


class Store:
    """The folder of one device. One process at a time."""

    def __init__(self, root: Path, device: str) -> None:
        """Open or make the folder and lock it.

        Raises:
            StorageError: `folder-in-use`, `file-damaged`, or the disk refuses.
        """
        self.root, self.device = root, device
        self.folder = root / "devices" / device
        make_folder(self.folder)
        self._lock = FolderLock.acquire(self.folder, what=f"device {device}")
        sweep_temporary(self.folder)
        self.key = self._load_key()
        self.boot = int(_read_own(self.folder / "boot", 0)) + 1
        _write_json(self.folder / "boot", self.boot)
        self._place: Path | None = None

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.release()

    # ---- trust

    def trust(self, federation: str, key: str, *, wanted: str | None = None) -> None:
        """Trust the gateway of a federation on first use; later it must show the same key.

        `wanted` is the fingerprint that the operator gave.

        Raises:
            LinkError: `gateway-key`.
            StorageError: `file-damaged`: whom it trusts cannot be read.
        """
        found = fingerprint(key)
        if wanted is not None and wanted.replace("-", "") != found.replace("-", ""):
            raise LinkError("gateway-key", f"the gateway of {federation} has key {found}, --gateway-key says {wanted}")
        path = self.folder / "trust.json"
        known: dict[str, str] = _read_own(path, {})
        if known.get(federation, key) != key:
            raise LinkError(
                "gateway-key",
                f"the gateway of {federation} has key {found}, this device trusts {fingerprint(known[federation])}",
                hint=f"if the gateway was set up anew, delete {path}; else somebody is in its place",
            )
        if federation not in known:
            _write_json(path, {**known, federation: key})

    # ---- one federation

    def known_federation(self, name: str) -> Federation | None:
        """The federation of this name that was joined last, if its file can be read."""
        return known_federation(self.folder, name)

    def enter(self, federation: Federation) -> tuple[Checkpoint | None, dict[BlockKey, Held]]:
        """Use the folder of this federation; returns what an earlier run left in it.

        Raises:
            StorageError: `file-damaged`: the checkpoint cannot be read.
        """
        self._place = place_of(self.folder, federation.name, federation.digest)
        make_folder(self._place / "blocks")
        for folder in (self._place, self._place / "blocks"):
            sweep_temporary(folder)
        _write_json(self._place / "federation.json", federation.to_dict())
        _write_json(last_file(self.folder, federation.name), federation.digest)
        return self._read_checkpoint(), self._read_blocks(federation)

    @property
    def place(self) -> Path:
        """The folder of the federation that was entered."""
        if self._place is None:
            raise RuntimeError("no federation was entered")
        return self._place

    def keep_block(self, key: BlockKey, held: Held) -> None:
        """Write a received version."""
        tensors = {"bytes": np.frombuffer(held.data, dtype=np.uint8)}
        metadata = {"version": str(held.version), "sha256": held.sha256}
        name = str(key).replace("/", ".") + ".safetensors"
        atomic_write(self.place / "blocks" / name, safetensors_file.write(tensors, metadata), name="block")

    def keep_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write private blocks, optimiser state and outbox in one atomic step."""
        data = write_checkpoint(checkpoint)
        atomic_write(self.place / "checkpoint.safetensors", data, name="checkpoint")

    def keep_status(self, status: Mapping[str, Any]) -> None:
        """Write what `status` and `why` show."""
        _write_json(self.folder / "status.json", status)

    def remember_gateway(self, address: str) -> None:
        """Note the address of a successful join, for the next one that names none."""
        _write_json(self.root / "gateway.json", {"address": address})

    def _load_key(self) -> SigningKey:
        path = self.folder / KEY_FILE
        if path.exists():
            try:
                return SigningKey.from_bytes(path.read_bytes())
            except ValueError as error:
                raise _damaged(path, error) from None
        key = SigningKey.generate()
        atomic_write(path, key.to_bytes(), name="key")
        return key

    def _read_checkpoint(self) -> Checkpoint | None:
        path = self.place / "checkpoint.safetensors"
        if not path.exists():
            return None
        try:
            return read_checkpoint(path.read_bytes())
        except (RemoteError, ConfigError, KeyError, ValueError) as error:
            raise StorageError(
                "file-damaged",
                f"{path} cannot be read: {error}",
                hint="move it away to start again with fresh private blocks",
            ) from error

    def _read_blocks(self, federation: Federation) -> dict[BlockKey, Held]:
        """The versions that are here whole; others are fetched again."""
        found = {}
        for path in sorted((self.place / "blocks").glob("*.safetensors")):
            kind, _, name = path.name.removesuffix(".safetensors").partition(".")
            try:
                key = BlockKey.parse(f"{kind}/{name}")
                tensors, metadata = safetensors_file.read(path.read_bytes())
                data = tensors["bytes"].tobytes()
                held = Held(int(metadata["version"]), metadata["sha256"], data)
            except (RemoteError, ConfigError, KeyError, ValueError):
                continue
            if key.block in federation.spec and hashlib.sha256(data).hexdigest() == held.sha256:
                found[key] = held
        return found


def known_federation(folder: Path, name: str) -> Federation | None:
    """The federation of this name that the device of this folder joined last, if its file can be read."""
    digest = _read_json(last_file(folder, name), "")
    data = _read_json(place_of(folder, name, digest) / "federation.json", None) if digest else None
    if data is None:
        return None
    try:
        return Federation.from_dict(data)
    except ConfigError:
        return None


def last_gateway(root: Path) -> str | None:
    """The address of the last successful join from this data folder."""
    data = _read_json(root / "gateway.json", None)
    return data.get("address") if isinstance(data, dict) else None


def write_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as one safetensors file: tensors `private|BLOCK|NAME`, `optimizer|NAME`, `outbox|N`."""
    tensors: dict[str, Any] = {}
    for block, values in checkpoint.private.items():
        tensors.update({f"private|{block}|{name}": value for name, value in values.items()})
    tensors.update({f"optimizer|{name}": value for name, value in checkpoint.optimizer.items()})
    outbox = []
    for number, update in enumerate(checkpoint.outbox):
        tensors[f"outbox|{number}"] = np.frombuffer(update.data, dtype=np.uint8)
        outbox.append(
            {
                "key": str(update.key),
                "round": update.round,
                "base_version": update.base_version,
                "num_samples": update.num_samples,
                "num_steps": update.num_steps,
                "codec": update.codec,
            }
        )
    facts = {name: getattr(checkpoint, name) for name in ("round", "epoch", "sequence", "ledger_seq", "num_seen")}
    return safetensors_file.write(tensors, {"facts": json.dumps(facts), "outbox": json.dumps(outbox)})


def read_checkpoint(data: bytes) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises:
        RemoteError, ConfigError, KeyError or ValueError: it is damaged.
    """
    tensors, metadata = safetensors_file.read(data)
    private: dict[BlockId, dict[str, Any]] = {}
    optimizer = {}
    for name, values in tensors.items():
        kind, _, rest = name.partition("|")
        if kind == "private":
            block, _, tensor = rest.partition("|")
            private.setdefault(BlockId.parse(block), {})[tensor] = values
        elif kind == "optimizer":
            optimizer[rest] = values
    outbox = tuple(
        Outgoing(key=BlockKey.parse(entry.pop("key")), data=tensors[f"outbox|{number}"].tobytes(), **entry)
        for number, entry in enumerate(json.loads(metadata["outbox"]))
    )
    blocks: dict[BlockId, Tensors] = dict(private)
    return Checkpoint(private=blocks, optimizer=optimizer, outbox=outbox, **json.loads(metadata["facts"]))


def _read_json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return default


def _read_own(path: Path, default: Any) -> Any:
    """As `_read_json`, but for files whose loss must not go unnoticed."""
    try:
        return json.loads(path.read_text("utf-8")) if path.exists() else default
    except ValueError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: ValueError) -> StorageError:
    hint = "put it back from a backup; without one, delete it: it is made anew"
    return StorageError("file-damaged", f"{path} cannot be read: {error}", hint=hint)


def _write_json(path: Path, value: Any) -> None:
    atomic_write(path, json.dumps(value, indent=1, sort_keys=True).encode(), name=path.name)
