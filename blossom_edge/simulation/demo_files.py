"""What a demo has learned, as files: the shared blocks of the gateway's ledger, each device's private blocks.

Reads the folders of gateway and devices after they have ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aggregator.ledger import Ledger
from aggregator.recovery import make_machine
from aggregator.spool import Spool
from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.store import Store
from blossom_edge.codec import safetensors_file
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.federation.schema import Federation


def read_device(root: Path, device: str, modalities: tuple[str, ...], federation: Federation) -> dict[BlockId, Tensors]:
    """All blocks of a device as it left them: the newest shared versions and its private blocks.

    Raises:
        StorageError: `file-damaged`, or the device still runs.
    """
    store = Store(root, device)
    try:
        checkpoint, held = store.enter(federation)
    finally:
        store.close()
    private: Mapping[BlockId, Tensors] = checkpoint.private if checkpoint is not None else {}
    return DeviceBlocks(federation, modalities, ()).model(held, private)


def private_blocks(modalities: tuple[str, ...], federation: Federation) -> tuple[BlockId, ...]:
    """The blocks that a device with these modalities keeps."""
    return DeviceBlocks(federation, modalities, ()).private


def read_shared(gateway: Path, federation: Federation) -> dict[str, tuple[int, Tensors]]:
    """Number and values of the newest version of each block key, as the ledger has them.

    Raises:
        StorageError: ledger or version damaged.
    """
    ledger = Ledger.open(gateway)
    try:
        versions = Spool(gateway / "versions")
        state = make_machine(federation, versions, epoch=1).state
        for record in ledger.records:
            state.apply(record)
    finally:
        ledger.close()
    codec = make_codec("float32")
    return {
        str(key): (version.number, codec.decode(versions.get(version.sha256), federation.spec[key.block]))
        for key, version in sorted(state.versions.items())
    }


def write_block(folder: Path, name: str, values: Tensors, facts: Mapping[str, str]) -> Path:
    """Write one block as `folder/kind.name.safetensors`; `facts` become its metadata.

    Raises:
        StorageError: the disk refuses.
    """
    make_folder(folder)
    path = folder / f"{name.replace('/', '.')}.safetensors"
    atomic_write(path, safetensors_file.write(values, {"block": name, **facts}), name="export", mode=0o644)
    return path
