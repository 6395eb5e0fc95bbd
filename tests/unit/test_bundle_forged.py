"""Bundles whose parts somebody changed who then put every hash right: refused by name, before they cost much."""

from __future__ import annotations

import io
import json
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.bundles import ACCEL_FILE, OWN_HEAD, Manifest, Parts, forged, members, refusal

from blossom_edge.codec import safetensors_file
from blossom_edge.inference.sealed_zip import write_sealed


def retensor(file: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Parts, Manifest], None]:
    """Change the tensors of one member."""

    def apply(parts: Parts, manifest: Manifest) -> None:
        tensors, metadata = safetensors_file.read(parts[file])
        values = {name: t.copy() for name, t in tensors.items()}
        change(values)
        parts[file] = safetensors_file.write(values, metadata)

    return apply


def _put(parts: Parts, name: str, data: bytes) -> None:
    parts[name] = data


def _nan(tensors: dict[str, Any]) -> None:
    tensors["layers.0.weight"][3, 5] = np.nan


def _inf(tensors: dict[str, Any]) -> None:
    tensors["layers.0.weight"][0, 0] = np.inf


def _wide(tensors: dict[str, Any]) -> None:
    tensors["layers.0.bias"] = tensors["layers.0.bias"].astype(np.float64)


def _other_shape(tensors: dict[str, Any]) -> None:
    tensors["layers.0.bias"] = tensors["layers.0.bias"][:-1]


def _narrow(tensors: dict[str, Any]) -> None:
    tensors["layers.0.weight"] = tensors["layers.0.weight"][:, 1:]


def _renamed(tensors: dict[str, Any]) -> None:
    tensors["layers.0.b"] = tensors.pop("layers.0.bias")


def _swapped(parts: Parts, manifest: Manifest) -> None:
    gyro = "blocks/encoder.gyro.safetensors"
    parts[ACCEL_FILE], parts[gyro] = parts[gyro], parts[ACCEL_FILE]


def _newer_federation(parts: Parts, manifest: Manifest) -> None:
    manifest["federation"]["training"]["lr"] = 0.25


def _skeleton_of_head(parts: Parts, manifest: Manifest) -> None:
    head = f"skeletons/{manifest['blocks']['head/har']['skeleton']}.onnx"
    accel = f"skeletons/{manifest['blocks']['encoder/accel']['skeleton']}.onnx"
    parts[accel] = parts[head]


def _cut_skeleton(parts: Parts, manifest: Manifest) -> None:
    accel = f"skeletons/{manifest['blocks']['encoder/accel']['skeleton']}.onnx"
    parts[accel] = parts[accel][:-20]


def _no_encoder(parts: Parts, manifest: Manifest) -> None:
    for name in ("accel", "gyro"):
        skeleton = manifest["blocks"].pop(f"encoder/{name}")["skeleton"]
        parts.pop(f"skeletons/{skeleton}.onnx", None)
        del parts[f"blocks/encoder.{name}.safetensors"]


FORGED: dict[str, tuple[Callable[[Parts, Manifest], object], str]] = {
    "a newer schema": (lambda p, m: m.update(schema=2), r"manifest\.json: found schema 2, expected 1"),
    "no schema": (lambda p, m: m.pop("schema"), r"manifest\.json: schema: "),
    "an unknown key": (lambda p, m: m.update(more=1), r"manifest\.json: more: "),
    "another federation": (_newer_federation, r"found the federation of digest \w{12}, expected \w{12}"),
    "a broken federation": (
        lambda p, m: m["federation"].pop("tasks"),
        r"manifest\.json: federation: tasks: is missing",
    ),
    "a broken profile": (lambda p, m: m["profile"].pop("sensors"), r"manifest\.json: profile\."),
    "other labels": (lambda p, m: m["labels"]["har"].reverse(), r"labels\.har: not what the bundle's own federation"),
    "other spreads": (
        lambda p, m: m["preprocessing"]["accel"]["channels"][0].update(spread=1.0),
        r"preprocessing\.accel: not what",
    ),
    "an unknown modality": (lambda p, m: m["modalities"].append("lidar"), r"modalities: found lidar"),
    "a device without the modality": (lambda p, m: m["modalities"].remove("accel"), r"blocks: found encoder/accel"),
    "an unknown block": (
        lambda p, m: m["blocks"].update({"encoder/lidar": m["blocks"]["encoder/accel"]}),
        r"blocks: found encoder/lidar",
    ),
    "another block digest": (
        lambda p, m: m["blocks"]["encoder/accel"].update(digest="0" * 64),
        r'blocks\."encoder/accel"\.digest: found 000000000000, expected \w{12}',
    ),
    "another skeleton digest": (
        lambda p, m: m["blocks"]["encoder/accel"].update(skeleton="0" * 64),
        r'blocks\."encoder/accel"\.skeleton: found 000000000000, expected \w{12}',
    ),
    "a private block as shared": (
        lambda p, m: m["blocks"]["head/har"].update(private=False),
        r'blocks\."head/har": private and version',
    ),
    "a negative version": (
        lambda p, m: m["blocks"]["encoder/accel"].update(version=-1),
        r'blocks\."encoder/accel"\.version',
    ),
    "no encoder": (_no_encoder, r"found no encoder, expected one or more"),
    "a missing member": (lambda p, m: p.pop(ACCEL_FILE), rf"member {ACCEL_FILE} is missing"),
    "a missing head": (lambda p, m: p.pop(OWN_HEAD), rf"member {OWN_HEAD} is missing"),
    "an extra member": (lambda p, m: _put(p, "readme.txt", b"hello"), r"found member 'readme\.txt', which does not"),
    "a path": (lambda p, m: _put(p, "../../.profile", b"x"), r"found member '\.\./\.\./\.profile', which does not"),
    "an absolute path": (lambda p, m: _put(p, "/etc/x", b"x"), r"found member '/etc/x', which does not"),
    "NaN": (retensor(ACCEL_FILE, _nan), rf"{ACCEL_FILE}: layers\.0\.weight: found 1 values that are NaN or infinite"),
    "infinity": (retensor(OWN_HEAD, _inf), rf"member {OWN_HEAD}: .*layers\.0\.weight is float32 or not finite"),
    "float64": (retensor(ACCEL_FILE, _wide), r"layers\.0\.bias: found float64 \[16\], expected float32 \[16\]"),
    "another shape": (retensor(ACCEL_FILE, _other_shape), r"bias: found float32 \[15\], expected float32 \[16\]"),
    "another head shape": (retensor(OWN_HEAD, _other_shape), rf"member {OWN_HEAD}: .*shapes \(7, 26\) and \(6,\)"),
    "a head for less": (retensor(OWN_HEAD, _narrow), r"found 25 inputs and 7 outputs, expected 26 and 7"),
    "a head of another task": (lambda p, m: m["heads"].append("speed"), r"heads: found speed, expected some of har"),
    "another tensor name": (retensor(ACCEL_FILE, _renamed), rf"{ACCEL_FILE}: tensor layers\.0\.bias is missing"),
    "swapped blocks": (_swapped, rf"{ACCEL_FILE}: found the values of 'encoder/gyro', expected those of encoder/accel"),
    "no tensors": (lambda p, m: _put(p, ACCEL_FILE, b"\0" * 64), rf"member {ACCEL_FILE}: "),
    "the skeleton of another block": (_skeleton_of_head, r"member skeletons/\w{64}\.onnx: that of another block"),
    "half a skeleton": (_cut_skeleton, r"member skeletons/\w{64}\.onnx: "),
    "a larger skeleton": (
        lambda p, m: _put(p, next(n for n in p if n.endswith(".onnx")), b"\0" * 200_000),
        r"member skeletons/\w{64}\.onnx: found 200000 bytes, expected at most 98304",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_part_is_refused_by_name(what: str) -> None:
    change, message = FORGED[what]
    error = refusal(forged(change))
    assert re.search(message, str(error)), str(error)


def test_a_member_that_is_not_what_the_manifest_says_is_refused():
    longer = forged(lambda p, m: _put(p, ACCEL_FILE, p[ACCEL_FILE] + b"\0"), hashes=False)
    size = len(members()[0][ACCEL_FILE])
    assert f"member {ACCEL_FILE}: found {size + 1} bytes, expected {size}" in str(refusal(longer))
    other = forged(retensor(ACCEL_FILE, lambda t: t["layers.0.bias"].fill(0.5)), hashes=False)
    assert f"member {ACCEL_FILE}: found sha256 " in str(refusal(other))


def test_a_name_that_stands_twice_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members()[0].items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(ACCEL_FILE, b"second")
        archive.comment = b"blossom-edge bundle, sha256 of all before: " + b"0" * 64
    assert "a member stands in it twice" in str(refusal(buffer.getvalue()))


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = forged(lambda p, m: _put(p, ACCEL_FILE, bytes(64 << 20)))
    assert len(bomb) < 200_000
    tracemalloc.start()
    error = refusal(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"member {ACCEL_FILE}: found {64 << 20} bytes, expected at most " in str(error)
    assert peak < 8 << 20


def test_a_large_manifest_is_refused_before_it_is_unpacked():
    parts, _ = members()
    tracemalloc.start()
    error = refusal(write_sealed({**parts, "manifest.json": b" " * (32 << 20)}))
    tracemalloc.stop()
    assert f"member manifest.json: found {32 << 20} bytes, expected at most {8 << 20}" in str(error)


def test_a_list_of_too_many_members_is_refused():
    parts, manifest = members()
    many = {f"x{number}": b"" for number in range(5000)}
    error = refusal(write_sealed({**parts, **many, "manifest.json": json.dumps(manifest).encode()}))
    assert "expected at most 4096" in str(error)
