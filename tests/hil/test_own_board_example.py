"""examples/own_board as its reader runs it: its test, `sensors find`, and short enough to be copied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "own_board"
FILES = ("lm75.py", "my-board.toml", "test_my_board.py")


def run(*command: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": "."} | ({"BLOSSOM_ROOT": str(root)} if root is not None else {})
    return subprocess.run([sys.executable, *command], cwd=FOLDER, env=env, capture_output=True, text=True, timeout=50)


def a_chip(root: Path) -> Path:
    chip = root / "sys/class/hwmon/hwmon3"
    chip.mkdir(parents=True)
    (chip / "name").write_text("lm75\n")
    (chip / "temp1_input").write_text("-4250\n")
    return chip


def test_the_example_is_shorter_than_sixty_lines() -> None:
    assert sum(len((FOLDER / name).read_text().splitlines()) for name in FILES) < 60


def test_its_test_passes_without_the_board() -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_board.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_find_proposes_its_source_line(tmp_path: Path) -> None:
    a_chip(tmp_path)
    command = ("-m", "blossom_edge.cli.main", "sensors", "find", "--profile", "./my-board.toml", "--json")
    done = run(*command, root=tmp_path)
    assert done.returncode == 0, done.stderr
    mine = [f for f in json.loads(done.stdout)["found"] if f["driver"] == "lm75:Lm75"]
    assert len(mine) == 1
    assert '[[sensors.air.sources]]\ndriver = "lm75:Lm75"\nrate_hz = 10.0' in mine[0]["source"]
    assert '{ name = "t", unit = "Cel", range = [-55.0, 125.0] }' in mine[0]["source"]


@pytest.mark.slow
def test_watch_shows_what_it_measures_and_says_when_it_is_gone(tmp_path: Path) -> None:
    chip = a_chip(tmp_path)
    command = ("-m", "blossom_edge.cli.main", "sensors", "watch", "--profile", "./my-board.toml", "--seconds", "1")
    done = run(*command, "--json", "--data-dir", str(tmp_path / "data"), root=tmp_path)
    assert done.returncode == 0, done.stderr
    air = json.loads(done.stdout)["sensors"]["air"]
    assert air["last"] == [-4.25]
    assert air["units"] == ["Cel"]
    shown = run(*command, "--data-dir", str(tmp_path / "data"), root=tmp_path)
    assert "air (lm75:Lm75)" in shown.stdout
    assert "-4.25 Cel" in shown.stdout
    (chip / "name").write_text("other\n")
    gone = run(*command, "--data-dir", str(tmp_path / "data"), root=tmp_path)
    assert gone.returncode == 4
    assert "no LM75 in /sys/class/hwmon" in gone.stderr
