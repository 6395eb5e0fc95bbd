"""The model's files: second names instead of copies, damage that is named, nothing left that nobody names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from support.swapping import ACCEL, HEAD, held_at, store

from blossom_edge.core.errors import StorageError
from blossom_edge.durable import link_or_copy
from blossom_edge.inference.head_values import HeadValues
from blossom_edge.inference.model_folder import ModelFolder, block_file, look, newest_received, read_block, store_file
from blossom_edge.inference.model_state import ModelState

OWN = HeadValues("softmax", {"layers.0.weight": np.ones((3, 4), np.float32), "layers.0.bias": np.zeros(3, np.float32)})


def in_use(folder: ModelFolder, version: int) -> ModelState:
    """Write blocks at `version` as an exchange does, without the sweep."""
    held = held_at(version, ACCEL, HEAD)
    store(folder.place, held)
    for key, received in held.items():
        folder.keep_block(key, received)
    heads = folder.keep_heads(version, {"har": OWN})
    state = folder.state.exchange(
        {key: received.used for key, received in held.items()}, head_number=version, heads=heads, boot=1, stamp=""
    )
    folder.write(state)
    return state


def test_a_version_in_use_is_a_second_name_of_the_stores_file_and_stays_when_that_is_replaced(tmp_path: Path) -> None:
    folder, held = ModelFolder(tmp_path), held_at(1, ACCEL)
    store(tmp_path, held)
    folder.keep_block(ACCEL, held[ACCEL])
    assert block_file(tmp_path, held[ACCEL].used).samefile(store_file(tmp_path, ACCEL))
    store(tmp_path, held_at(2, ACCEL))
    assert read_block(tmp_path, ACCEL, held[ACCEL].used) == held[ACCEL]
    assert newest_received(tmp_path, ACCEL) == held_at(2, ACCEL)[ACCEL].used


def test_a_version_that_the_store_does_not_have_any_more_is_written(tmp_path: Path) -> None:
    folder, held = ModelFolder(tmp_path), held_at(1, ACCEL)
    store(tmp_path, held_at(2, ACCEL))
    folder.keep_block(ACCEL, held[ACCEL])
    assert read_block(tmp_path, ACCEL, held[ACCEL].used) == held[ACCEL]


def test_where_there_are_no_second_names_the_bytes_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*names: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    assert link_or_copy(source, target) is False
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_link_replaces_what_stands_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    assert link_or_copy(source, target) is True
    assert link_or_copy(source, target) is True, "a second time: both are one file by now"
    assert target.samefile(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_link_to_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file") as refused:
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert refused.value.error_id == "disk-failed"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "empty", "a folder"])
def test_a_damaged_version_is_named(tmp_path: Path, damage: str) -> None:
    folder, held = ModelFolder(tmp_path), held_at(1, ACCEL)
    folder.keep_block(ACCEL, held[ACCEL])
    path = block_file(tmp_path, held[ACCEL].used)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"flipped": bytes(data), "truncated": bytes(data[:100]), "empty": b""}[damage])
    with pytest.raises(StorageError, match=r"encoder/accel version 1: .*[0-9a-f]{64}\.safetensors") as refused:
        read_block(tmp_path, ACCEL, held[ACCEL].used)
    assert refused.value.error_id == "file-damaged"


def test_a_damaged_version_that_the_store_still_has_is_read_from_there_and_mended(tmp_path: Path) -> None:
    folder, held = ModelFolder(tmp_path), held_at(1, ACCEL)
    folder.keep_block(ACCEL, held[ACCEL])
    store(tmp_path, held)
    path = block_file(tmp_path, held[ACCEL].used)
    path.write_bytes(b"nonsense")
    assert read_block(tmp_path, ACCEL, held[ACCEL].used) == held[ACCEL]
    folder.keep_block(ACCEL, held[ACCEL])
    assert path.samefile(store_file(tmp_path, ACCEL))


def test_files_that_nothing_names_are_removed_and_no_others(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    used = [in_use(folder, version).versions for version in (1, 2)]
    folder.write(folder.state.pin(ACCEL))
    used.append(in_use(folder, 3).versions)
    in_use(folder, 4)
    (folder.path / "notes.txt").write_text("of a person")
    names = {path.name for path in folder.path.iterdir()}
    assert len(names) == 4 * 3 + 3, "three files of each, model.json, orders, the note"
    assert folder.sweep() == 5
    left = {path.name for path in folder.path.iterdir()}
    assert block_file(tmp_path, used[1][ACCEL]).name in left, "pinned"
    assert names - left == {
        *(block_file(tmp_path, one).name for one in (*used[0].values(), used[1][HEAD])),
        *("head.har.1.safetensors", "head.har.2.safetensors"),
    }
    assert folder.sweep() == 0


def test_own_heads_come_back_as_they_were_and_a_damaged_one_is_named_and_left_out(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    kept = in_use(folder, 5).in_use
    assert kept is not None
    found = folder.read_heads(kept)["har"]
    assert found.kind == "softmax"
    np.testing.assert_array_equal(found.tensors["layers.0.weight"], OWN.tensors["layers.0.weight"])
    path = folder.path / "head.har.5.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert folder.read_heads(kept) == {}
    path.unlink()
    assert folder.read_heads(kept) == {}
    assert len(folder.damage) == 2
    assert all("own head of har" in text and "head.har.5.safetensors" in text for text in folder.damage)


def test_a_damaged_model_json_is_named_and_nothing_is_in_use(tmp_path: Path) -> None:
    in_use(ModelFolder(tmp_path), 1)
    path = tmp_path / "model" / "model.json"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StorageError, match=r"model\.json cannot be read"):
        look(tmp_path)
    folder = ModelFolder(tmp_path)
    assert folder.state == ModelState()
    assert "model.json cannot be read" in folder.damage[0]


def test_a_state_is_kept_and_found_again_and_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    state = in_use(ModelFolder(tmp_path), 1)
    (tmp_path / "model" / ".model.json.00000000.tmp").write_bytes(b"half")
    folder = ModelFolder(tmp_path)
    assert folder.state == state == look(tmp_path)
    assert not list(folder.path.glob(".*.tmp"))
    assert look(tmp_path / "elsewhere") is None
