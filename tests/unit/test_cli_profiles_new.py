"""`blossom-edge profiles detect`, `new` and `schema`, as a person calls them on a board that is a folder."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blossom_edge.cli import profile_new
from blossom_edge.cli.main import program
from blossom_edge.console.program import run
from blossom_edge.sensors.driver import Found, Host
from blossom_edge.testing.fake_iio import FakeIio
from blossom_edge.testing.fake_iio_parts import MPU6050
from firmware_profiles.json_schema import profile_json_schema
from firmware_profiles.loading import load_profile

IMU = Found(
    "mpu6050",
    "MPU-6050 on I2C bus 1",
    "imu",
    100.0,
    {"bus": 1, "address": 0x69},
    (("ax", "m/s2", -39.2, 39.2), ("gx", "rad/s", -8.73, 8.73)),
)
CAMERA = Found("camera", "camera HD", "cam", 5.0, {"device": "/dev/video0"}, (("grey", "/", 0.0, 1.0),), "", (96, 96))


@pytest.fixture
def pi5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a Raspberry Pi 5 with an I2C bus and an MPU-6050 that the kernel drives; we stand in a folder."""
    root = tmp_path / "root"
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    (tree / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    (root / "proc/meminfo").write_text("MemTotal:        8245248 kB\nMemFree: 1 kB\n")
    iio = root / "sys/bus/iio/devices/iio:device0"
    iio.mkdir(parents=True)
    (iio / "name").write_text("mpu6050\n")
    monkeypatch.setenv("BLOSSOM_ROOT", str(root))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return root


@pytest.fixture
def no_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_new, "_found", lambda _: [])


def _answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def _json(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert run(program, [*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_detect_names_the_board_its_profiles_and_what_is_missing(pi5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "profiles", "detect")
    assert found["board"]["title"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["board"]["compatible"] == ["raspberrypi,5-model-b", "brcm,bcm2712"]
    assert found["board"]["ram_mb"] == 8443  # 8245248 * 1024 / 1e6
    assert {p["id"]: p["of_board"] for p in found["profiles"]} == {
        "rpi5-camera-mic": True,
        "rpi5-imu-ecg": True,
        "generic-mock": False,
        "serial-ecg": False,
    }
    missing = {p["id"]: p["missing"] for p in found["profiles"]}
    assert missing["generic-mock"] == []
    (ecg,) = missing["rpi5-imu-ecg"]  # the IMU is there, by the kernel
    assert ecg.startswith("sensor ecg: no /dev/i2c-1")
    assert any("no /dev/video0" in why for why in missing["rpi5-camera-mic"])


def test_detect_sees_a_bus_that_is_switched_on(pi5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pi5 / "dev").mkdir()
    (pi5 / "dev/i2c-1").touch()
    (pi5 / "dev/ttyACM0").touch()
    found = {p["id"]: " ".join(p["missing"]) for p in _json(capsys, "profiles", "detect")["profiles"]}
    assert "i2c-1" not in found["rpi5-imu-ecg"]
    assert "ttyACM0" not in found["serial-ecg"]


def test_detect_fits_80_columns(pi5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["profiles", "detect"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("this board: Raspberry Pi 5 Model B Rev 1.0, 8443 MB\n")


def test_detect_tells_an_unknown_board_how_to_go_on(pi5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pi5 / "proc/device-tree/compatible").write_bytes(b"acme,board\0")
    assert run(program, ["profiles", "detect"]) == 0
    shown = capsys.readouterr()
    assert "no profile is for this board (acme,board); `blossom-edge profiles new` writes one" in shown.err
    assert "generic-mock" in shown.out


def test_new_writes_a_profile_without_asking(pi5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "compute.threads=2", "--set", "compute.device=cuda", "--set", 'hardware.match=["acme,wrist"]']
    assert _json(capsys, "profiles", "new", "wrist", "--from", "jetson-imu", "--yes", *sets) == {
        "id": "wrist",
        "path": "profiles/wrist.toml",
        "modalities": ["accel", "gyro"],
    }
    profile = load_profile("wrist")
    assert (profile.extends, profile.tier, profile.hardware.match) == ("jetson-imu", None, ("acme,wrist",))
    assert (profile.compute.threads, profile.compute.device) == (2, "cuda")
    assert profile.title == "wrist: Jetson Orin Nano, MPU-6050: accelerometer and gyroscope"


def test_new_starts_from_the_best_profile_for_the_board(pi5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["profiles", "new", "mine", "--yes"]) == 0
    parent = load_profile("mine").extends
    assert parent is not None
    assert parent.startswith("rpi5-")
    assert capsys.readouterr().out.startswith("wrote profiles/mine.toml (")


def test_new_never_overwrites_and_hides_no_shipped_profile(pi5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("profiles/mine.toml")
    file.parent.mkdir()
    file.write_text("# mine\n")
    for name in ("mine", "jetson-imu"):
        assert run(program, ["profiles", "new", name, "--from", "rpi4-gyro", "--yes"]) == 2
        assert "already; choose another name; nothing is overwritten [usage]" in capsys.readouterr().err
    assert file.read_text() == "# mine\n"
    assert [path.name for path in file.parent.iterdir()] == ["mine.toml"]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["My Board", "--yes"], "found the name 'My Board', expected small letters, digits and dashes"),
        (["../x", "--yes"], "found the name '../x'"),
        (["--yes"], "with --yes the profile needs a name"),
        (["x", "--yes", "--from", "jetson-imo"], "there is no profile 'jetson-imo'; did you mean 'jetson-imu'?"),
        (["x", "--yes", "--set", "compute"], "--set compute: expected KEY=VALUE"),
        (["x", "--yes", "--set", "tier=proved"], "--set tier=proved: tier has its own option, or none"),
        (["x", "--yes", "--set", "limits.train_nice=77"], "limits.train_nice: found 77, expected"),
    ],
)
def test_new_refuses_what_is_no_profile_and_writes_nothing(
    pi5: Path, args: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, ["profiles", "new", *args]) == 2
    shown = capsys.readouterr().err
    assert why in shown
    assert shown.count("\n") == 1
    assert not Path("profiles").exists()


@pytest.mark.usefixtures("no_sensors")
def test_new_asks_for_what_was_not_told(
    pi5: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _answers(monkeypatch, "chest", "rpi5-imu-ecg", "Around the chest", "y")
    assert run(program, ["profiles", "new"]) == 0
    shown = capsys.readouterr()
    assert "this board: Raspberry Pi 5 Model B Rev 1.0; for it there are rpi5-" in shown.err
    profile = load_profile("chest")
    assert (profile.extends, profile.title) == ("rpi5-imu-ecg", "Around the chest")


@pytest.mark.usefixtures("no_sensors")
@pytest.mark.parametrize(("answers", "status"), [((), 2), (("chest", "rpi5-imu-ecg", "title", "n"), 1)])
def test_new_writes_nothing_without_a_yes(
    pi5: Path,
    answers: tuple[str, ...],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _answers(monkeypatch, *answers)
    assert run(program, ["profiles", "new"]) == status
    assert "nothing was written" in capsys.readouterr().err
    assert not Path("profiles").exists()


def test_new_reads_the_sensor_that_was_found_in_place_of_the_parents_sources(
    pi5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_new, "_found", lambda _: [IMU, CAMERA])
    _answers(monkeypatch, "t", "y", "n", "y")
    assert run(program, ["profiles", "new", "mine", "--from", "rpi4-gyro"]) == 0
    profile = load_profile("mine")
    (source,) = profile.sensors["imu"].sources
    assert (source.driver, source.rate_hz, source.options) == ("mpu6050", 100.0, {"bus": 1, "address": 0x69})
    assert [channel.name for channel in profile.sensors["imu"].channels] == ["ax", "ay", "az", "gx", "gy", "gz"]
    assert sorted(profile.sensors) == ["imu"]


def test_new_makes_a_profile_from_found_sensors_alone(pi5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_new, "_found", lambda _: [IMU, CAMERA])
    _answers(monkeypatch, "none", "Found here", "y", "y", "y")
    assert run(program, ["profiles", "new", "mine"]) == 0
    profile = load_profile("mine")
    assert profile.extends is None
    assert {name: (m.sensor, m.channels, m.rate_hz, m.window, m.hop) for name, m in profile.modalities.items()} == {
        "accel": ("imu", ("ax",), 100.0, 256, 128),
        "gyro": ("imu", ("gx",), 100.0, 256, 128),
        "image": ("cam", ("grey",), 5.0, 1, 1),
    }
    assert profile.sensors["cam"].shape == (96, 96)


def test_new_from_none_takes_each_sensor_found_once_without_asking(pi5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(IMU, sensor="imu-2")
    monkeypatch.setattr(profile_new, "_found", lambda _: [IMU, replace(IMU, driver="iio"), other])
    assert run(program, ["profiles", "new", "mine", "--from", "none", "--yes"]) == 0
    profile = load_profile("mine")
    assert {name: [s.driver for s in sensor.sources] for name, sensor in profile.sensors.items()} == {
        "imu": ["mpu6050"],
        "imu-2": ["mpu6050"],
    }
    assert sorted(profile.modalities) == ["accel", "gyro", "imu-2-accel", "imu-2-gyro"]


@pytest.mark.usefixtures("no_sensors")
def test_new_from_none_needs_a_sensor(pi5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(program, ["profiles", "new", "mine", "--from", "none", "--yes"]) == 2
    assert "from the sensors that are found, and found none" in capsys.readouterr().err


def test_new_learns_nothing_from_the_temperature_of_a_motion_chip(pi5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm = ("temp", "Cel", -40.0, 85.0)
    air = replace(IMU, sensor="air", options={"bus": 2}, channels=(warm, ("p", "Pa", 3e4, 1.1e5)))
    monkeypatch.setattr(profile_new, "_found", lambda _: [replace(IMU, channels=(*IMU.channels, warm)), air])
    assert run(program, ["profiles", "new", "mine", "--from", "none", "--yes"]) == 0
    profile = load_profile("mine")
    assert {name: m.channels for name, m in profile.modalities.items()} == {
        "accel": ("ax",),
        "gyro": ("gx",),
        "air-1": ("temp",),
        "air-2": ("p",),
    }
    assert [channel.name for channel in profile.sensors["imu"].channels] == ["ax", "gx", "temp"]


def test_schema_is_the_same_with_and_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert _json(capsys, "profiles", "schema") == profile_json_schema()
    assert run(program, ["profiles", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == profile_json_schema()


def test_new_offers_what_the_drivers_find_on_the_board(pi5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pi5 / "sys/bus/iio/devices/iio:device0/name").unlink()
    (pi5 / "sys/bus/iio/devices/iio:device0").rmdir()
    with FakeIio(pi5) as fakes:
        fakes.add(MPU6050)
        found = [one.sensor for one in profile_new._found(Host(pi5)) if one.driver == "iio"]
        _answers(monkeypatch, "none", "Found here", *("y" for _ in range(4)))
        assert run(program, ["profiles", "new", "mine"]) == 0
    profile = load_profile("mine")
    assert sorted(profile.sensors) == found
    assert {"accel", "gyro"} <= set(profile.modalities)
    (source,) = profile.sensors[found[0]].sources
    assert (source.driver, source.options["device"]) == ("iio", "mpu6050")
