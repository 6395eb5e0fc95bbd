"""Profiles: found, merged, checked, and every fault named with file and key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from firmware_profiles.loading import (
    ProfileError,
    check_profile_text,
    is_toml_value,
    list_profiles,
    load_profile,
    profile_folders,
)
from firmware_profiles.schema import Profile

SHIPPED = [entry.id for entry in list_profiles(folders=[profile_folders()[-1]])]

BOARD = """
schema = 1
title = "A board"

[sensors.imu]
channels = [
  { name = "ax", unit = "m/s2", range = [-39.2, 39.2] },
  { name = "ay", unit = "m/s2", range = [-39.2, 39.2] },
]

[[sensors.imu.sources]]
driver = "iio"
rate_hz = 50
device = "mpu6050"

[modalities.accel]
sensor = "imu"
channels = ["ax", "ay"]
rate_hz = 50
window = 128
hop = 64
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "board.toml").write_text(BOARD)
    return tmp_path


def problems(folder: Path, text: str, *, sets: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The faults of a profile with this text, with the folder's path taken out."""
    (folder / "mine.toml").write_text(text)
    with pytest.raises(ProfileError) as caught:
        load_profile("mine", sets=sets, folders=[folder])
    assert caught.value.error_id == "profile-invalid"
    return tuple(line.replace(f"{folder}/", "") for line in caught.value.problems)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_survives_being_written_as_plain_values(name: str) -> None:
    profile = load_profile(name, folders=[profile_folders()[-1]])
    again = Profile.model_validate(profile.to_dict())
    assert again.digest == profile.digest
    assert len(profile.digest) == 64


def test_the_digest_changes_with_every_value(folder: Path) -> None:
    plain = load_profile("board", folders=[folder]).digest
    assert load_profile("board", folders=[folder], sets=["limits.train_nice=5"]).digest != plain


def test_a_child_merges_tables_and_replaces_arrays_and_scalars(folder: Path) -> None:
    (folder / "child.toml").write_text(
        'schema = 1\nextends = "board"\n[modalities.accel]\nhop = 32\nchannels = ["ay"]\n[hardware]\nboard = "Mine"\n'
    )
    child = load_profile("child", folders=[folder])
    assert (child.id, child.title, child.hardware.board) == ("child", "A board", "Mine")
    accel = child.modalities["accel"]
    assert (accel.channels, accel.window, accel.hop) == (("ay",), 128, 32)


def test_an_abstract_profile_is_only_a_parent_and_is_not_listed(folder: Path) -> None:
    (folder / "board.toml").write_text(BOARD.replace('title = "A board"', 'title = "A board"\nabstract = true'))
    (folder / "child.toml").write_text('schema = 1\nextends = "board"\n')
    with pytest.raises(ProfileError, match=r"board\.toml: abstract: this profile only serves as a parent"):
        load_profile("board", folders=[folder])
    assert load_profile("child", folders=[folder]).id == "child"
    assert [entry.id for entry in list_profiles([folder])] == ["child"]


def test_profiles_that_extend_each_other_are_named_in_their_order(folder: Path) -> None:
    (folder / "b.toml").write_text('schema = 1\nextends = "mine"\n')
    found = problems(folder, 'schema = 1\nextends = "b"\n')
    assert found == ("mine.toml: extends: profiles extend each other: mine -> b -> mine",)


def test_a_parent_may_be_a_path_seen_from_the_child(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "child.toml").write_text('schema = 1\nextends = "../board.toml"\n')
    assert load_profile(str(folder / "sub" / "child.toml"), folders=[]).title == "A board"


def test_a_missing_parent_is_reported_with_the_file_that_names_it(folder: Path) -> None:
    assert problems(folder, 'schema = 1\nextends = "bord"\n') == ("mine.toml: extends: there is no profile 'bord'",)


def test_the_first_folder_wins_and_a_path_works_too(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "board.toml").write_text(BOARD.replace("A board", "Another"))
    assert load_profile("board", folders=[other, folder]).title == "Another"
    assert load_profile(str(folder / "board.toml"), folders=[other]).title == "A board"


def test_folders_are_looked_through_from_the_nearest_to_the_shipped(tmp_path: Path) -> None:
    near, config, shipped = profile_folders({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}, tmp_path)
    assert (near, config) == (tmp_path / "profiles", Path("/c/blossom-edge/profiles"))
    assert (shipped / "jetson-imu.toml").is_file()
    assert profile_folders({"HOME": "/h"}, tmp_path)[1] == Path("/h/.config/blossom-edge/profiles")


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(ProfileError, match="there is no profile 'jetson-imo'") as caught:
        load_profile("jetson-imo", folders=[profile_folders()[-1]])
    assert (caught.value.error_id, caught.value.hint) == ("profile-not-found", "did you mean 'jetson-imu'?")


def test_only_profiles_that_can_be_joined_with_are_offered(folder: Path) -> None:
    (folder / "chip.toml").write_text("schema = 1\nabstract = true\n")
    with pytest.raises(ProfileError) as caught:
        load_profile("zzz", folders=[folder])
    assert caught.value.hint == "there are board"
    (folder / "mine.toml").write_text('schema = 1\nextends = "chipp"\n')  # as a parent it is offered
    with pytest.raises(ProfileError) as caught:
        load_profile("mine", folders=[folder])
    assert caught.value.hint == "did you mean 'chip'?"


def test_a_table_in_place_of_a_list_of_tables_is_told_its_brackets(folder: Path) -> None:
    one = BOARD.replace("[[sensors.imu.sources]]", "[sensors.imu.sources]")
    assert one != BOARD
    assert problems(folder, one) == (
        "mine.toml: sensors.imu.sources: found a table, expected a list: "
        "write [[sensors.imu.sources]] with two brackets",
    )


def test_a_path_that_is_not_there_is_not_taken_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no file") as caught:
        load_profile(str(tmp_path / "jetson-imu.toml"))
    assert caught.value.error_id == "profile-not-found"


def test_an_unknown_key_gets_a_suggestion_where_it_stands(folder: Path) -> None:
    found = problems(folder, BOARD.replace("rate_hz = 50\nwindow", "rate_hz = 50\nwindw = 1\nwindow"))
    assert found == ("mine.toml: modalities.accel.windw: there is no such key; did you mean 'window'?",)


def test_a_hop_longer_than_the_window_is_refused(folder: Path) -> None:
    found = problems(folder, BOARD.replace("hop = 64", "hop = 400"))
    assert found == ("mine.toml: modalities.accel.hop: hop 400 is longer than window 128, samples would be lost",)


def test_a_modality_of_an_unknown_sensor_is_refused(folder: Path) -> None:
    found = problems(folder, BOARD.replace('sensor = "imu"', 'sensor = "ium"'))
    assert found == ("mine.toml: modalities.accel.sensor: there is no sensor 'ium' here, only imu",)


def test_a_modality_of_an_unknown_channel_is_refused(folder: Path) -> None:
    found = problems(folder, BOARD.replace('channels = ["ax", "ay"]', 'channels = ["ax", "az"]'))
    assert found == ("mine.toml: modalities.accel.channels.1: sensor 'imu' has no channel 'az', only ax, ay",)


def test_a_unit_that_is_no_senml_symbol_is_refused(folder: Path) -> None:
    found = problems(folder, BOARD.replace('"ay", unit = "m/s2"', '"ay", unit = "g"'))
    assert len(found) == 1
    assert found[0].startswith("mine.toml: sensors.imu.channels.1.unit: found 'g', expected a SenML unit: m/s2, rad/s")


def test_two_faults_in_one_file_are_both_listed(folder: Path) -> None:
    text = BOARD.replace("hop = 64", "hop = 400").replace("title", "titel")
    assert problems(folder, text) == (
        "mine.toml: modalities.accel.hop: hop 400 is longer than window 128, samples would be lost",
        "mine.toml: titel: there is no such key; did you mean 'title'?",
        "mine.toml: title: is missing",
    )


def test_a_fault_is_reported_with_the_file_of_the_chain_in_which_it_stands(folder: Path) -> None:
    (folder / "board.toml").write_text(BOARD.replace("window = 128", "window = 0"))
    found = problems(folder, 'schema = 1\nextends = "board"\nhardwear = 1\n')
    assert found == (
        "board.toml: modalities.accel.hop: hop 64 is longer than window 0, samples would be lost",
        "board.toml: modalities.accel.window: found 0, expected greater than 0",
        "mine.toml: hardwear: there is no such key; did you mean 'hardware'?",
    )


def test_a_rate_that_no_source_gives_needs_resampling(folder: Path) -> None:
    text = BOARD.replace("rate_hz = 50\nwindow", "rate_hz = 25\nwindow")
    assert problems(folder, text) == (
        "mine.toml: modalities.accel.rate_hz: found 25 Hz, but source 'iio' of sensor 'imu' gives 50 Hz: "
        'add preprocess = ["resample"]',
    )
    (folder / "mine.toml").write_text(text + 'preprocess = ["resample"]\n')
    assert load_profile("mine", folders=[folder]).modalities["accel"].rate_hz == 25


def test_a_range_the_wrong_way_round_and_a_channel_twice_are_refused(folder: Path) -> None:
    text = BOARD.replace('"ay", unit = "m/s2", range = [-39.2, 39.2]', '"ax", unit = "m/s2", range = [1, -1]')
    found = problems(folder, text.replace('channels = ["ax", "ay"]', 'channels = ["ax"]'))
    assert found == (
        "mine.toml: sensors.imu.channels.1.name: a second channel 'ax'",
        "mine.toml: sensors.imu.channels.1.range: found [1, -1], expected the lower end first",
    )


def test_text_that_is_no_toml_is_reported_with_its_line(folder: Path) -> None:
    found = problems(folder, "schema = \n")
    assert len(found) == 1
    assert found[0].startswith("mine.toml: is no TOML: ")
    assert "line 1" in found[0]


def test_no_message_points_to_pydantic(folder: Path) -> None:
    for change in (("128", '"wide"'), ("schema = 1", "schema = 7"), ("[-39.2, 39.2]", "[1]"), ('"iio"', "3")):
        text = "\n".join(problems(folder, BOARD.replace(*change)))
        assert "pydantic" not in text
        assert "https" not in text
        assert text.startswith("mine.toml: ")


def test_set_takes_toml_values_and_bare_words(folder: Path) -> None:
    sets = ["compute.device=cuda", "limits.train_nice=7", 'modalities.accel.channels=["ay"]', "compute.threads=2"]
    profile = load_profile("board", folders=[folder], sets=sets)
    assert profile.compute.device == "cuda"
    assert (profile.limits.train_nice, profile.compute.threads) == (7, 2)
    assert profile.modalities["accel"].channels == ("ay",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limits.train_nice", "--set limits.train_nice: expected KEY=VALUE, for example limits.train_nice=5"),
        ("id=x", "--set id=x: id can only stand in a file"),
        ("limit.train_nice=5", "--set: limit: there is no such key; did you mean 'limits'?"),
        (
            "modalities.accel.hop=400",
            "--set: modalities.accel.hop: hop 400 is longer than window 128, samples would be lost",
        ),
    ],
)
def test_a_wrong_set_is_reported_as_such(folder: Path, text: str, expected: str) -> None:
    assert problems(folder, BOARD, sets=(text,)) == (expected,)


def test_a_faulty_profile_is_listed_with_its_fault(folder: Path) -> None:
    (folder / "mine.toml").write_text(BOARD.replace("hop = 64", "hop = 400"))
    good, bad = list_profiles([folder])
    assert (good.id, good.problem) == ("board", "")
    assert bad.id == "mine"
    assert "hop 400" in bad.problem


def test_an_id_that_is_not_the_name_of_the_file_is_refused(folder: Path) -> None:
    assert problems(folder, f'id = "other"\n{BOARD}') == ("mine.toml: id: found 'other', expected the file's name",)


def test_a_source_keeps_the_options_of_its_driver(folder: Path) -> None:
    source = load_profile("board", folders=[folder]).sensors["imu"].sources[0]
    assert (source.driver, source.rate_hz, source.options) == ("iio", 50, {"device": "mpu6050"})


def test_the_package_itself_loads_without_pydantic() -> None:
    code = "import sys, firmware_profiles; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_tier_is_a_files_own_and_no_part_of_the_type(folder: Path) -> None:
    plain = load_profile("board", folders=[folder])
    (folder / "board.toml").write_text('tier = "proved"\n' + BOARD)
    proved = load_profile("board", folders=[folder])
    assert (plain.tier, proved.tier) == (None, "proved")
    assert proved.digest == plain.digest
    (folder / "child.toml").write_text('schema = 1\nextends = "board"\n')
    assert load_profile("child", folders=[folder]).tier is None
    assert [entry.tier for entry in list_profiles([folder])] == ["proved", ""]
    assert problems(folder, BOARD, sets=("tier=proved",)) == ("--set tier=proved: tier can only stand in a file",)


def test_a_text_is_checked_as_if_it_stood_in_the_first_folder(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    text = 'schema = 1\nextends = "board"\nmodalities.accel.hop = 32\n'
    profile = check_profile_text(text, name="wrist", folders=[mine, folder])
    assert (profile.id, profile.extends, profile.modalities["accel"].hop) == ("wrist", "board", 32)
    assert not mine.exists()
    with pytest.raises(ProfileError) as caught:
        check_profile_text(text.replace("32", "400"), name="wrist", folders=[mine, folder])
    assert caught.value.problems == (
        f"{mine}/wrist.toml: modalities.accel.hop: hop 400 is longer than window 128, samples would be lost",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", True), ('"a"', True), ("[1, 2]", True), ("cuda", False), ("", False), ("1\nx = 2", False)],
)
def test_a_bare_word_is_no_toml_value(text: str, expected: bool) -> None:
    assert is_toml_value(text) is expected
