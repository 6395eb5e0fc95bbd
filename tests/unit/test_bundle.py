"""Bundles: what is written comes back, and no byte and no cut makes a reader take a wrong model."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import ACCEL, ACCEL_FILE, BUNDLE, DATA, FEDERATION, HEAD, INPUTS, members, refusal

from blossom_edge.core.errors import BlossomError, ConfigError
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.bundle import bundle_summary, read_bundle, write_bundle
from blossom_edge.inference.head import HeadValues
from blossom_edge.inference.sealed_zip import MAX_FILE_BYTES


def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# what comes back


def test_a_bundle_comes_back_as_it_was():
    found = read_bundle(DATA)
    plain = ("modalities", "tasks", "device", "versions", "skeletons", "made_by", "profile")
    assert {name: getattr(found, name) for name in plain} == {name: getattr(BUNDLE, name) for name in plain}
    assert found.federation.digest == FEDERATION.digest
    assert found.blocks.keys() == BUNDLE.blocks.keys()
    assert all(same(found.blocks[block], BUNDLE.blocks[block]) for block in BUNDLE.blocks)
    assert found.heads["har"].kind == "softmax"
    assert same(found.heads["har"].tensors, BUNDLE.heads["har"].tensors)


def test_private_blocks_are_in_it_and_named():
    found = read_bundle(DATA)
    assert [str(block) for block in found.private] == ["fusion/har", "fusion/har.accel", "fusion/har.gyro", "head/har"]
    assert [str(block) for block in found.versions] == ["encoder/accel", "encoder/gyro"]


def test_a_skeleton_is_given_by_its_digest_and_none_for_another():
    found = read_bundle(DATA)
    digest = skeleton_digest(FEDERATION, ACCEL)
    assert found.skeleton(digest) == BUNDLE.skeletons[digest]
    assert found.skeleton("0" * 64) is None


def test_a_hidden_layer_of_an_own_head_may_have_any_width():
    tensors = {"layers.0.weight": (5, INPUTS), "layers.0.bias": (5,), "layers.1.weight": (7, 5), "layers.1.bias": (7,)}
    head = HeadValues(kind="hidden", tensors={name: np.ones(shape, np.float32) for name, shape in tensors.items()})
    found = read_bundle(write_bundle(dataclasses.replace(BUNDLE, heads={"har": head})))
    assert found.heads["har"].kind == "hidden"
    assert same(found.heads["har"].tensors, head.tensors)


def test_equal_bundles_give_equal_bytes():
    turned = dataclasses.replace(
        BUNDLE,
        blocks=dict(reversed(BUNDLE.blocks.items())),
        skeletons=dict(reversed(BUNDLE.skeletons.items())),
        profile=dict(reversed(BUNDLE.profile.items())),
    )
    assert write_bundle(turned) == DATA


def test_any_zip_program_opens_it_and_the_manifest_says_how_to_use_it():
    with zipfile.ZipFile(io.BytesIO(DATA)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    parts, manifest = members()
    assert manifest["schema"] == 1
    assert manifest["labels"] == {"har": ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]}
    accel = manifest["preprocessing"]["accel"]
    assert (accel["rate_hz"], accel["window"], accel["hop"]) == (50.0, 8, 8)
    assert accel["channels"][0] == {"name": "x", "unit": "m/s2", "mean": 0.0, "spread": 6.0}
    assert manifest["blocks"]["encoder/accel"]["version"] == 3
    assert manifest["blocks"]["head/har"] == manifest["blocks"]["head/har"] | {"version": None, "private": True}
    assert {name: len(data) for name, data in parts.items()} == {n: m["size"] for n, m in manifest["members"].items()}


def test_blocks_may_be_left_out():
    shared = {block: tensors for block, tensors in BUNDLE.blocks.items() if block in BUNDLE.versions}
    found = read_bundle(write_bundle(dataclasses.replace(BUNDLE, blocks=shared, heads={})))
    assert [str(block) for block in found.blocks] == ["encoder/accel", "encoder/gyro"]
    assert found.private == ()


def test_the_summary_tells_people_what_is_in_it():
    lines = bundle_summary(read_bundle(DATA))
    assert lines[0].startswith(f"model of watch-1 in federation har ({FEDERATION.digest[:12]})")
    assert "block encoder/accel: version 3" in lines
    assert "block head/har: private" in lines
    assert "own head of har: private" in lines
    assert "task har: PEN, ABD, FEL, IR, ER, TRAP, ROW" in lines
    assert "needs accel: x [m/s2], y [m/s2], z [m/s2] at 50 Hz, windows of 8 every 8" in lines


# what is not written


def test_a_bundle_with_a_nan_is_not_written():
    bad = {name: values.copy() for name, values in BUNDLE.blocks[ACCEL].items()}
    bad["layers.0.bias"][0] = np.nan
    with pytest.raises(ConfigError, match=r"encoder\.accel\.safetensors: layers\.0\.bias: found 1 values"):
        write_bundle(dataclasses.replace(BUNDLE, blocks={**BUNDLE.blocks, ACCEL: bad}))


def test_a_bundle_without_a_skeleton_is_not_written():
    digest = skeleton_digest(FEDERATION, HEAD)
    left = {name: data for name, data in BUNDLE.skeletons.items() if name != digest}
    with pytest.raises(ConfigError, match=f"the skeleton of head/har \\({digest[:12]}\\) is missing"):
        write_bundle(dataclasses.replace(BUNDLE, skeletons=left))


# damage


def test_a_byte_that_is_flipped_anywhere_is_found():
    positions = {*range(0, len(DATA), 13), *range(60), *range(len(DATA) - 200, len(DATA))}
    for number, position in enumerate(sorted(positions)):
        bad = bytearray(DATA)
        bad[position] ^= (0x01, 0x80, 0xFF)[number % 3]
        refusal(bytes(bad))


def test_damage_inside_a_member_names_the_member():
    with zipfile.ZipFile(io.BytesIO(DATA)) as archive:
        info = archive.getinfo(ACCEL_FILE)
    bad = bytearray(DATA)
    bad[info.header_offset + 30 + len(ACCEL_FILE) + info.compress_size // 2] ^= 0x10
    error = refusal(bytes(bad))
    assert f"member {ACCEL_FILE} is damaged" in str(error)
    assert error.hint.startswith("copy it again")


def test_a_file_that_is_cut_off_anywhere_is_refused():
    for length in {*range(0, len(DATA), 29), *range(40), *range(len(DATA) - 180, len(DATA))}:
        error = refusal(DATA[:length])
        assert "cut off" in str(error) or length < 4
    assert "empty file" in str(refusal(b""))


def test_bytes_behind_the_end_are_refused():
    assert "cut off or damaged" in str(refusal(DATA + b"\n"))


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_answered_with_an_error_of_ours(data: bytes) -> None:
    for tried in (data, b"PK\x03\x04" + data, data + DATA[-200:], DATA[:200] + data + DATA[200:]):
        if tried != DATA:
            with pytest.raises(BlossomError):
                read_bundle(tried)


def test_a_zip_of_another_program_is_no_bundle():
    buffer = io.BytesIO()
    parts, manifest = members()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {**parts, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, data)
    error = refusal(buffer.getvalue())
    assert "found a zip file without a seal" in str(error)
    assert "packed again" in error.hint


def test_what_is_no_zip_is_said():
    assert "found a file that is no zip, expected a bundle" in str(refusal(b"schema = 1\n" * 30))


# files


def test_a_file_is_read_from_disk_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "watch.bundle"
    path.write_bytes(DATA)
    assert read_bundle(path).device == "watch-1"
    path.write_bytes(DATA[:-1])
    with pytest.raises(ConfigError, match=f"{path}: the file is cut off"):
        read_bundle(path)


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file") as caught:
        read_bundle(tmp_path / "none")
    assert caught.value.error_id == "nothing-found"
    assert "export --bundle" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot be read"):
        read_bundle(tmp_path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match=f"found {MAX_FILE_BYTES + 1} bytes, expected at most {MAX_FILE_BYTES}"):
        read_bundle(path)
