"""A profile held against a federation: what does not fit is said exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from blossom_edge.client.fit import check_fit, load_device_profile, owned_modalities
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.load import load_federation
from firmware_profiles.loading import profile_folders

SHIPPED = [profile_folders()[-1]]
HAR = load_federation("har")


@pytest.mark.parametrize(
    ("name", "owned"),
    [
        ("generic-mock", ("accel", "gyro")),
        ("jetson-imu", ("accel", "gyro")),
        ("rpi4-accel", ("accel",)),
        ("rpi4-gyro", ("gyro",)),
        ("rpi5-imu-ecg", ("accel", "gyro")),
    ],
)
def test_every_shipped_profile_fits_the_preset_har(name: str, owned: tuple[str, ...]) -> None:
    profile = load_device_profile(name, folders=SHIPPED)
    assert check_fit(profile, HAR) == owned_modalities(profile, HAR) == owned


def mismatch(*sets: str, name: str = "rpi4-accel") -> str:
    with pytest.raises(ConfigError) as caught:
        check_fit(load_device_profile(name, sets=sets, folders=SHIPPED), HAR)
    assert caught.value.error_id == "federation-mismatch"
    assert caught.value.hint
    return str(caught.value)


SOURCE_100 = 'sensors.imu.sources=[{driver="iio", rate_hz=100}]'


def test_another_rate_without_resampling_is_told_with_the_key_to_add() -> None:
    text = mismatch(SOURCE_100, "modalities.accel.rate_hz=100", "modalities.accel.preprocess=[]")
    assert text == (
        "accel: the federation wants 50 Hz windows of 128 x 3 in m/s2, this profile gives 100 Hz: "
        'add preprocess = ["resample"]'
    )


def test_another_rate_with_resampling_fits_when_the_windows_last_as_long() -> None:
    sets = [SOURCE_100, "modalities.accel.rate_hz=100"]
    assert "windows of 128 every 64 at 100 Hz (1.28 s): set window = 256, hop = 128" in mismatch(*sets)
    sets += ["modalities.accel.window=256", "modalities.accel.hop=128"]
    assert check_fit(load_device_profile("rpi4-accel", sets=sets, folders=SHIPPED), HAR) == ("accel",)


def test_another_window_is_told_with_the_values_to_set() -> None:
    text = mismatch("modalities.accel.window=256")
    assert text.endswith("this profile gives windows of 256 every 64: set window = 128, hop = 64")


def test_another_unit_is_told_with_both_units() -> None:
    channels = ", ".join(f'{{name="{n}", unit="/", range=[-1, 1]}}' for n in ("ax", "ay", "az"))
    text = mismatch(f"sensors.imu.channels=[{channels}]")
    assert text.count("the federation wants") == 3
    assert "in m/s2, this profile gives ax in /" in text


def test_other_channels_or_another_order_of_them_are_refused() -> None:
    assert "this profile gives ax, ay" in mismatch('modalities.accel.channels=["ax", "ay"]')
    assert "this profile gives az, ay, ax" in mismatch('modalities.accel.channels=["az", "ay", "ax"]')


def test_all_modalities_that_do_not_fit_are_listed_together() -> None:
    text = mismatch("modalities.accel.window=256", "modalities.gyro.window=512", name="jetson-imu")
    assert text.startswith("accel: ")
    assert "; gyro: " in text


def test_a_profile_with_nothing_in_common_is_told_what_each_side_has(tmp_path: Path) -> None:
    shipped = (SHIPPED[0] / "rpi4-accel.toml").read_text()
    (tmp_path / "rpi4-other.toml").write_text(shipped.replace("modalities.accel", "modalities.shake"))
    profile = load_device_profile("rpi4-other", folders=[tmp_path, *SHIPPED])
    with pytest.raises(ConfigError) as caught:
        check_fit(profile, HAR)
    assert str(caught.value) == (
        "profile rpi4-other has shake, federation har learns from accel, gyro: nothing in common"
    )


def test_a_faulty_profile_becomes_a_configuration_error_of_ours() -> None:
    with pytest.raises(ConfigError, match="there is no profile 'jetson-imo'") as caught:
        load_device_profile("jetson-imo", folders=SHIPPED)
    assert (caught.value.error_id, caught.value.hint) == ("profile-not-found", "did you mean 'jetson-imu'?")
    assert caught.value.exit_status == 2
