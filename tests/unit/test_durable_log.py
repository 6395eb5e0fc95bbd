"""The append-only log: a damaged tail is cut, damage before valid records is refused, nothing is ever made up."""

import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blossom_edge.core.errors import StorageError
from blossom_edge.durable import MAX_RECORD_BYTES, AppendLog

RECORDS = [b"first", b"", b"third \x00\xff record", b"4"]


def frame(record: bytes) -> bytes:
    """The layout, written out once more and independently."""
    length = struct.pack("<I", len(record))
    return length + struct.pack("<I", zlib.crc32(length + record)) + record


def write_log(path: Path, records: list[bytes]) -> bytes:
    log = AppendLog.open(path)
    for record in records:
        log.append(record)
    log.close()
    return path.read_bytes()


def read_log(path: Path) -> tuple[list[bytes], int]:
    log = AppendLog.open(path)
    log.close()
    return log.records, log.cut_bytes


def test_records_come_back_in_order_and_the_layout_is_length_crc_record(tmp_path: Path) -> None:
    data = write_log(tmp_path / "log", RECORDS)
    assert data == b"".join(map(frame, RECORDS))
    assert data[:13] == b"\x05\x00\x00\x00" + struct.pack("<I", zlib.crc32(b"\x05\x00\x00\x00first")) + b"first"
    assert read_log(tmp_path / "log") == (RECORDS, 0)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_torn_tail_at_every_byte_offset_is_cut_to_the_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = write_log(path, RECORDS)
    ends = [sum(len(frame(r)) for r in RECORDS[:n]) for n in range(len(RECORDS) + 1)]
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert read_log(path) == (RECORDS[:whole], cut - ends[whole])
        assert path.read_bytes() == data[: ends[whole]]
        log = AppendLog.open(path)
        log.append(b"after the crash")
        log.close()
        assert read_log(path) == ([*RECORDS[:whole], b"after the crash"], 0)


def test_every_bit_flip_before_a_valid_record_is_refused_and_the_file_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = write_log(path, RECORDS)
    start_of_last = len(data) - len(frame(RECORDS[-1]))
    for position in range(start_of_last):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(StorageError) as caught:
                AppendLog.open(path)
            assert caught.value.error_id == "ledger-damaged"
            assert path.read_bytes() == damaged


def test_every_bit_flip_in_the_last_record_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = write_log(path, RECORDS)
    start_of_last = len(data) - len(frame(RECORDS[-1]))
    for position in range(start_of_last, len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            assert read_log(path) == (RECORDS[:-1], len(frame(RECORDS[-1])))


def test_refusal_names_file_offset_and_next_step(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = bytearray(write_log(path, [b"aaaa", b"bbbb", b"cccc"]))
    data[12 + 8] ^= 1  # each frame has 12 bytes: this is the first letter of the second record
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"log is damaged at byte 12 \(record 2\).* follows at byte 24") as caught:
        AppendLog.open(path)
    assert "backup" in caught.value.hint


@pytest.mark.parametrize("num_zeros", [1, 7, 8, 4096])
def test_zeros_that_a_power_cut_leaves_behind_are_a_damaged_tail(tmp_path: Path, num_zeros: int) -> None:
    path = tmp_path / "log"
    data = write_log(path, RECORDS)
    path.write_bytes(data + bytes(num_zeros))
    assert read_log(path) == (RECORDS, num_zeros)
    assert path.read_bytes() == data


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=60))
def test_garbage_at_the_end_never_costs_a_record_and_never_becomes_one(
    tmp_path: Path, records: list[bytes], garbage: bytes
) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    data = write_log(path, records)
    path.write_bytes(data + garbage)
    assert read_log(path) == (records, len(garbage))


APPEND = (
    "import sys, pathlib; from blossom_edge.durable import AppendLog\n"
    "log = AppendLog.open(pathlib.Path(sys.argv[1]), name='ledger')\n"
    "for i in range(len(log.records), 3): log.append(b'record %d' % i); print(i, flush=True)\n"
)


@pytest.mark.parametrize("visit", [1, 2, 3])
@pytest.mark.parametrize("place", ["torn", "presync", "done"])
def test_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path, place: str, visit: int) -> None:
    path = tmp_path / "ledger"
    expected = [b"record 0", b"record 1", b"record 2"]
    command = [sys.executable, "-c", APPEND, str(path)]
    environment = {**os.environ, "BLOSSOM_FAILPOINT": f"ledger:{place}#{visit}"}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    acknowledged = len(killed.stdout.split())
    assert acknowledged == visit - 1
    found, cut = read_log(path)
    assert found == expected[: visit - 1 if place == "torn" else visit]
    assert (cut > 0) == (place == "torn")
    environment.pop("BLOSSOM_FAILPOINT")
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert read_log(path) == (expected, 0)


def test_log_takes_nothing_more_after_a_failed_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(fd: int) -> None:
        raise OSError(28, "No space left on device")

    log = AppendLog.open(tmp_path / "log")
    log.append(b"one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(StorageError, match="No space left") as caught:
            log.append(b"two")
        assert caught.value.error_id == "disk-failed"
    with pytest.raises(StorageError, match="takes no more records"):
        log.append(b"three")
    log.close()
    assert read_log(tmp_path / "log")[0][0] == b"one"


def test_half_written_record_of_a_full_disk_is_cut_at_the_next_start(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys, pathlib\n"
        "from blossom_edge.durable import AppendLog\n"
        "from blossom_edge.core.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "log = AppendLog.open(pathlib.Path(sys.argv[1]))\n"
        "log.append(b'x' * 50)\n"
        "try: log.append(b'y' * 50)\n"
        "except StorageError as error: sys.exit(7 if error.error_id == 'disk-failed' else 8)\n"
    )
    path = tmp_path / "log"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 7
    assert path.stat().st_size == 100
    assert read_log(path) == ([b"x" * 50], 42)


def test_record_above_the_bound_is_refused_before_it_is_written(tmp_path: Path) -> None:
    log = AppendLog.open(tmp_path / "log")
    with pytest.raises(ValueError, match=str(MAX_RECORD_BYTES)):
        log.append(bytes(MAX_RECORD_BYTES + 1))
    log.append(b"still usable")
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(b"late")
    assert read_log(tmp_path / "log") == ([b"still usable"], 0)


def test_log_in_a_missing_folder_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open") as caught:
        AppendLog.open(tmp_path / "nowhere" / "log")
    assert caught.value.error_id == "disk-failed"
