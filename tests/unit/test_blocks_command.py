"""`blossom-edge blocks`: what it shows, and a person's say, with and without a running device."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from support.swapping import ACCEL, FEDERATION, HEAD, KEYS, STORED, held_at, live_model, spoiled, tensors_of

from blossom_edge.cli import blocks as command
from blossom_edge.cli.main import program
from blossom_edge.client.actions import Held
from blossom_edge.client.store import Store
from blossom_edge.console.program import run
from blossom_edge.core.blocks import BlockKey
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.generation import Received
from blossom_edge.inference.live import LiveModel
from blossom_edge.inference.model_folder import ModelFolder, store_file

STAMP = "2026-03-01T10:00:00.000+00:00"


def opened(root: Path, *, running: bool = False) -> Store:
    store = Store(root, "pi")
    store.enter(FEDERATION)
    store.keep_status(
        {"device": "pi", "federation": "har", "pid": os.getpid(), "running_here": running, "private": ["head/other"]}
    )
    return store


def received(store: Store, live: LiveModel | None, held: dict[BlockKey, Received]) -> None:
    for key, version in held.items():
        store.keep_block(key, Held(version.version, version.sha256, version.data))
    if live is not None:
        live.offer(held, windows=STORED)
        live.proved()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A device that took versions 1 and 2, refused 3 of the head, and does not run now."""
    store = opened(tmp_path)
    live = live_model(store.place, boot=store.boot, stamp=lambda: STAMP)
    received(store, live, held_at(1))
    received(store, live, held_at(2))
    received(store, live, {HEAD: spoiled(HEAD, 3, np.nan)})
    store.close()
    return tmp_path


def call(root: Path, *words: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    """What the command says with --json."""
    assert run(program, ["blocks", *words, "--data-dir", str(root), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def listed(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    return {row["block"]: row for row in call(root, "list", capsys=capsys)["blocks"]}


def test_list_shows_what_is_in_use_before_it_newest_and_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(root, "list", capsys=capsys)
    assert (found["device"], found["federation"], found["generation"], found["trial"]) == ("pi", "har", 2, None)
    rows = {row["block"]: row for row in found["blocks"]}
    assert set(rows) == {str(key) for key in KEYS.values()}
    accel, head = rows["encoder/accel"], rows["head/har"]
    assert (accel["in_use"], accel["previous"], accel["newest"], accel["pinned"], accel["refused"]) == (
        2,
        1,
        2,
        None,
        [],
    )
    assert accel["since_utc"] == STAMP
    assert (head["in_use"], head["newest"]) == (2, 3)
    assert [(r["version"], r["by"]) for r in head["refused"]] == [(3, "check")]

    assert run(program, ["blocks", "list", "--data-dir", str(root)]) == 0
    text = capsys.readouterr().out
    assert "pi in federation har: generation 2" in text
    assert max(map(len, text.splitlines()[:9])) <= 80
    assert "refused (check): head/har: layers.0.bias has values that are not finite" in text
    assert "3 refused" in text


def test_list_only_reads_and_needs_no_lock(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    listed(root, capsys)
    call(root, "show", "encoder/accel", capsys=capsys)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_show_tells_the_tensors_of_a_block_in_numbers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(root, "show", "head/har", capsys=capsys)
    assert (found["version"], found["in_use"], found["since_utc"]) == (2, True, STAMP)
    assert found["skeleton"] == skeleton_digest(FEDERATION, HEAD.block)
    assert found["bytes"] == 4 * found["num_values"]
    tensors = {row["name"]: row for row in found["tensors"]}
    for name, values in tensors_of(HEAD.block, 2).items():
        row = tensors.pop(name)
        assert row["shape"] == list(values.shape)
        assert row["min"] == pytest.approx(values.min())
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-4, abs=1e-7)
        assert row["max"] == pytest.approx(values.max())
        assert row["norm"] == pytest.approx(np.linalg.norm(values.astype(np.float64)))
    assert tensors == {}
    assert run(program, ["blocks", "show", "head/har", "--data-dir", str(root)]) == 0
    text = capsys.readouterr().out
    assert "head/har version 2, in use since " in text
    assert "layers.0.weight" in text


def test_a_block_that_is_not_there_is_named_with_those_that_are(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("show", "encoder/audio"), ("rollback", "encoder/audio"), ("pin", "encoder/audio")):
        error = call(root, *words, capsys=capsys, status=2)["error"]
        assert error["id"] == "nothing-found"
        assert "'encoder/audio'" in error["message"]
        assert "encoder/accel" in error["hint"]


def test_rollback_and_pin_work_while_nothing_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = call(root, "rollback", "encoder/accel", capsys=capsys)
    assert (done["generation"], done["versions"]) == (3, {"encoder/accel": 1})
    row = listed(root, capsys)["encoder/accel"]
    assert (row["in_use"], row["newest"]) == (1, 2)
    assert row["refused"] == [{"version": 2, "reason": "rolled back by hand", "by": "person"}]
    assert call(root, "pin", "head/har", capsys=capsys)["versions"] == {"head/har": 2}
    error = call(root, "rollback", "head/har", capsys=capsys, status=2)["error"]
    assert error["message"] == "head/har is pinned to version 2"
    call(root, "pin", "--off", "head/har", "encoder/accel", capsys=capsys)
    rows = listed(root, capsys)
    assert (rows["head/har"]["pinned"], rows["encoder/accel"]["refused"]) == (None, [])
    assert call(root, "rollback", capsys=capsys)["versions"]["head/har"] == 1
    assert run(program, ["blocks", "rollback", "--data-dir", str(root)]) == 2
    assert "no version before the one in use is kept" in capsys.readouterr().err

    store = opened(root)
    live = live_model(store.place, boot=store.boot)
    assert live.current is not None
    assert set(live.current.shown().values()) == {1}, "and the device starts with it"
    store.close()


@contextmanager
def a_device(root: Path) -> Iterator[LiveModel]:
    """A device that runs in a thread, as its loop does."""
    store = opened(root, running=True)
    live = live_model(store.place, boot=store.boot)
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(0.01):
            live.take_orders()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield live
    finally:
        stop.set()
        thread.join(10.0)
        store.close()


def test_a_running_device_carries_an_order_out_and_answers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with a_device(root) as live:
        done = call(root, "rollback", "encoder/accel", capsys=capsys)
        assert done["versions"] == {"encoder/accel": 1}
        assert live.current is not None
        assert live.current.shown()["encoder/accel"] == 1
        assert call(root, "pin", "encoder/accel", capsys=capsys)["versions"] == {"encoder/accel": 1}
        assert live.folder.state.pinned[ACCEL].version == 1
        error = call(root, "rollback", "encoder/accel", capsys=capsys, status=2)["error"]
        assert "no version before" in error["message"]
        assert list((live.folder.path / "orders").iterdir()) == []


def test_a_device_that_does_not_answer_is_told_of_and_the_order_is_withdrawn(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "WAIT_S", 0.2)
    store = opened(root, running=True)
    try:
        error = call(root, "rollback", capsys=capsys, status=1)["error"]
        assert error["message"].startswith("the process of pi that runs did not answer")
        assert list(ModelFolder(store.place).path.glob("orders/*")) == []
    finally:
        store.close()
    assert listed(root, capsys)["encoder/accel"]["in_use"] == 2


def test_an_order_is_done_here_when_the_device_ends_before_it_answers(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = opened(root, running=True)
    folder = store.place / "model" / "orders"
    ended = threading.Thread(target=_close_once_asked, args=(store, folder))
    ended.start()
    assert call(root, "rollback", "head/har", capsys=capsys)["versions"] == {"head/har": 1}
    ended.join(10.0)
    assert list(folder.iterdir()) == []


def _close_once_asked(store: Store, folder: Path) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if list(folder.glob("*.ask")):
            break
        pause.wait(0.01)
    store.close()


def test_a_device_that_trains_shows_what_it_holds_and_has_nothing_to_roll_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = opened(tmp_path)
    received(store, None, held_at(4, ACCEL))
    store.close()
    found = call(tmp_path, "list", capsys=capsys)
    assert (found["role"], found["versions"], found["private"]) == ("train", {"encoder/accel": 4}, ["head/other"])
    assert run(program, ["blocks", "list", "--data-dir", str(tmp_path)]) == 0
    assert "stays on this device" in capsys.readouterr().out
    assert call(tmp_path, "show", "encoder/accel", capsys=capsys)["in_use"] is False
    for words in (("rollback",), ("pin", "encoder/accel")):
        error = call(tmp_path, *words, capsys=capsys, status=2)["error"]
        assert error["id"] == "usage"
        assert "role infer or personalize" in error["hint"]
    store_file(store.place, ACCEL).write_bytes(b"nonsense")
    assert call(tmp_path, "show", "encoder/accel", capsys=capsys, status=1)["error"]["id"] == "file-damaged"


def test_an_unknown_device_or_federation_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no device 'other'" in call(root, "list", "--id", "other", capsys=capsys, status=2)["error"]["message"]
    error = call(root, "list", "--federation", "ecg", capsys=capsys, status=1)["error"]
    assert error["message"] == "pi has not joined federation 'ecg'"


def test_status_of_a_device_that_does_not_run_tells_what_rollback_left(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "devices" / "pi" / "status.json"
    model = {"generation": 2, "versions": {}, "on_trial": False, "pinned": {}, "refused": [], "damage": []}
    model |= {"num_predicted": 0, "latency_ms": None, "scores": {}, "uses_own_head": {}}
    status = {**json.loads(path.read_text()), "role": "infer", "model": model}
    status |= {name: {} for name in ("score", "versions", "sent", "outcomes", "bytes")}
    status |= {"modalities": ["accel"], "round": 2, "phase": "waiting", "detail": "", "deadline_in_s": None}
    path.write_text(json.dumps(status))
    call(root, "rollback", "encoder/accel", capsys=capsys)
    assert run(program, ["status", "--data-dir", str(root), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["model"]
    assert shown["generation"] == 3
    assert (shown["versions"]["encoder/accel"], shown["versions"]["head/har"]) == (1, 2)
