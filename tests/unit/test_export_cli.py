"""`blossom-edge export`: what it writes, what it says, and which words it does not take."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from support.learning import TINY, tiny
from test_export_device import member

from blossom_edge.cli.main import program
from blossom_edge.console.program import run
from blossom_edge.federation.skeletons import skeleton_digest

SETS = [word for one in TINY for word in ("--set", one)]


def called(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    code = run(program, ["export", *words, "--json"])
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found.get("error", {}).get("id") != "unexpected", shown.err
    return code, found, shown.err


def needs_exporter() -> None:
    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "found none, expected one of --skeletons, --merged and --bundle"),
        (["--merged", "a", "--bundle", "b"], "found --merged and --bundle, expected one of"),
        (["--merged", "a", "--set", "seed=1"], "--set goes with --skeletons, not with --merged"),
        (["--skeletons", "a", "--task", "har"], "--task goes with --merged, not with --skeletons"),
        (["--skeletons", "a", "--data-dir", "x"], "--data-dir goes with --merged and --bundle, not with --skeletons"),
        (["--merged", "a", "--shared-only"], "--shared-only goes with --bundle, not with --merged"),
        (["--skeletons", "a"], "--skeletons needs --federation with a preset or a file"),
    ],
)
def test_what_does_not_go_together_is_said(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = called(*words, capsys=capsys)
    assert code == 2
    assert found["error"]["id"] == "usage"
    assert message in found["error"]["message"]


def test_the_skeletons_of_a_preset_are_in_the_package_so_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "skeletons"
    assert run(program, ["export", "--federation", "har", "--skeletons", str(folder)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "nothing to write: every skeleton of this federation comes with the package\n"
    assert "4 come with the package" in shown.err
    assert not folder.exists()


@pytest.mark.torch
@pytest.mark.slow
def test_skeletons_of_an_own_model_are_written_checked_and_the_next_step_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_exporter()
    folder = tmp_path / "skeletons"
    code, found, said = called("--federation", "har", *SETS, "--skeletons", str(folder), capsys=capsys)
    assert code == 0
    federation = tiny()
    digests = {skeleton_digest(federation, s.id) for s in federation.spec.blocks}
    assert {one["digest"] for one in found["written"]} == digests
    assert {path.name for path in folder.iterdir()} == {f"{digest}.onnx" for digest in digests}
    by_block = {block: one for one in found["written"] for block in one["blocks"]}
    assert by_block["encoder/accel"] is by_block["encoder/gyro"], "equal blocks share one"
    assert all(one["error"] <= 1e-5 and one["bytes"] < 4096 for one in found["written"])
    assert f"next: blossom-aggregator federations add-skeleton {folder}/*.onnx" in said


@pytest.mark.torch
def test_the_model_of_a_device_becomes_one_file_and_the_code_shown_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_exporter()
    member(tmp_path / "edge", tiny()).close()
    monkeypatch.chdir(tmp_path)
    code, found, said = called("--merged", "har.onnx", "--data-dir", "edge", capsys=capsys)
    assert code == 0
    assert (found["device"], found["task"], found["versions"]) == ("pi-1", "har", {"encoder/accel": 3})
    assert found["private"] == ["fusion/har.accel", "fusion/har", "head/har"]
    assert "who has the file has them" in said
    assert (tmp_path / "har.onnx").stat().st_mode & 0o077 == 0, "private blocks are in it"
    assert max(map(len, found["code"])) <= 90
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("\n".join(found["code"]), {})
    name, share = printed.getvalue().split()
    assert name in tiny().tasks["har"].classes
    assert 1 / 7 <= float(share) <= 1


def test_a_model_whose_head_was_never_trained_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = member(tmp_path / "edge", tiny())
    (store.place / "checkpoint.safetensors").unlink()
    store.close()
    code, found, _ = called("--merged", str(tmp_path / "x.onnx"), "--data-dir", str(tmp_path / "edge"), capsys=capsys)
    assert (code, found["error"]["id"]) == (1, "nothing-found")
    assert "fusion/har.accel, fusion/har, head/har have no trained values yet" in found["error"]["message"]
    assert not (tmp_path / "x.onnx").exists()


def test_the_task_must_be_one_of_the_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    member(tmp_path / "edge", tiny()).close()
    words = ["--merged", str(tmp_path / "x.onnx"), "--data-dir", str(tmp_path / "edge")]
    code, found, _ = called(*words, "--task", "speed", capsys=capsys)
    assert (code, found["error"]["id"]) == (2, "nothing-found")
    assert found["error"]["message"] == "pi-1 has no task 'speed'"
    code, found, _ = called("--merged", str(tmp_path), "--data-dir", str(tmp_path / "edge"), capsys=capsys)
    assert (code, found["error"]["id"]) == (2, "usage")
