"""`blossom-edge simulate`: equal seeds give equal bytes, and what cannot run is said at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blossom_edge.cli.main import program
from blossom_edge.console.program import run

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch]
SMALL = ("--devices", "4", "--rounds", "1", "--labels-per-class", "1", "--set", "training.epochs=1")


def _simulate(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(program, ["simulate", *SMALL, "--json", *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_equal_seeds_give_equal_results_and_another_seed_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = _simulate(capsys, "--seed", "3", "--data-dir", str(tmp_path / "a"))
    again = _simulate(capsys, "--seed", "3", "--data-dir", str(tmp_path / "b"))
    other = _simulate(capsys, "--seed", "4")
    assert first == again
    assert set(first["versions"]) == {"encoder/accel", "encoder/gyro"}
    for block, version in first["versions"].items():
        assert version["version"] == 1
        assert version["sha256"] != other["versions"][block]["sha256"]
    files = [sorted(p for p in (tmp_path / run / "gateway" / "versions").rglob("*") if p.is_file()) for run in "ab"]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    assert files[0]


def test_devices_have_mixed_profiles_and_send_no_private_block(capsys: pytest.CaptureFixture[str]) -> None:
    found = _simulate(capsys)
    assert [d["profile"] for d in found["devices"]][:4] == ["generic-mock", "jetson-imu", "rpi4-accel", "rpi4-gyro"]
    assert [d["private_blocks_sent"] for d in found["devices"]] == [0, 0, 0, 0]
    one, both = (next(d for d in found["devices"] if len(d["modalities"]) == n) for n in (1, 2))
    # one encoder of 150,976 float32 values up and as much down
    assert one["bytes_up_per_round"] == pytest.approx(150_976 * 4, rel=0.01)
    assert one["bytes_down_per_round"] == pytest.approx(150_976 * 4, rel=0.01)
    assert both["bytes_up_per_round"] == pytest.approx(2 * 150_976 * 4, rel=0.01)
    assert [r["round"] for r in found["rounds"]] == [1]
    assert 0.0 <= found["rounds"][0]["score"]["har.accuracy"] <= 1.0


def test_text_fits_80_columns_and_tells_rounds_bytes_and_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["simulate", *SMALL]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "encoder/accel version 1, sha256 " in shown
    assert "messages that carried a private block: none" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "rounds.min_devices=5"], "rounds.min_devices is 5, there are 4 devices: it never starts"),
        (["--set", "schedule.stop_rounds=0"], "the simulation never ends"),
        (["--federation", "hat"], "did you mean 'har'?"),
        (["--data-dir", "."], ". is not an empty folder"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    assert run(program, ["simulate", *SMALL, *words]) in (1, 2)
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
