"""Which profiles are for a board, and what of them is missing there."""

from __future__ import annotations

import pytest

from firmware_profiles.boards import Board, BoardFit, fitting
from firmware_profiles.loading import list_profiles, load_profile, profile_folders
from firmware_profiles.schema import Profile

FOLDER = profile_folders()[-1]
PI5 = Board(("raspberrypi,5-model-b", "brcm,bcm2712"), "Raspberry Pi 5 Model B Rev 1.0", "aarch64", 8250)


def _shipped() -> list[Profile]:
    return [load_profile(entry.id, folders=[FOLDER]) for entry in list_profiles([FOLDER])]


def _names(board: Board) -> tuple[list[str], list[str]]:
    """Profiles meant for the board, and those for any."""
    found = fitting(board, _shipped())
    return [f.profile.id for f in found if f.of_board], [f.profile.id for f in found if not f.of_board]


def _of(found: list[BoardFit], name: str) -> BoardFit:
    return next(fit for fit in found if fit.profile.id == name)


def test_a_raspberry_pi_5_gets_its_two_profiles_before_those_for_any_machine() -> None:
    assert _names(PI5) == (["rpi5-camera-mic", "rpi5-imu-ecg"], ["generic-mock", "serial-ecg"])
    assert [fit.missing for fit in fitting(PI5, _shipped())] == [()] * 4


@pytest.mark.parametrize("suffix", ["", "-super"])
def test_a_jetson_orin_nano_is_known_in_both_power_modes(suffix: str) -> None:
    board = Board((f"nvidia,p3768-0000+p3767-0005{suffix}", "nvidia,p3767-0005", "nvidia,tegra234"), "", "aarch64")
    assert _names(board)[0] == ["jetson-imu", "jetson-orin-nano-av"]


def test_another_module_on_the_same_carrier_is_another_board() -> None:
    assert _names(Board(("nvidia,p3768-0000+p3767-0000", "nvidia,tegra234"), "", "aarch64"))[0] == [
        "jetson-nx-imu-audio"
    ]


def test_a_pc_has_no_device_tree_and_gets_the_laptop() -> None:
    assert _names(Board(machine="x86_64")) == (["linux-laptop"], ["generic-mock", "serial-ecg"])


def test_an_unknown_arm_board_gets_only_what_is_for_any_machine() -> None:
    assert _names(Board(("acme,board", "acme,soc"), "", "aarch64")) == ([], ["generic-mock", "serial-ecg"])


def test_a_board_with_less_memory_fits_with_a_word_about_it() -> None:
    found = fitting(Board(PI5.compatible, "", "aarch64", ram_mb=4050), _shipped())
    assert _of(found, "rpi5-imu-ecg").missing == ("memory: found 4050 MB, the profile is for 8192 MB",)
    assert _of(found, "generic-mock").missing == ()


def test_what_firmware_keeps_of_the_memory_is_not_missed() -> None:
    """A Zero 2 W of 512 MB with 64 MB for graphics shows 429 MB; an 8 GB Jetson 7.4 GiB."""
    zero = fitting(Board(("raspberrypi,model-zero-2-w",), "", "aarch64", ram_mb=429), _shipped())
    assert _of(zero, "rpi-zero2-imu").missing == ()
    jetson = fitting(Board(("nvidia,p3768-0000+p3767-0005",), "", "aarch64", ram_mb=7990), _shipped())
    assert _of(jetson, "jetson-imu").missing == ()


def test_a_32_bit_system_is_said_to_be_one() -> None:
    (why,) = _of(fitting(Board(PI5.compatible, "", "armv7l"), _shipped()), "rpi5-imu-ecg").missing
    assert why.startswith("a 64-bit system: this one is armv7l")


def test_a_board_is_named_by_what_it_says_of_itself() -> None:
    assert PI5.title == "Raspberry Pi 5 Model B Rev 1.0"
    assert Board(("acme,board", "acme,soc"), "", "aarch64").title == "acme,board"
    assert Board(machine="x86_64").title == "x86_64 machine without device tree"
