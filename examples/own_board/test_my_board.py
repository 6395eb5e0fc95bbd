from pathlib import Path

from blossom_edge.sensors.driver import Host
from blossom_edge.testing.conformance import Subject, run_checks
from firmware_profiles import load_profile


def test_my_board_passes_every_check_without_being_here(tmp_path: Path) -> None:
    chip = tmp_path / "sys/class/hwmon/hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("lm75\n")
    (chip / "temp1_input").write_text("21500\n")
    profile = load_profile(str(Path(__file__).with_name("my-board.toml")))
    subject = Subject("air", profile.sensors["air"], Host(root=tmp_path), seconds=1.0)
    assert [v for v in run_checks(subject) if v.status == "failed"] == []
    assert subject.heard.reading.values[0] == 21.5
