"""The model of a device, read from its folder beside a running join."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learning import tiny

from blossom_edge.client.actions import Checkpoint, Held
from blossom_edge.client.held_model import read_device
from blossom_edge.client.store import Store
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.core.errors import StorageError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.schema import Federation

ACCEL, GYRO, PART, REST, HEAD = (
    BlockId.parse(t) for t in ("encoder/accel", "encoder/gyro", "fusion/har.accel", "fusion/har", "head/har")
)


def values_of(federation: Federation, block: BlockId, seed: int) -> Tensors:
    return initial_block(federation.spec[block], "test", seed)


def keep(store: Store, federation: Federation, block: BlockId, version: int, *, seed: int) -> None:
    spec = federation.spec[block]
    data = make_codec(federation.codec.down).encode(values_of(federation, block, seed), spec)
    store.keep_block(spec.key(("accel",)), Held(version, hashlib.sha256(data).hexdigest(), data))


def member(root: Path, federation: Federation, **status: Any) -> Store:
    """A device with an accelerometer that has received version 3 and trained; its folder stays locked."""
    store = Store(root, "pi-1")
    store.enter(federation)
    keep(store, federation, ACCEL, 3, seed=11)
    private = {b: values_of(federation, b, 12) for b in (PART, REST, HEAD)}
    store.keep_checkpoint(Checkpoint(round=3, private=private))
    facts = {"profile": "rpi4", "modalities": ["accel"], "tasks": [], "federation": federation.name, **status}
    store.keep_status({"device": "pi-1", "running_here": False, **facts})
    return store


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


def test_the_blocks_that_a_device_holds_are_read_while_its_folder_is_in_use(tmp_path: Path) -> None:
    federation = tiny()
    store = member(tmp_path, federation)
    found = read_device(store.folder)
    store.close()
    assert (found.device, found.profile, found.modalities, found.tasks) == ("pi-1", "rpi4", ("accel",), ("har",))
    assert found.federation.digest == federation.digest
    assert found.versions == {ACCEL: 3}
    assert found.untrained == ()
    assert set(found.blocks) == {ACCEL, PART, REST, HEAD}
    assert same(found.blocks[ACCEL], values_of(federation, ACCEL, 11))
    assert all(same(found.blocks[b], values_of(federation, b, 12)) for b in (PART, REST, HEAD))


def test_what_was_never_received_or_trained_has_its_first_values_and_is_named(tmp_path: Path) -> None:
    federation = tiny()
    store = member(tmp_path, federation, modalities=["gyro", "accel"])
    (store.place / "checkpoint.safetensors").unlink()
    (store.place / "blocks" / "encoder.accel.safetensors").write_bytes(b"cut off")
    store.close()
    found = read_device(store.folder)
    assert found.versions == {}
    assert found.untrained == tuple(sorted(found.blocks))
    assert found.modalities == ("accel", "gyro")
    first = initial_block(federation.spec[GYRO], federation.digest, federation.seed)
    assert same(found.blocks[GYRO], first)


def test_one_of_several_federations_is_chosen_by_name(tmp_path: Path) -> None:
    store = member(tmp_path, tiny())
    other = tiny("name=other")
    store.enter(other)
    store.close()
    assert read_device(store.folder).federation.name == "har"
    assert read_device(store.folder, "other").versions == {}
    with pytest.raises(StorageError, match="pi-1 never joined federation 'none'; it joined har, other") as caught:
        read_device(store.folder, "none")
    assert caught.value.error_id == "nothing-found"


def test_a_folder_without_a_device_or_with_damage_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no device has joined from there"):
        read_device(tmp_path / "nobody")
    store = member(tmp_path, tiny())
    (store.place / "checkpoint.safetensors").write_bytes(b"cut off")
    with pytest.raises(StorageError, match=r"checkpoint\.safetensors cannot be read") as caught:
        read_device(store.folder)
    assert caught.value.error_id == "file-damaged"
    (store.place / "federation.json").write_text("{}")
    with pytest.raises(StorageError, match="its copy of federation 'har' cannot be read"):
        read_device(store.folder)
    (store.folder / "status.json").write_text(json.dumps({"federation": None}))
    with pytest.raises(StorageError, match="pi-1 is in no federation yet"):
        read_device(store.folder)
    (store.folder / "status.json").write_text("{")
    with pytest.raises(StorageError, match=r"status\.json cannot be read"):
        read_device(store.folder)
    store.close()
