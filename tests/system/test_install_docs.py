"""docs/install.md and docs/hardware.md: what of them can be run without a board is run, and their facts are ours."""

from __future__ import annotations

import configparser
import grp
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from aggregator.cli import program as aggregator_program
from blossom_edge.cli.main import program as edge_program
from blossom_edge.client import governor
from blossom_edge.sensors import health, resampling, units
from blossom_edge.sensors.driver import BUILT_IN, SIMULATED, Request, driver_class, make_driver
from blossom_edge.testing import faults
from firmware_profiles.schema import ProfileSensor, Source

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
INSTALL = (ROOT / "docs" / "install.md").read_text("utf-8")
HARDWARE = (ROOT / "docs" / "hardware.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROGRAMS = {"blossom-edge": edge_program, "blossom-aggregator": aggregator_program}


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def _section(page: str, heading: str) -> str:
    """The text below a heading, to the next one of its level or above."""
    match = re.search(rf"^(#+) (?:\d+\. )?{re.escape(heading)}$\n(.*)", page, re.MULTILINE | re.DOTALL)
    assert match is not None, heading
    return re.split(rf"^#{{1,{len(match[1])}}} ", match[2], maxsplit=1, flags=re.MULTILINE)[0]


def _rows(text: str) -> list[list[str]]:
    """The tables of a text without their heads and rules, cells stripped."""
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in text.splitlines() if line[:1] == "|"]
    heads = {i for i, row in enumerate(rows[1:]) if set(row[0]) <= {"-", "|", " "}}
    return [row for i, row in enumerate(rows) if i not in heads and i - 1 not in heads]


def _quoted(text: str) -> set[str]:
    """What stands in backquotes in the sentences and tables of a text."""
    return set(re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)))


def _parse(words: list[str]) -> None:
    command: click.Command = PROGRAMS[words[0]]
    rest = words[1:]
    while isinstance(command, click.Group):
        with click.Context(command) as context:
            _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    with command.make_context(command.name, rest):
        pass


def _commands_in_sentences() -> list[str]:
    """Calls in the running text and in units; those of `sh` blocks are tried by test_docs."""
    spans = [span for page in (INSTALL, HARDWARE) for span in re.findall(r"`(blossom-\w+ [^`]+)`", page)]
    starts = [line.split("/bin/", 1)[1] for line in INSTALL.splitlines() if line.startswith("ExecStart=")]
    return sorted(set(spans + starts))


@pytest.mark.parametrize("line", _commands_in_sentences())
def test_commands_in_sentences_and_units_parse(line: str) -> None:
    words = shlex.split(line)
    if "--profile" not in words and words[1] in ("doctor", "join"):
        words += ["--profile", "generic-mock"]  # named without its options
    _parse(words)


def test_both_pages_have_commands_to_try() -> None:
    for page in (INSTALL, HARDWARE):
        assert any(line.startswith("blossom-edge ") for block in _blocks(page, "sh") for line in block.splitlines())
    assert sum("ExecStart=" in line for line in INSTALL.splitlines()) == 2


def _sensors() -> dict[str, dict[str, Any]]:
    """The sensors that the TOML blocks describe; a later block may add sources to an earlier sensor."""
    merged: dict[str, dict[str, Any]] = {}
    for block in _blocks(HARDWARE, "toml"):
        for name, table in tomllib.loads(block)["sensors"].items():
            known = merged.setdefault(name, {"sources": []})
            known["sources"] += table.pop("sources", [])
            known.update(table)
    return merged


SOURCES = [(name, source) for name, table in _sensors().items() for source in table["sources"]]


@pytest.fixture
def own_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [b for b in _blocks(HARDWARE, "python") if "PolledDriver" in b]
    (tmp_path / "thermistor.py").write_text(block, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "thermistor", raising=False)


@pytest.mark.usefixtures("own_driver")
@pytest.mark.parametrize(("name", "source"), SOURCES, ids=lambda v: v["driver"] if isinstance(v, dict) else v)
def test_every_source_is_one_of_a_profile_and_its_driver_takes_the_options(name: str, source: dict[str, Any]) -> None:
    sensor = ProfileSensor.model_validate(_sensors()[name])
    read = Source.model_validate(source)
    options = {key: value for key, value in read.options.items() if key != "gain"}
    make_driver(Request(name, sensor.channels, read.rate_hz, shape=sensor.shape, options=options), read)


def test_every_driver_that_there_is_has_a_source_to_copy_and_a_row() -> None:
    shown = {source["driver"] for _, source in SOURCES}
    assert shown >= set(BUILT_IN)
    rows = {row[0].strip("`") for row in _rows(_section(HARDWARE, "Drivers").split("### ")[0])}
    assert rows == {*BUILT_IN, *SIMULATED, "module:Class"}


@pytest.mark.parametrize("driver", sorted(BUILT_IN))
def test_every_option_of_a_driver_is_mentioned_below_its_heading(driver: str) -> None:
    section = _section(HARDWARE, driver)
    keys = {key for block in _blocks(section, "toml") for key in re.findall(r"^(\w+) =", block, re.MULTILINE)}
    fields = driver_class(driver).Options.model_fields.items()
    options = {field.alias or name for name, field in fields} - {"format"}  # which has one value only
    assert options - keys - _quoted(section) == set()


@pytest.mark.parametrize("driver", sorted(BUILT_IN))
def test_the_extra_of_a_driver_is_that_of_its_row_and_is_in_the_package(driver: str) -> None:
    (row,) = [row for row in _rows(_section(HARDWARE, "Drivers")) if row[0] == f"`{driver}`" and len(row) == 3]
    extra = driver_class(driver).extra
    assert row[2].strip("`") == extra
    if extra:
        assert extra in PROJECT["project"]["optional-dependencies"]


def test_the_table_of_extras_has_those_of_the_package() -> None:
    rows = {row[0].strip("`") for row in _rows(_section(INSTALL, "What is installed")) if len(row) == 5}
    extras = set(PROJECT["project"]["optional-dependencies"]) - {"test", "dev"}
    assert rows >= extras, sorted(extras - rows)
    assert rows - extras == set(), "named in install.md, missing in pyproject.toml"


def test_extras_in_commands_exist() -> None:
    named = {e for found in re.findall(r'"\.\[([a-zA-Z0-9_,]+)\]"', INSTALL) for e in found.split(",")} - {"NAME"}
    assert named
    assert named <= set(PROJECT["project"]["optional-dependencies"])


def test_the_pythons_of_the_systems_are_supported() -> None:
    supported = {c.rsplit(" ", 1)[1] for c in PROJECT["project"]["classifiers"] if "Python :: 3." in c}
    rows = _rows(_section(INSTALL, "Which systems"))
    assert {v for row in rows for v in re.findall(r"3\.\d+", row[1])} == supported


def test_the_line_that_tells_the_bits_of_python_works() -> None:
    (line,) = [line for block in _blocks(INSTALL, "sh") for line in block.splitlines() if "calcsize" in line]
    words = shlex.split(line)
    assert words[0] == "python3"
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=True)
    assert done.stdout == f"{64 if sys.maxsize > 2**32 else 32}\n"


def _units() -> dict[str, str]:
    names = re.findall(r"`/etc/systemd/system/([\w-]+\.service)`", INSTALL)
    return dict(zip(names, _blocks(INSTALL, "ini"), strict=True))


def test_units_need_no_root_and_do_not_start_a_wrong_profile_again_and_again() -> None:
    assert len(_units()) == 2
    for text in _units().values():
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # its way to keep capitals
        unit.read_string(text)
        service = unit["Service"]
        assert service["User"] not in ("", "root")
        assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", sorted(_units()))
def test_systemd_finds_no_fault_in_a_unit(name: str, tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", _units()[name], flags=re.MULTILINE)
    (tmp_path / name).write_text(text, "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, timeout=30
    )
    found = [line for line in (done.stdout + done.stderr).splitlines() if name in line]
    assert (done.returncode, found) == (0, [])


def test_the_rule_for_iio_gives_a_group_all_that_the_driver_writes(tmp_path: Path) -> None:
    fake_iio = pytest.importorskip("blossom_edge.testing.fake_iio")
    parts = pytest.importorskip("blossom_edge.testing.fake_iio_parts")
    rules = [line for block in _blocks(HARDWARE, "text") for line in block.splitlines() if "SUBSYSTEM" in line]
    node, attributes = rules
    assert 'SUBSYSTEM=="iio", KERNEL=="iio:device*"' in node
    assert 'GROUP="iio", MODE="0660"' in node
    match = re.search(r'RUN\+="/bin/sh -c \'(.*)\'"$', attributes)
    assert match is not None
    with fake_iio.FakeIio(tmp_path) as machine:
        device = machine.add(parts.MPU6050)
        writable = [device.folder / "buffer/enable", device.folder / "scan_elements/in_accel_x_en"]
        assert all(path.exists() for path in writable)
        for path in writable:
            path.chmod(0o644)
        group = grp.getgrgid(os.getgid()).gr_name
        script = match[1].replace("iio /sys", f"{group} /sys").replace("/sys%p", str(device.folder))
        subprocess.run(["/bin/sh", "-c", script], check=True)
        assert [oct(path.stat().st_mode & 0o777) for path in writable] == ["0o664", "0o664"]


def test_the_numbers_of_sensor_health_are_those_of_the_code() -> None:
    text = " ".join(_section(HARDWARE, "When a sensor fails").split())
    said = {row[0].strip("`"): row[1] for row in _rows(_section(HARDWARE, "When a sensor fails"))}
    assert set(said) == set(get_args(health.State)) - {"ok"}
    assert f"before {health.NOTICE_WINDOWS} windows have passed" in text
    assert f"After {health.RECOVER_WINDOWS} good windows in a row" in text
    assert said["silent"] == f"no sample for {health.SILENT_S:g} s, and {health.SILENT_PERIODS:g} periods"
    assert f"more than {health.NAN_SHARE:.0%}".replace("%", " %") in said["nan"]
    assert f"more than {health.SATURATED_SHARE:.0%}".replace("%", " %") in said["saturated"]
    assert f"below {health.SLOW:g} or above {health.FAST:g} of the declared rate" in said["rate"]
    assert said["time"].startswith(f"{health.JUMPS} stamps")
    assert f"more than {health.JUMP_S:g} s and {health.JUMP_PERIODS:g} periods" in said["time"]
    assert f"{health.STUCK_SAMPLES} or more equal samples" in said["stuck"]
    assert f"{health.STUCK_FRAMES} or more equal frames" in said["stuck"]
    assert _quoted(said["stuck"]) == health.NOISY_UNITS
    assert _quoted(said["saturated"]) == health.BOUNDED_UNITS - health.NOISY_UNITS
    gaps = " ".join(_section(HARDWARE, "Units, rates, times").split())
    assert f"longer than {health.GAP_PERIODS:g} periods and {1000 * health.GAP_S:g} ms" in gaps


def test_the_numbers_of_the_governor_are_those_of_the_code() -> None:
    text = " ".join(_section(HARDWARE, "What the board can bear").split())
    assert f"less than {governor.NEEDED_MB:g} MiB" in text
    assert f"the battery is under {governor.MIN_BATTERY_PERCENT:g} %" in text
    assert f"{governor.MARGIN_K:g} K below that" in text
    assert f"After {governor.LONGEST_PAUSE_S:g} s, or half of" in text
    assert f"within {governor.LOW_BATTERY_PERCENT:g} % above" in text
    assert governor.SMALLER_SHARE == 0.5, "the page says half of the steps"


def test_the_units_that_are_converted_are_all_named() -> None:
    line = _section(HARDWARE, "Units, rates, times").split("Others are refused")[0]
    assert _quoted(line) == set(units._TO_BASE)
    text = " ".join(_section(HARDWARE, "Units, rates, times").split())
    assert f"weaker by {resampling.STOP_DB:g} dB, up to {resampling.PASS_EDGE:g} of it" in text


def test_fixtures_and_faults_are_those_of_the_kit() -> None:
    plugin = (ROOT / "blossom_edge" / "testing" / "plugin.py").read_text("utf-8")
    fixtures = set(re.findall(r"^@pytest\.fixture\ndef (\w+)", plugin, re.MULTILINE))
    section = _section(HARDWARE, "Test without hardware")
    assert {row[0].strip("`") for row in _rows(section)} == fixtures
    named = {re.sub(r"\(.*\)", "", word) for word in _quoted(section)}
    assert named >= set(faults.KNOWN)


@pytest.mark.parametrize("line", [line for b in _blocks(INSTALL, "sh") for line in b.splitlines() if "torch" in line])
def test_no_command_takes_torch_from_pypi_on_a_board(line: str) -> None:
    if line.startswith("pip install"):
        assert "--index-url" in line
        assert not re.search(r"\[[^\]]*torch", line)
