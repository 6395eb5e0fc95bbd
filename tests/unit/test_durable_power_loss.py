"""What a power cut may leave: the real code on a recorded file system that forgets whatever was not synced.

The calls that the code makes are recorded; then hypothesis picks the moment of the cut and what of the unsynced bytes
and names happened to reach the disk, in any combination. The two seeded bugs show that the test can see.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.ledger import Ledger
from aggregator.spool import Spool
from blossom_edge.core.errors import StorageError

UPDATES = [b"update of pi-a", b"update of pi-b", b"update of pi-c"]


@dataclass
class Recorder:
    """The system calls of the code under test, as (operation, arguments)."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    by_fd: dict[int, int | str] = field(default_factory=dict)
    num_files: int = 0

    @contextmanager
    def recording(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        real = {name: getattr(os, name) for name in ("open", "write", "fsync", "fdatasync", "replace", "close")}

        def open_(path: Any, flags: int, *args: int, **kwargs: Any) -> int:
            is_new = bool(flags & os.O_CREAT) and not os.path.exists(path)
            fd: int = real["open"](path, flags, *args, **kwargs)
            if is_new:
                self.num_files += 1
                self.by_fd[fd] = self.num_files
                self.calls.append(("create", str(path), self.num_files))
            elif flags & os.O_DIRECTORY:
                self.by_fd[fd] = str(path)
            return fd

        def write(fd: int, data: Any) -> int:
            count: int = real["write"](fd, data)
            self.calls.append(("write", self.by_fd[fd], bytes(data[:count])))
            return count

        def sync(name: str) -> Callable[[int], None]:
            def call(fd: int) -> None:
                real[name](fd)
                what = self.by_fd[fd]
                self.calls.append(("sync" if isinstance(what, int) else "sync_folder", what))

            return call

        def replace(old: Any, new: Any) -> None:
            real["replace"](old, new)
            self.calls.append(("rename", str(old), str(new)))

        with patch.context() as inner:
            for name, fake in (("open", open_), ("write", write), ("replace", replace)):
                inner.setattr(os, name, fake)
            inner.setattr(os, "fsync", sync("fsync"))
            inner.setattr(os, "fdatasync", sync("fdatasync"))
            yield


def after_power_cut(calls: list[tuple[Any, ...]], moment: int, luck: Callable[[int], int]) -> dict[str, bytes]:
    """The files on the disk when power fails after `moment` calls; `luck(n)` picks 0..n of what was not synced."""
    content: dict[int, bytes] = {}
    synced: dict[int, int] = {}
    names: dict[str, int] = {}
    synced_names: dict[str, int] = {}
    pending: list[tuple[str, str, int]] = []
    for call in calls[:moment]:
        match call:
            case ("create", path, number):
                content[number], synced[number], names[path] = b"", 0, number
                pending.append(("", path, number))
            case ("write", number, data):
                content[number] += data
            case ("sync", number):
                synced[number] = len(content[number])
            case ("rename", old, new):
                names[new] = names.pop(old)
                pending.append((old, new, names[new]))
            case ("sync_folder", folder):
                others = {p: n for p, n in synced_names.items() if os.path.dirname(p) != folder}
                synced_names = others | {p: n for p, n in names.items() if os.path.dirname(p) == folder}
                pending = [change for change in pending if os.path.dirname(change[1]) != folder]
    for old, new, number in pending:
        if luck(1):
            synced_names.pop(old, None)
            synced_names[new] = number
    disk = {}
    for path, number in synced_names.items():
        kept = synced[number] + luck(len(content[number]) - synced[number])
        lost_to_zeros = luck(1) * (len(content[number]) - kept)
        disk[path] = content[number][:kept] + bytes(lost_to_zeros)
    return disk


def accept_updates(folder: Path, acknowledged: Callable[[int], None]) -> None:
    """What the gateway does with each update: spool, ledger, then the receipt."""
    spool, ledger = Spool(folder / "spool"), Ledger.open(folder)
    for number, update in enumerate(UPDATES):
        ledger.append({"type": "accept", "sha256": spool.put(update)})
        acknowledged(number)
    ledger.close()


def check_recovery(folder: Path, disk: dict[str, bytes], num_acknowledged: int) -> None:
    """Start from what is left on the disk: every receipt holds, and the ledger names only whole updates."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for name, data in disk.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)
    spool, ledger = Spool(folder / "spool"), Ledger.open(folder)
    ledger.close()
    kept = [record["sha256"] for record in ledger.records]
    assert kept == [hashlib.sha256(update).hexdigest() for update in UPDATES[: len(kept)]]
    assert len(kept) >= num_acknowledged, "a receipt was given, the record is lost"
    for sha256, update in zip(kept, UPDATES, strict=False):
        assert spool.has(sha256), "the ledger names a lost update"
        assert spool.get(sha256) == update


def sweep(folder: Path, patch: pytest.MonkeyPatch, forget: str = "") -> None:
    """Record one run, cut it everywhere; `forget` leaves out one kind of sync, as a bug would."""
    recorder, receipts = Recorder(), []
    with recorder.recording(patch):
        accept_updates(folder, lambda number: receipts.append(len(recorder.calls)))
    log = next(number for call, path, number in (c for c in recorder.calls if c[0] == "create") if "ledger" in path)
    is_left_out: dict[str, Callable[[tuple[Any, ...]], bool]] = {
        "sync of the update": lambda call: call[0] == "sync" and call[1] != log,
        "sync of the ledger": lambda call: call == ("sync", log),
        "sync of the folder": lambda call: call[0] == "sync_folder",
        "": lambda call: False,
    }
    calls = [("nothing",) if is_left_out[forget](call) else call for call in recorder.calls]

    @settings(
        max_examples=400,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(calls)), st.data())
    def cut(moment: int, data: st.DataObject) -> None:
        disk = after_power_cut(calls, moment, lambda n: data.draw(st.integers(0, n)))
        check_recovery(folder, disk, sum(moment >= receipt for receipt in receipts))

    cut()


def test_no_power_cut_loses_an_update_that_has_a_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path, monkeypatch)


@pytest.mark.parametrize("forget", ["sync of the update", "sync of the ledger", "sync of the folder"])
def test_a_forgotten_sync_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: str) -> None:
    with pytest.raises((AssertionError, StorageError)):
        sweep(tmp_path, monkeypatch, forget)
