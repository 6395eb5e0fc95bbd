"""The ledger: numbered, chained, the same before and after a restart, refused when changed."""

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from aggregator.ledger import Ledger
from blossom_edge.core.errors import StorageError

FIRST = b'{"device":"pi-a","prev":"' + b"0" * 64 + b'","samples":3,"seq":1,"type":"accept"}'


def write_lines(path: Path, lines: list[bytes]) -> None:
    """A well-formed log with these records, whatever they say."""
    frames = []
    for line in lines:
        length = struct.pack("<I", len(line))
        frames.append(length + struct.pack("<I", zlib.crc32(length + line)) + line)
    path.write_bytes(b"".join(frames))


def make_line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def test_new_ledger_is_empty(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    assert (ledger.seq, ledger.head_hash, list(ledger.records), ledger.cut_bytes) == (0, "0" * 64, [], 0)
    ledger.close()


def test_record_is_canonical_json_with_number_and_hash_of_the_one_before(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    first = ledger.append({"type": "accept", "samples": 3, "device": "pi-a"})
    second = ledger.append({"type": "commit", "members": ("pi-a",)})
    ledger.close()
    assert (tmp_path / "ledger").read_bytes()[8 : 8 + len(FIRST)] == FIRST
    assert first == (1, hashlib.sha256(FIRST).hexdigest())
    assert second == (2, ledger.head_hash)
    assert ledger.records[1] == {"type": "commit", "members": ["pi-a"], "seq": 2, "prev": first[1]}


def test_restart_finds_equal_records_and_goes_on_with_the_chain(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    for number in range(3):
        ledger.append({"type": "accept", "number": number, "blocks": ("encoder/accel",), "name": "Zoë"})
    ledger.close()
    again = Ledger.open(tmp_path)
    assert list(again.records) == list(ledger.records)
    assert (again.seq, again.head_hash) == (3, ledger.head_hash)
    again.append({"type": "commit"})
    assert again.records[3]["prev"] == ledger.head_hash
    again.close()
    last = Ledger.open(tmp_path)
    assert last.seq == 4
    last.close()


def test_record_of_the_caller_may_change_without_changing_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    record = {"type": "freeze", "members": ["pi-a"]}
    ledger.append(record)
    record["members"].append("pi-b")  # type: ignore[attr-defined]  # the point of the test
    assert ledger.records[0]["members"] == ["pi-a"]
    ledger.close()


def test_torn_tail_is_cut_and_told(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append({"type": "open"})
    head = ledger.head_hash
    ledger.append({"type": "accept"})
    ledger.close()
    path = tmp_path / "ledger"
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    again = Ledger.open(tmp_path)
    assert (again.seq, again.head_hash) == (1, head)
    assert again.cut_bytes > 0
    again.close()


@pytest.mark.parametrize(
    "second",
    [
        make_line({"type": "commit", "seq": 2, "prev": "0" * 64}),
        make_line({"type": "commit", "seq": 3, "prev": hashlib.sha256(FIRST).hexdigest()}),
        make_line({"type": "commit", "seq": 2}),
        make_line({"seq": 2, "prev": hashlib.sha256(FIRST).hexdigest()}),
        b"not json",
        b"[" * 100_000,
        b"\xff\xfe",
        b"[]",
        b"",
    ],
    ids=["other-prev", "gap", "no-prev", "no-type", "no-json", "deep", "no-utf8", "list", "empty"],
)
def test_record_that_does_not_continue_the_chain_is_refused(tmp_path: Path, second: bytes) -> None:
    write_lines(tmp_path / "ledger", [FIRST, second])
    before = (tmp_path / "ledger").read_bytes()
    with pytest.raises(StorageError, match="record 2 does not continue") as caught:
        Ledger.open(tmp_path)
    assert caught.value.error_id == "ledger-damaged"
    assert (tmp_path / "ledger").read_bytes() == before


def test_changed_first_record_breaks_the_chain_behind_it(tmp_path: Path) -> None:
    second = make_line({"type": "commit", "seq": 2, "prev": hashlib.sha256(FIRST).hexdigest()})
    write_lines(tmp_path / "ledger", [FIRST, second])
    ledger = Ledger.open(tmp_path)
    assert ledger.seq == 2
    ledger.close()
    write_lines(tmp_path / "ledger", [FIRST.replace(b'"samples":3', b'"samples":4'), second])
    with pytest.raises(StorageError, match="record 2 does not continue"):
        Ledger.open(tmp_path)


@pytest.mark.parametrize(
    "record",
    [{}, {"type": 1}, {"type": "a", "seq": 1}, {"type": "a", "prev": ""}, {"type": "a", "score": float("nan")}],
)
def test_record_that_cannot_stand_in_the_ledger_is_refused_and_changes_nothing(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    ledger = Ledger.open(tmp_path)
    with pytest.raises(ValueError):  # noqa: PT011 - several texts
        ledger.append(record)
    assert ledger.append({"type": "a"})[0] == 1
    ledger.close()
