"""What a device finds again on its disk, and what it says when a file there is damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from support.learning import tiny

from blossom_edge.client.actions import Checkpoint, Held
from blossom_edge.client.store import Store, last_gateway, read_checkpoint, write_checkpoint
from blossom_edge.client.updates import Outgoing
from blossom_edge.codec.keys import SigningKey
from blossom_edge.core.blocks import BlockId, BlockKey
from blossom_edge.core.errors import LinkError, StorageError

FEDERATION = tiny()
ACCEL = BlockKey.parse("encoder/accel")
DATA = b"four" * 100
HELD = Held(3, hashlib.sha256(DATA).hexdigest(), DATA)
CHECKPOINT = Checkpoint(
    round=4,
    epoch=1,
    sequence=17,
    ledger_seq=99,
    num_seen=250,
    private={BlockId.parse("head/har"): {"layers.0.bias": np.arange(4, dtype=np.float32)}},
    optimizer={"head/har|step": np.array([3.0], dtype=np.float32)},
    outbox=(Outgoing(ACCEL, 4, 3, 20, 8, "float16", b"\x00\x01update"),),
)


def same(found: Checkpoint, expected: Checkpoint) -> bool:
    """Equal, arrays included."""
    arrays = [
        {f"{b}|{n}": v.tobytes() for b, t in c.private.items() for n, v in t.items()}
        | {n: v.tobytes() for n, v in c.optimizer.items()}
        for c in (found, expected)
    ]
    facts = [(c.round, c.epoch, c.sequence, c.ledger_seq, c.num_seen, c.outbox) for c in (found, expected)]
    return arrays[0] == arrays[1] and facts[0] == facts[1]


def test_a_checkpoint_reads_back_as_it_was_written() -> None:
    assert same(read_checkpoint(write_checkpoint(CHECKPOINT)), CHECKPOINT)
    assert same(read_checkpoint(write_checkpoint(Checkpoint())), Checkpoint())


def test_a_device_finds_its_checkpoint_its_versions_and_its_key_again(tmp_path: Path) -> None:
    first = Store(tmp_path, "pi-1")
    assert first.enter(FEDERATION) == (None, {})
    first.keep_checkpoint(CHECKPOINT)
    first.keep_block(ACCEL, HELD)
    first.close()
    again = Store(tmp_path, "pi-1")
    checkpoint, held = again.enter(FEDERATION)
    assert checkpoint is not None
    assert same(checkpoint, CHECKPOINT)
    assert held == {ACCEL: HELD}
    assert again.key.public_hex == first.key.public_hex
    assert (first.boot, again.boot) == (1, 2)
    known = again.known_federation("har")
    assert known is not None
    assert known.digest == FEDERATION.digest
    again.close()


def test_the_key_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    Store(tmp_path, "pi-1").close()
    assert (tmp_path / "devices" / "pi-1" / "device.key").stat().st_mode & 0o077 == 0


def test_another_federation_has_another_folder_so_nothing_mixes(tmp_path: Path) -> None:
    store = Store(tmp_path, "pi-1")
    store.enter(FEDERATION)
    store.keep_checkpoint(CHECKPOINT)
    other = tiny("training.lr=0.5")
    assert store.enter(other) == (None, {})
    known = store.known_federation("har")
    assert known is not None
    assert known.digest == other.digest, "the one joined last"
    assert store.enter(FEDERATION)[0] is not None
    store.close()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_checkpoint_is_named_and_never_taken_for_a_fresh_start(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path, "pi-1")
    store.enter(FEDERATION)
    store.keep_checkpoint(CHECKPOINT)
    path = store.place / "checkpoint.safetensors"
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[:-5], "flip": b"\xff" + data[1:], "empty": b"", "other": write_checkpoint(CHECKPOINT)[:40]}[damage]
    )
    with pytest.raises(StorageError) as caught:
        store.enter(FEDERATION)
    assert caught.value.error_id == "file-damaged"
    assert str(path) in str(caught.value)
    assert "move it away" in caught.value.hint
    store.close()


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_version_is_left_out_for_it_can_be_fetched_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path, "pi-1")
    store.enter(FEDERATION)
    store.keep_block(ACCEL, HELD)
    (path,) = (store.place / "blocks").iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + b"\xff")
    assert store.enter(FEDERATION) == (None, {})
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = Store(tmp_path, "pi-1")
    with pytest.raises(StorageError, match="in use by device pi-1") as caught:
        Store(tmp_path, "pi-1")
    assert caught.value.error_id == "folder-in-use"
    Store(tmp_path, "pi-2").close()
    first.close()
    Store(tmp_path, "pi-1").close()


def test_a_gateway_is_trusted_on_first_use_and_must_show_the_same_key_later(tmp_path: Path) -> None:
    store, mine, other = Store(tmp_path, "pi-1"), SigningKey.generate(), SigningKey.generate()
    store.trust("har", mine.public_hex)
    store.trust("har", mine.public_hex)
    store.trust("other", other.public_hex)
    with pytest.raises(
        LinkError, match=f"has key {other.fingerprint}, this device trusts {mine.fingerprint}"
    ) as caught:
        store.trust("har", other.public_hex)
    assert caught.value.error_id == "gateway-key"
    assert "trust.json" in caught.value.hint
    store.close()


def test_the_fingerprint_that_the_operator_gave_is_held_against_the_key(tmp_path: Path) -> None:
    store, key = Store(tmp_path, "pi-1"), SigningKey.generate()
    with pytest.raises(LinkError, match="--gateway-key says 0000"):
        store.trust("har", key.public_hex, wanted="0000-0000-0000-0000")
    store.trust("har", key.public_hex, wanted=key.fingerprint)
    store.trust("har", key.public_hex, wanted=key.fingerprint.replace("-", ""))
    store.close()


def test_the_address_of_the_last_join_is_remembered_for_all_devices_of_the_folder(tmp_path: Path) -> None:
    assert last_gateway(tmp_path) is None
    store = Store(tmp_path, "pi-1")
    store.remember_gateway("localhost:18830")
    store.close()
    assert last_gateway(tmp_path) == "localhost:18830"


@pytest.mark.parametrize("name", ["device.key", "boot", "trust.json"])
def test_a_damaged_file_of_its_own_is_named_and_not_made_anew_in_silence(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path, "pi-1")
    store.trust("har", SigningKey.generate().public_hex)
    store.close()
    (store.folder / name).write_bytes(b"{")
    with pytest.raises(StorageError, match=name) as caught:
        Store(tmp_path, "pi-1").trust("har", SigningKey.generate().public_hex)
    assert caught.value.error_id == "file-damaged"
