"""Attributes of IIO devices: rates, ranges, the file that counts for a channel, and which channel is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.drivers.iio_channels import Pick, pick
from blossom_edge.sensors.drivers.iio_device import IioDevice, available, find_device
from firmware_profiles.schema import ProfileChannel


def device(root: Path, files: dict[str, str], *, name: str = "chip", number: int = 0) -> IioDevice:
    folder = root / f"sys/bus/iio/devices/iio:device{number}"
    for path, text in {"name": name, **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text + "\n")
    return IioDevice(folder, root / f"dev/iio:device{number}", name)


def channel(name: str, unit: str, low: float = -1.0, high: float = 1.0) -> ProfileChannel:
    return ProfileChannel.model_validate({"name": name, "unit": unit, "range": [low, high]})


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("10 20 50 100", 30, [10, 20, 50, 100]),
        ("12.500 26.000\n", 5, [12.5, 26.0]),
        ("[1 0.5 10]", 3.2, [1, 3.5, 10]),
        ("[1 0.5 10]", 3.5, [1, 3.5, 10]),
        ("[1 0.5 10]", 0.2, [1, 10]),
        ("[1 0.5 10]", 99, [1, 10]),
        ("[10 7 30]", 25, [10, 30, 30]),  # 10, 17, 24: the next would be 31
        ("", 1, []),
        ("soon", 1, []),
    ],
)
def test_lists_and_ranges_of_what_is_available_are_read(text: str, wanted: float, expected: list[float]) -> None:
    assert available(text, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(("asked", "set_to"), [(12.5, "12.5"), (13, "26"), (50, "52"), (416, "416"), (1, "12.5")])
def test_the_lowest_rate_that_is_not_below_the_one_asked_for_is_set(tmp_path: Path, asked: float, set_to: str) -> None:
    rates = "12.500 26.000 52.000 104.000 208.000 416.000"
    chip = device(tmp_path, {"sampling_frequency": "0", "sampling_frequency_available": rates, "in_accel_x_raw": "0"})
    assert chip.set_rate(["in_accel_x"], asked) == float(set_to)
    assert chip.read("sampling_frequency") == set_to


def test_a_rate_that_the_device_does_not_reach_is_refused_with_the_highest(tmp_path: Path) -> None:
    chip = device(tmp_path, {"sampling_frequency": "50", "sampling_frequency_available": "10 20 50 100 200 500"})
    with pytest.raises(ConfigError, match="rate_hz 501, the highest is 500"):
        chip.set_rate(["in_accel_x"], 501)


def test_rates_of_single_channels_and_of_their_kind_are_found_with_a_list_of_the_whole_device(tmp_path: Path) -> None:
    files = {"in_voltage0_sampling_frequency": "1600", "in_voltage3_sampling_frequency": "1600"}
    chip = device(tmp_path, {**files, "sampling_frequency_available": "128 250 490 920"})
    assert chip.set_rate(["in_voltage0", "in_voltage3"], 200) == 250
    assert [chip.read(name) for name in files] == ["250", "250"]
    kind = device(tmp_path, {"in_accel_sampling_frequency": "100"}, number=1)
    assert kind.set_rate(["in_accel_x", "in_accel_y"], 25) == 25
    assert kind.read("in_accel_sampling_frequency") == "25"


def test_a_device_without_rates_tells_none(tmp_path: Path) -> None:
    assert device(tmp_path, {"in_intensity_red_raw": "0"}).set_rate(["in_intensity_red"], 100) is None


MPU = {"in_accel_scale": "0.004785", "in_accel_scale_available": "0.000598 0.001196 0.002392 0.004785"}


@pytest.mark.parametrize(
    ("limit", "scale"),
    # largest value 32767: 2 g reaches 19.59, 4 g 39.19, 8 g 78.38, 16 g 156.79 m/s2; 1 % of rounding is no reason
    [
        (1.0, "0.000598"),
        (19.6, "0.000598"),
        (20.0, "0.001196"),
        (39.2, "0.001196"),
        (40.0, "0.002392"),
        (157, "0.004785"),
    ],
)
def test_the_finest_scale_whose_range_holds_that_of_the_profile_is_set(
    tmp_path: Path, limit: float, scale: str
) -> None:
    chip = device(tmp_path, MPU)
    chip.set_scale("in_accel_x", limit, 32767)
    assert chip.read("in_accel_scale") == scale


def test_a_range_beyond_the_largest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"in_accel_x: found a range up to 200, the largest is 156\.79"):
        device(tmp_path, MPU).set_scale("in_accel_x", 200, 32767)


def test_a_scale_of_the_list_is_written_as_the_list_spells_it(tmp_path: Path) -> None:
    # 0.000133090 written as 0.00013309 is another number of digits; some drivers compare them
    files = {"in_anglvel_scale": "0.001064724", "in_anglvel_scale_available": "0.000133090 0.001064724"}
    chip = device(tmp_path, files)
    chip.set_scale("in_anglvel_x", 4.0, 32767)
    assert chip.read("in_anglvel_scale") == "0.000133090"


def test_a_channel_s_own_file_counts_before_that_of_its_kind_and_that_of_the_device(tmp_path: Path) -> None:
    files = {"in_voltage0_scale": "1", "in_voltage_scale": "2", "scale": "3", "in_voltage-voltage_scale": "4"}
    chip = device(tmp_path, files)
    scales = {name: chip.number(f"in_{name}", "scale", 9) for name in ("voltage0", "voltage1", "temp")}
    assert scales == {"voltage0": 1, "voltage1": 2, "temp": 3}
    assert chip.number("in_voltage0-voltage1", "scale", 9) == 4
    assert chip.number("in_voltage0", "offset", 9) == 9


@pytest.mark.parametrize("text", ["1, 0; 0, 1", "a, b, c; 0, 1, 0; 0, 0, 1"])
def test_a_mount_matrix_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(HardwareError, match="expected three rows of three"):
        device(tmp_path, {"mount_matrix": text}).mount_matrix("in_accel_x")


def test_a_missing_device_is_said_with_those_that_are_there(tmp_path: Path) -> None:
    device(tmp_path, {}, name="bme280")
    with pytest.raises(HardwareError, match=r"no IIO device 'mpu6050', found bme280"):
        find_device(Host(tmp_path), "mpu6050")


def test_a_device_at_another_place_on_the_bus_is_said_with_its_place(tmp_path: Path) -> None:
    where = device(tmp_path, {}, name="mpu6050").where
    with pytest.raises(HardwareError, match=f"no IIO device 'mpu6050' at 1-0069, found it at {where}") as caught:
        find_device(Host(tmp_path), "mpu6050", at="1-0069")
    assert caught.value.hint == f'write at = "{where}" in its source, or leave it out'


def test_a_device_is_found_by_name_label_or_number(tmp_path: Path) -> None:
    device(tmp_path, {"label": "accel-base"}, name="mxc4005", number=11)
    device(tmp_path, {"label": "accel-display"}, name="mxc4005", number=2)
    host = Host(tmp_path)
    found = {name: find_device(host, name).folder.name for name in ("mxc4005", "accel-base", "iio:device11")}
    assert found == {"mxc4005": "iio:device2", "accel-base": "iio:device11", "iio:device11": "iio:device11"}


IMU = {f"in_{kind}_{axis}_raw": "0" for kind in ("accel", "anglvel", "magn") for axis in "xyz"}


def test_channels_are_guessed_by_unit_and_last_letter(tmp_path: Path) -> None:
    chip = device(tmp_path, {**IMU, "in_temp_raw": "0", "in_voltage0_raw": "0", "in_voltage1_raw": "0"})
    wanted = [channel("ax", "m/s2"), channel("gyro-z", "rad/s"), channel("my", "T"), channel("warmth", "Cel")]
    wanted += [channel("ecg", "V"), channel("lead1", "V")]
    names = [one.name for one in pick(wanted, {}, chip)]
    assert names == ["in_accel_x", "in_anglvel_z", "in_magn_y", "in_temp", "in_voltage0", "in_voltage1"]


def test_the_map_of_a_source_counts_before_the_guess_and_may_name_one_of_several_values(tmp_path: Path) -> None:
    chip = device(tmp_path, {**IMU, "in_rot_quaternion_raw": "0 0 0 0"})
    wanted = [channel("ax", "m/s2"), channel("qw", "/")]
    picks = pick(wanted, {"ax": "in_accel_y", "qw": "in_rot_quaternion[3]"}, chip)
    assert picks == (Pick("in_accel_y"), Pick("in_rot_quaternion", 3))


def test_a_channel_that_the_device_lacks_is_said_with_those_that_it_has(tmp_path: Path) -> None:
    chip = device(tmp_path, {"in_temp_input": "1", "in_pressure_input": "1"})
    with pytest.raises(ConfigError, match="no in_accel_x for channel ax, found in_pressure, in_temp"):
        pick([channel("ax", "m/s2")], {}, chip)


def test_a_map_with_a_typo_in_the_channel_s_name_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="map names v besides"):
        pick(
            [channel("ecg", "V")],
            {"v": "in_voltage3"},
            device(tmp_path, {"in_voltage2_raw": "0", **IMU, "in_voltage3_raw": "0"}),
        )
