"""What is wrong with profile and labels is said before anybody is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from blossom_edge.cli.joining import check_known_labels
from blossom_edge.cli.main import program
from blossom_edge.client.fit import load_device_profile
from blossom_edge.console.program import run
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.load import load_federation
from blossom_edge.sensors.sources import check_sources
from firmware_profiles import Profile

TWO_SOURCES = """
schema = 1
title = "Two sources, the second is wrong"

[sensors.imu]
channels = [{ name = "ax", unit = "m/s2", range = [-39.2, 39.2] }]

[[sensors.imu.sources]]
driver = "iio"
rate_hz = 52
device = "lsm6dsox_accel"
gain = 2.0

[[sensors.imu.sources]]
driver = "DRIVER"
rate_hz = 52
OPTION

[modalities.accel]
sensor = "imu"
channels = ["ax"]
rate_hz = 52
window = 32
hop = 16
"""


def profile_file(folder: Path, driver: str, option: str) -> Path:
    path = folder / "two.toml"
    path.write_text(TWO_SOURCES.replace("DRIVER", driver).replace("OPTION", option))
    return path


def two(folder: Path, driver: str, option: str = "") -> Profile:
    return load_device_profile(str(profile_file(folder, driver, option)))


def test_a_source_that_is_right_passes_with_its_gain_and_without_its_hardware(tmp_path: Path) -> None:
    check_sources(two(tmp_path, "mpu6050", "bus = 7"))
    check_sources(two(tmp_path, "synthetic"))


@pytest.mark.parametrize(
    ("driver", "option", "message", "hint"),
    [
        ("mpu6050", "buss = 7", "sensor imu, source 2 (mpu6050): buss: ", "options of this driver: "),
        ("mpu6050", 'bus = "x"', "sensor imu, source 2 (mpu6050): bus: ", "options of this driver: "),
        ("mpu6051", "", "sensor imu, source 2 (mpu6051): there is no such driver, did you mean 'mpu6050'", "there are"),
        ("no_such:It", "", "sensor imu, source 2 (no_such:It): no_such:It cannot be imported", "PYTHONPATH"),
    ],
)  # fmt: skip
def test_a_wrong_source_is_told_though_it_is_not_the_first(
    tmp_path: Path, driver: str, option: str, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_sources(two(tmp_path, driver, option))
    assert caught.value.error_id == "profile-invalid"
    assert str(caught.value).startswith(message)
    assert hint in caught.value.hint


def test_join_ends_with_2_before_it_looks_for_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = profile_file(tmp_path, "mpu6050", "buss = 7")
    command = ["join", "--profile", str(path), "--gateway", "127.0.0.1:1", "--data-dir", str(tmp_path / "edge")]
    assert run(program, command) == 2
    assert "sensor imu, source 2 (mpu6050): buss: " in capsys.readouterr().err
    assert run(program, [*command, "--mock", "--wait=0.1"]) == 3  # nobody opens the source: the next thing is missing


def test_labels_are_held_against_the_federation_of_the_last_join() -> None:
    har = load_federation("har")
    check_known_labels({"sleep": "deep"}, None)
    check_known_labels({"har": har.tasks["har"].classes[0]}, har)
    with pytest.raises(ConfigError, match="label har=dance: found dance") as caught:
        check_known_labels({"har": "dance"}, har)
    assert caught.value.hint == "if the gateway has new tasks, join without --label first"
