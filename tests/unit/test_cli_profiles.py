"""`blossom-edge profiles`, `data` and `version`, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blossom_edge.cli.main import program
from blossom_edge.console.program import run
from firmware_profiles.loading import list_profiles, profile_folders

SHIPPED = [entry.id for entry in list_profiles([profile_folders()[-1]])]

BOARD = """
schema = 1
title = "My board"
extends = "rpi4-gyro"
[modalities.gyro]
hop = 400
"""


def _json(capsys: pytest.CaptureFixture[str], *args: str, status: int = 0) -> dict[str, object]:
    assert run(program, [*args, "--json"]) == status
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile of the person's own with a fault, in ./profiles."""
    file = tmp_path / "profiles" / "my-board.toml"
    file.parent.mkdir()
    file.write_text(BOARD)
    monkeypatch.chdir(tmp_path)
    return file


def test_list_names_the_shipped_profiles_with_their_modalities(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "profiles", "list")["profiles"]
    assert isinstance(found, list)
    assert [entry["id"] for entry in found] == SHIPPED
    assert {e["id"]: e["modalities"] for e in found}["rpi4-gyro"] == ["gyro"]
    run(program, ["profiles", "list"])
    table = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table[2:] if line[0] != " "] == SHIPPED


def test_list_says_in_words_how_far_each_profile_is_tested(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["profiles", "list"]) == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line for line in text.splitlines() if line and line[0] != " "}
    assert rows["jetson-imu"].endswith("proved")
    assert rows["rpi4-ecg"].endswith("data sheet")
    assert rows["my-board"].endswith("yours")
    assert "data sheet: never run on a board" in text
    found = _json(capsys, "profiles", "list")["profiles"]
    assert isinstance(found, list)
    assert {entry["tier"] for entry in found} == {"proved", "datasheet", None}
    assert run(program, ["profiles", "show", "rpi4-ecg"]) == 0
    assert "tested: never run on a board" in capsys.readouterr().out


def test_list_shows_a_faulty_profile_beside_the_good_ones(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["profiles", "list"]) == 0
    shown = capsys.readouterr()
    assert "not valid" in next(line for line in shown.out.splitlines() if line.startswith("my-board"))
    assert "hop 400 is longer than window 128" in shown.err


def test_show_gives_the_resolved_profile(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _json(capsys, "profiles", "show", "rpi4-gyro", "--set", "limits.train_nice=5")
    assert shown["id"] == "rpi4-gyro"
    assert isinstance(shown["limits"], dict)
    assert shown["limits"]["train_nice"] == 5
    assert len(str(shown["digest"])) == 64
    assert run(program, ["profiles", "show", "rpi4-gyro"]) == 0
    assert "rad/s" in capsys.readouterr().out


def test_misspelt_profile_gets_the_right_name_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["profiles", "show", "jetson-imo"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no profile 'jetson-imo'; did you mean 'jetson-imu'? [profile-not-found]\n"
    )


def test_validate_names_file_key_and_fault(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["profiles", "validate", str(board)]) == 2
    text = capsys.readouterr().out
    assert f"{board}: not valid" in text
    assert "modalities.gyro.hop: hop 400 is longer than window 128" in text
    profiles = _json(capsys, "profiles", "validate", "my-board", status=2)["profiles"]
    assert isinstance(profiles, list)
    assert [(p["name"], p["valid"], len(p["problems"])) for p in profiles] == [("my-board", False, 1)]


def test_validate_says_only_once_that_it_checks(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(program, ["profiles", "validate", str(board)])
    assert "next:" not in capsys.readouterr().out


WRONG = """
schema = 1
title = "Wrong sources"
[sensors.imu]
channels = [{ name = "ax", unit = "m/s2", range = [-39.2, 39.2] }]
[[sensors.imu.sources]]
driver = "iioo"
rate_hz = 50
[[sensors.imu.sources]]
driver = "iio"
rate_hz = 50
devise = "mpu6050"
[[sensors.imu.sources]]
driver = "mpu6050"
rate_hz = 50
address = 0x10
[[sensors.imu.sources]]
driver = "serial"
rate_hz = 50
port = "/dev/ttyACM0"
units = "furlong"
[modalities.accel]
sensor = "imu"
channels = ["ax"]
rate_hz = 50
window = 32
hop = 16
"""
OWN = WRONG[: WRONG.index("[[")] + WRONG[WRONG.index("[modalities") :]


def test_validate_holds_every_source_against_its_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(WRONG)
    profiles = _json(capsys, "profiles", "validate", str(file), status=2)["profiles"]
    assert isinstance(profiles, list)
    (found,) = profiles
    assert [problem.removeprefix(f"{file}: sensors.imu.sources.") for problem in found["problems"]] == [
        "0 (iioo): there is no such driver, did you mean 'iio'?",
        "1.device: is missing; devise: unknown key (did you mean 'device'?)",
        "2.address: found 0x10, expected 0x68 or 0x69",
        "3.units: found 'furlong' for ax, expected m/s2 or one of g, mg",
    ]


def test_validate_warns_of_a_driver_that_is_not_installed_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN + '[[sensors.imu.sources]]\ndriver = "not_here:Mine"\nrate_hz = 50\n')
    assert run(program, ["profiles", "validate", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{file}: valid\n"
    assert "sensors.imu.sources.0 (not_here:Mine): not_here:Mine cannot be imported" in said.err


def test_validate_names_a_class_that_its_module_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN + '[[sensors.imu.sources]]\ndriver = "json:Mine"\nrate_hz = 50\n')
    assert run(program, ["profiles", "validate", str(file)]) == 2
    assert "json:Mine cannot be imported" in capsys.readouterr().out


def test_validate_without_names_checks_all_that_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["profiles", "validate"]) == 0  # with their drivers and options
    assert capsys.readouterr().out.count(": valid\n") == len(SHIPPED)


def test_version_says_what_is_installed_and_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib import metadata

    found = _json(capsys, "version")
    assert isinstance(found["packages"], dict)
    assert found["packages"]["numpy"] == metadata.version("numpy")


def test_data_sample_writes_ten_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "people"
    assert run(program, ["data", "sample", str(folder)]) == 0
    assert capsys.readouterr().out == f"wrote the recordings of 10 people to {folder}\n"
    assert {"1", "10"} <= {path.name for path in folder.iterdir() if path.is_dir()}


def test_data_sample_refuses_a_file_as_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "people"
    file.write_text("mine")
    assert run(program, ["data", "sample", str(file)]) == 2
    assert capsys.readouterr().err.endswith("is a file, expected a folder; name a new folder [usage]\n")
    assert file.read_text() == "mine"
