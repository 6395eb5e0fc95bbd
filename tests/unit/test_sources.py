"""What is said of a driver's options that are wrong, and of the drivers of a profile, before hardware is touched."""

from __future__ import annotations

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.driver import driver_class
from blossom_edge.sensors.simulated import SimulatedSensor
from blossom_edge.sensors.sources import source_faults
from firmware_profiles import Profile, list_profiles, load_profile
from firmware_profiles.loading import profile_folders
from firmware_profiles.schema import Source

CHIP = {"class": "a.B", "read": ["x"]}
SHIPPED = [entry.id for entry in list_profiles([profile_folders()[-1]])]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_sources_of_a_shipped_profile_fit_their_drivers(name: str) -> None:
    assert [str(fault) for fault in source_faults(load_profile(name, folders=[profile_folders()[-1]]))] == []


@pytest.mark.parametrize(
    ("driver", "options", "said"),
    [
        ("iio", {}, "device: is missing"),
        ("iio", {"device": "x", "watermark": "many"}, "watermark: found 'many', expected a whole number"),
        ("iio", {"device": "x", "buffer": "maybe"}, "buffer: found 'maybe', expected true or false"),
        ("iio", {"device": "x", "map": []}, "map: found [], expected a table"),
        ("mpu6050", {"address": 0x10}, "address: found 0x10, expected 0x68 or 0x69"),
        ("adafruit", {**CHIP, "address": 3}, "address: found 0x3, expected greater than or equal to 0x8"),
        ("adafruit", {**CHIP, "bus": "one"}, "bus: found 'one', expected a whole number or 'i2c'"),
        ("adafruit", {"class": "a.B", "analog_in": [0, 9]},
         "analog_in[1]: found 9, expected less than or equal to 7 or a list"),
        ("adafruit", {**CHIP, "setup": {"mode": []}},
         "setup.mode: found [], expected a whole number or a number or text"),
        ("adafruit", {"class": "a.B"}, "give either read or analog_in"),
        ("camera", {"backend": "gstreemer"},
         "backend: found 'gstreemer' (did you mean 'gstreamer'?), expected 'opencv', 'picamera2' or 'gstreamer'"),
        ("camera", {"device": "cam0"}, "device: found 'cam0', expected a whole number or a path that starts with /"),
        ("serial", {"port": "/dev/x", "bauds": 9600}, "bauds: unknown key (did you mean 'baud'?)"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_said_with_key_found_and_expected(driver: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        driver_class(driver).Options.read(options, "here")
    assert (caught.value.error_id, str(caught.value)) == ("profile-invalid", f"here: {said}")


def test_a_sensor_that_no_modality_uses_is_checked_too_and_a_drivers_own_fault_is_no_crash() -> None:
    class_ = f"{__name__}:no_class"
    values = load_profile("generic-mock", folders=[profile_folders()[-1]]).to_dict()
    values["sensors"]["spare"] = {
        "channels": [{"name": "x", "unit": "V", "range": [0, 1]}],
        "sources": [
            {"driver": "iio", "rate_hz": 1.0, "device": "adc", "gain": 0},
            {"driver": class_, "rate_hz": 1.0},
            {"driver": "blossom_edge.sensors.driver:PolledDriver", "rate_hz": 1.0},
        ],
    }
    zero, no_class, abstract = source_faults(Profile.model_validate(values))
    assert str(zero) == "sensors.spare.sources.0.gain: found 0, expected a number other than 0"
    assert not no_class.elsewhere
    assert "its driver fails: TypeError: " in str(abstract)
    assert list(source_faults(Profile.model_validate(values), all_sensors=False)) == []


def test_a_recording_that_is_replayed_alone_has_times_of_now_and_each_part_begins_anew() -> None:
    class Two:
        channels, units, rate_hz, exhausted = ("x",), ("V",), 10.0, False

        def open(self) -> None: ...

        def close(self) -> None: ...

        def read(self, now: float) -> list[Reading]:
            return [Reading(np.array([0.0, 0.1]) + 5 * (now > 1001), np.zeros((2, 1)), recording=int(now > 1001))]

    sensor = SimulatedSensor(Two(), Source(driver="replay", rate_hz=10.0))
    assert sensor.read(1000.0)[0].times.tolist() == pytest.approx([999.9, 1000.0])
    assert sensor.read(1000.5)[0].times.tolist() == pytest.approx([999.9, 1000.0])  # the same clock goes on
    assert sensor.read(1002.0)[0].times.tolist() == pytest.approx([1001.9, 1002.0])
