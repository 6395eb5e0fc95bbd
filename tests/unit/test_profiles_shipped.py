"""Every shipped profile against what its chips, drivers and boards can do. Numbers are the kernel's and data sheets'.

Scales and rates: Linux, drivers/iio/{imu/inv_mpu6050/inv_mpu_core.c, imu/st_lsm6dsx/st_lsm6dsx_core.c,
imu/inv_icm42600/inv_icm42600_accel.c and _gyro.c, imu/bmi270/bmi270_core.c, health/max30102.c, adc/ti-ads1015.c}.
BME280: Bosch BST-BME280-DS002. Memory, on x86-64: 330 to 347 MiB while torch trains the encoders of the presets with
batches of 16 to 64; an agent with onnxruntime is bound to 85 MB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from blossom_edge.sensors.driver import SIMULATED, Request, driver_names, make_driver
from firmware_profiles.loading import list_profiles, load_profile, profile_folders
from firmware_profiles.schema import TIERS, Profile, ProfileSensor, Source

FOLDER = profile_folders()[-1]
NAMES = [
    "generic-mock", "jetson-agx-multimodal", "jetson-imu", "jetson-nx-imu-audio", "jetson-orin-nano-av",
    "linux-laptop", "rpi-zero2-env", "rpi-zero2-imu", "rpi4-accel", "rpi4-audio", "rpi4-ecg", "rpi4-gyro",
    "rpi4-ppg-imu", "rpi5-camera-mic", "rpi5-imu-ecg", "serial-ecg",
]  # fmt: skip
PROVED = {
    "generic-mock", "jetson-imu", "jetson-orin-nano-av", "rpi-zero2-imu", "rpi4-accel", "rpi4-audio", "rpi4-gyro",
    "rpi5-imu-ecg", "serial-ecg",
}  # fmt: skip
PARENTS = {"ads1115-ecg", "mpu6050", "rpi4-mpu6050", "usb-camera-mic", "usb-mic"}
BOARDS = {"jetson-": ("nvidia,",), "rpi": ("raspberrypi,",)}
MB_PER_MIB = 1.048576
TRAIN_MB, INFER_MB, DATA_MB = 347 * MB_PER_MIB, 85.0, 64.0
"""Resident memory of a process that trains with torch, of one that applies a model, and room for windows."""


@dataclass(frozen=True)
class Chip:
    """scales: unit -> SI units per step, or the largest value where there is no choice. bits: signed. rates: Hz."""

    full_scale: dict[str, tuple[float, ...]]
    rates_hz: tuple[float, ...] = ()
    lowest: dict[str, float] = field(default_factory=dict)


def _signed_16(*steps: float) -> tuple[float, ...]:
    return tuple(32767 * step for step in steps)


G = 9.80665
LSM6DSOX = Chip(
    {
        "m/s2": _signed_16(*(ug * G / 1e6 for ug in (61, 122, 244, 488))),
        "rad/s": _signed_16(*(math.radians(udeg / 1e6) for udeg in (8750, 17500, 35000, 70000))),
    },
    (12.5, 26, 52, 104, 208, 416),
)
MPU6050 = Chip(
    {
        "m/s2": _signed_16(0.000598, 0.001196, 0.002392, 0.004785),
        "rad/s": _signed_16(0.000133090, 0.000266181, 0.000532362, 0.001064724),
    },
    (10, 20, 50, 100, 200, 500),
)
ICM42688 = Chip(
    {
        "m/s2": _signed_16(0.000598550, 0.001197101, 0.002394202, 0.004788403),
        "rad/s": _signed_16(0.000133158, 0.000266316, 0.000532632, 0.001065264),
    },
    (12.5, 25, 50, 100, 200, 1000),
)
BMI270 = Chip(
    {
        "m/s2": _signed_16(0.000598, 0.001197, 0.002394, 0.004788),
        "rad/s": _signed_16(0.000066, 0.000133, 0.000266, 0.000532, 0.001065),
    },
    (25, 50, 100, 200, 400, 800, 1600),
)
ADS1115 = Chip({"V": (0.256, 0.512, 1.024, 2.048, 4.096, 6.144)}, (8, 16, 32, 64, 128, 250, 475, 860))
MAX30102 = Chip({"/": (2**18 - 1,)}, (100,))
BME280 = Chip(
    {"Cel": (85.0,), "%RH": (100.0,), "Pa": (110000.0,)}, (182,), lowest={"Cel": -40.0, "%RH": 0.0, "Pa": 30000.0}
)
CHIPS = {
    "mpu6050": MPU6050,
    "lsm6dsox_accel": LSM6DSOX,
    "lsm6dsox_gyro": LSM6DSOX,
    "adafruit_lsm6ds.lsm6dsox.LSM6DSOX": LSM6DSOX,
    "icm42688-accel": ICM42688,
    "icm42688-gyro": ICM42688,
    "bmi270": BMI270,
    "max30102": MAX30102,
    "bme280": BME280,
    "adafruit_bme280.basic.Adafruit_BME280_I2C": BME280,
    "adafruit_ads1x15.ads1115.ADS1115": ADS1115,
}


def _profile(name: str) -> Profile:
    return load_profile(name, folders=[FOLDER])


def _sources(profile: Profile) -> Iterator[tuple[str, ProfileSensor, Source]]:
    for name, sensor in profile.sensors.items():
        for source in sensor.sources:
            yield name, sensor, source


def _chip(source: Source) -> Chip | None:
    key = source.options.get("class") or source.options.get("device")
    return CHIPS[str(key)] if source.driver in ("iio", "adafruit") else MPU6050 if source.driver == "mpu6050" else None


every_profile = pytest.mark.parametrize("name", NAMES)


def test_sixteen_profiles_are_shipped_and_the_others_are_parents() -> None:
    entries = list_profiles(folders=[FOLDER])
    assert [(entry.id, entry.problem) for entry in entries] == [(name, "") for name in NAMES]
    assert {file.stem for file in FOLDER.glob("*.toml")} - set(NAMES) == PARENTS


def test_each_profile_says_how_far_it_is_tested() -> None:
    tiers = {entry.id: entry.tier for entry in list_profiles(folders=[FOLDER])}
    assert set(tiers.values()) == set(TIERS)
    assert {name for name, tier in tiers.items() if tier == "proved"} == PROVED


@every_profile
def test_a_profile_from_the_data_sheet_says_so_in_its_file(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    assert ("Never run on" in text.split("schema = 1")[0]) == (name not in PROVED)


@every_profile
def test_every_driver_is_known_and_takes_its_options(name: str) -> None:
    for sensor_name, sensor, source in _sources(_profile(name)):
        assert source.driver in (*driver_names(), *SIMULATED)
        if source.driver not in SIMULATED:
            options = {key: value for key, value in source.options.items() if key != "gain"}
            make_driver(Request(sensor_name, sensor.channels, source.rate_hz, sensor.shape, options), source)


@every_profile
def test_every_range_can_be_represented_by_a_scale_of_the_chip(name: str) -> None:
    for sensor_name, sensor, source in _sources(_profile(name)):
        chip, gain = _chip(source), float(source.options.get("gain", 1.0))
        for channel in sensor.channels if chip else ():
            scales = chip.full_scale[channel.unit] if chip else ()
            where = f"{sensor_name}.{channel.name} of {source.driver}"
            assert max(scales) >= max(abs(value) for value in channel.range) * gain * (1 - 5e-4), where
            if chip and channel.unit in chip.lowest:
                assert channel.range[0] >= chip.lowest[channel.unit], where


@every_profile
def test_every_rate_is_available_and_the_windows_rate_is_no_higher(name: str) -> None:
    profile = _profile(name)
    for sensor_name, _, source in _sources(profile):
        chip = _chip(source)
        if chip is not None:
            assert max(chip.rates_hz) >= source.rate_hz, sensor_name
        if source.driver == "mpu6050":
            assert 1000 / source.rate_hz == round(1000 / source.rate_hz), "its clock of 1 kHz is divided"
        if source.driver == "iio" and chip is not None and chip is not BME280:
            assert source.rate_hz in chip.rates_hz, f"{sensor_name}: the kernel would give another rate"
    for modality in profile.modalities.values():
        assert all(source.rate_hz >= modality.rate_hz for source in profile.sensors[modality.sensor].sources)


def test_the_ads1115_is_set_to_a_range_and_a_rate_that_it_has() -> None:
    for name in ("rpi4-ecg", "rpi5-imu-ecg"):
        sensor = _profile(name).sensors["ecg"]
        (source,) = sensor.sources
        setup = source.options["setup"]
        assert setup["gain"] == 1  # +-4.096 V in Adafruit's driver
        volts = max(sensor.channels[0].range) * source.options["gain"]
        assert volts == pytest.approx(0.5)
        assert volts <= 4.096
        assert setup["data_rate"] in ADS1115.rates_hz
        assert setup["data_rate"] >= source.rate_hz


def test_a_lead_that_fell_off_is_out_of_the_range_of_the_ecg() -> None:
    """A rail of 3.3 V is 1.65 V from the reference: 16.5 mV at the skin."""
    channel = _profile("rpi4-ecg").sensors["ecg"].channels[0]
    assert max(channel.range) < 1.65 / 100
    assert channel.unit == "V"


def test_both_boards_with_an_ecg_read_it_in_the_same_way() -> None:
    assert _profile("rpi4-ecg").sensors["ecg"] == _profile("rpi5-imu-ecg").sensors["ecg"]


@every_profile
def test_windows_last_from_a_fifth_of_a_second_to_a_minute(name: str) -> None:
    profile = _profile(name)
    for modality in profile.modalities.values():
        still = modality.window == 1 and bool(profile.sensors[modality.sensor].shape)
        assert 0.2 <= modality.window / modality.rate_hz <= 60.0
        assert modality.hop * 2 == modality.window or still


@every_profile
def test_the_memory_of_the_role_fits_the_board_and_the_limit(name: str) -> None:
    profile = _profile(name)
    need = (TRAIN_MB if profile.compute.role == "train" else INFER_MB) + DATA_MB
    assert need <= 0.8 * profile.hardware.ram_mb, "Linux sees about four fifths of a small board's memory"
    limit = profile.limits.memory_mb
    assert limit is None or need <= limit <= 0.8 * profile.hardware.ram_mb


def test_a_board_of_512_mb_cannot_train() -> None:
    assert TRAIN_MB + DATA_MB > 0.8 * 512
    assert {_profile(name).compute.role for name in NAMES if "zero2" in name} == {"infer", "personalize"}


@every_profile
def test_a_board_is_named_by_its_device_tree_and_no_other_machine_is(name: str) -> None:
    profile = _profile(name)
    makers = next((makers for start, makers in BOARDS.items() if name.startswith(start)), ())
    assert all(value.startswith(makers) for value in profile.hardware.match)
    assert bool(profile.hardware.match) == bool(makers)
    assert (profile.hardware.arch == "aarch64") == bool(makers)


@every_profile
def test_no_profile_holds_an_address_or_a_secret(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text().lower()
    assert not [word for word in ("password", "mqtt://", "mqtts://", "token", "/home/") if word in text]


@pytest.mark.parametrize("name", ["jetson-orin-nano-av", "jetson-agx-multimodal", "rpi5-camera-mic", "linux-laptop"])
def test_profiles_with_camera_and_microphone_fit_the_preset_for_sound_and_pictures(name: str) -> None:
    from blossom_edge.client.fit import check_fit
    from blossom_edge.federation.load import load_federation

    assert check_fit(_profile(name), load_federation("audio-image")) == ("audio", "image")


@pytest.mark.parametrize("name", [n for n in NAMES if "imu" in n])
def test_profiles_with_an_imu_fit_the_preset_for_exercises(name: str) -> None:
    from blossom_edge.client.fit import check_fit
    from blossom_edge.federation.load import load_federation

    assert check_fit(_profile(name), load_federation("har")) == ("accel", "gyro")


def test_the_page_lists_what_is_shipped_with_its_modalities_role_and_tier() -> None:
    page = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text("utf-8")
    rows = [
        line.split("|")[1:-1] for line in page.split("## What is shipped")[1].splitlines() if line.startswith("| `")
    ]
    told = {
        name.strip(" `"): (set(re.findall(r"`([^`]+)`", modalities)), role.strip(), tested.strip())
        for name, _, modalities, role, tested in rows
    }
    words = {"proved": "proved", "datasheet": "data sheet"}
    profiles = [_profile(name) for name in NAMES]
    assert told == {p.id: (set(p.modalities), p.compute.role, words[p.tier or ""]) for p in profiles}
