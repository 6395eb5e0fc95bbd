"""examples/pi_zero_infer as its reader runs it: the commands of its README, with a fake sensor and a real gateway."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from aggregator.cli import program as aggregator_program
from blossom_edge.cli.main import program as edge_program
from blossom_edge.testing.boards import FakeBoard
from blossom_edge.testing.processes import Gateway, Process

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "pi_zero_infer"
README = (FOLDER / "README.md").read_text("utf-8")
PROGRAMS = {"blossom-edge": edge_program, "blossom-aggregator": aggregator_program}
BLOCK = re.compile(r"^(?:<!-- run: (?P<name>[a-z]+) -->\n)?```sh\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
UNIT = FOLDER / "blossom-infer.service"
BLOCKS = {"encoder/accel", "encoder/gyro", "fusion/har", "fusion/har.accel", "fusion/har.gyro", "head/har"}

WITHOUT_TORCH = f"""#!{sys.executable}
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript"):
            raise ModuleNotFoundError(f"no module {{name}} on this board", name=name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, {str(ROOT)!r})
from blossom_edge.cli.main import main
main()
"""
"""`blossom-edge` as on the board: there is neither torch nor onnx."""


def _commands() -> dict[str, list[list[str]]]:
    """The marked commands of the README, in words."""
    return {
        match["name"]: [shlex.split(line, comments=True) for line in match["text"].splitlines()]
        for match in BLOCK.finditer(README)
        if match["name"]
    }


COMMANDS = _commands()


def _parses(words: list[str]) -> None:
    command: click.Command = PROGRAMS[words[0]]
    rest = words[1:]
    while isinstance(command, click.Group):
        with click.Context(command) as context:
            _, found, rest = command.resolve_command(context, rest)
        assert found is not None, words
        command = found
    with command.make_context(command.name, rest):
        pass


def _exec_start() -> list[str]:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # its way to keep capitals
    unit.read_string(UNIT.read_text("utf-8"))
    assert unit["Service"]["User"] not in ("", "root")
    assert unit["Service"]["RestartPreventExitStatus"] == "2"
    program, *rest = shlex.split(unit["Service"]["ExecStart"])
    return [Path(program).name, *rest]


# ---- without a gateway


def test_every_command_of_the_readme_and_of_the_unit_parses() -> None:
    lines = [words for block in COMMANDS.values() for words in block]
    called = [words[words.index("--") + 1 :] if "--" in words else words for words in lines]
    assert len(called) > 12
    for words in [*called, _exec_start()]:
        _parses(words)


def test_the_unit_runs_what_the_readme_says() -> None:
    assert _exec_start() == COMMANDS["infer"][0]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text("utf-8"), flags=re.MULTILINE)
    (tmp_path / UNIT.name).write_text(text, "utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    found = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert (done.returncode, found) == (0, [])


def test_links_of_the_readme_lead_somewhere() -> None:
    targets = [target.partition("#") for target in re.findall(r"\]\(([^)]+)\)", README)]
    assert targets
    for name, _, anchor in targets:
        page = (FOLDER / name) if name else FOLDER / "README.md"
        assert page.exists(), name
        headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, f"{name}#{anchor}"


def _says(*seen: tuple[str, float]) -> str:
    """A program that prints these predictions as `infer --json` does, and ends with 3."""
    lines = [json.dumps({"type": "prediction", "labels": [label], "confidence": sure}) for label, sure in seen]
    lines.append(json.dumps({"type": "summary", "num_predictions": len(seen)}))
    return f"import sys; assert sys.argv[1:] == ['--json']; print({chr(10).join(lines)!r}); sys.exit(3)"


def _watch(file: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "watch_class.py"), "PEN", str(file), "--", sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_watch_class_waits_for_two_equal_windows_and_passes_the_exit_code_on(tmp_path: Path) -> None:
    seen = [("PEN", 0.9), ("ROW", 0.9), ("PEN", 0.9), ("PEN", 0.7), ("PEN", 0.5), ("PEN", 0.9), ("ROW", 0.8)]
    done = _watch(tmp_path / "led", _says(*seen, ("ROW", 0.8), ("ROW", 0.1), ("ROW", 0.2)))
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines() == ["PEN", "ROW", "nothing sure"]
    assert (tmp_path / "led").read_text() == "0", "off at the end"


def test_watch_class_is_short_enough_to_be_copied() -> None:
    assert len((FOLDER / "watch_class.py").read_text().splitlines()) <= 45


@pytest.mark.slow
def test_the_board_is_found_good(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "BLOSSOM_ROOT": str(tmp_path / "board/root")}
    with FakeBoard("rpi-zero2-imu", tmp_path / "board"):
        for words in COMMANDS["board"]:
            command = [sys.executable, "-m", "blossom_edge.cli.main", *words[1:]]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50)
            assert done.returncode == 0, done.stdout + done.stderr


# ---- as a person does it


class Reader:
    """A person at the board and at the PC who types what the README says. Only addresses are others."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self.folder, self.gateway = folder, gateway
        self._bin = folder / "bin"
        self._bin.mkdir()
        program = self._bin / "blossom-edge"
        program.write_text(WITHOUT_TORCH, "utf-8")
        program.chmod(0o755)

    def at_board(self, words: list[str], *more: str, home: str = "board", name: str = "") -> Process:
        """Start a command on the board, where `blossom-edge` finds no torch."""
        program = sys.executable if words[0] == "python" else str(self._bin / words[0])
        script = [str(FOLDER / words[1])] if words[0] == "python" else [words[1]]
        rest = [word.replace("gateway.local:18830", self.gateway.address) for word in words[2:]]
        rest = [str(self.folder / word) if word.endswith(".txt") else word for word in rest]
        env = self._env(home) | {"BLOSSOM_ROOT": str(self.folder / home / "root")}
        env["PATH"] = os.pathsep.join([str(self._bin), os.environ["PATH"]])
        return self._start(name or words[1], [program, *script, *rest, *more], env)

    def at_pc(self, words: list[str], name: str) -> Process:
        """Start `blossom-edge` on the PC, where torch is."""
        rest = [word.replace("localhost:18830", self.gateway.address) for word in words[1:]]
        rest = [str(self.folder / word) if word.startswith("people/") else word for word in rest]
        return self._start(name, [sys.executable, "-m", "blossom_edge.cli.main", *rest], self._env(name))

    def ask(self, words: list[str], *more: str, home: str = "board") -> str:
        """A command on the board that ends by itself, and well; what it prints."""
        name = f"ask{len(self.gateway.devices)}"
        done = self.at_board(words, *more, home=home, name=name)
        assert done.wait(30.0) == 0, done.out + done.err
        return done.out

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        return self.gateway.wait_for(condition, what, timeout_s=50.0)

    def status(self, home: str) -> dict[str, Any]:
        """What the board's device says of itself; empty before it did."""
        for path in (self.folder / home / "state/blossom-edge/devices").glob("*/status.json"):
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        return {}

    def _env(self, home: str) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.folder / home / "state")}

    def _start(self, name: str, command: list[str], env: dict[str, str]) -> Process:
        process = Process(name, command, self.folder, env=env)
        self.gateway.devices.append(process)
        return process


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """The gateway of the README, and two people's recordings that learn."""
    for module in ("onnxruntime", "torch", "seglearn"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    words = COMMANDS["gateway"][0]
    assert words[1:4] == ["serve", "--federation", "har"]
    options = words[4 : words.index("--listen")]
    with Gateway(tmp_path / "gateway", federation="har", options=options) as gateway:
        reader = Reader(tmp_path, gateway)
        sample = reader.at_pc(COMMANDS["sample"][0], "sample")
        assert sample.wait() == 0, sample.err
        for number, words in enumerate(COMMANDS["learners"]):
            reader.at_pc(words, f"learner{number}")
        yield reader


def _predictions(process: Process) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.out.splitlines() if line.startswith('{"type"') and line.endswith("}")]
    return [line for line in lines if line["type"] == "prediction"]


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.broker
@pytest.mark.timeout(150)
def test_a_board_without_torch_predicts_goes_back_watches_and_learns_a_head(reader: Reader, tmp_path: Path) -> None:
    with FakeBoard("rpi-zero2-imu", tmp_path / "board"), FakeBoard("rpi-zero2-imu", tmp_path / "second"):
        own = reader.at_board(COMMANDS["personalize"][0], "--json", "--id=second", home="second", name="personalize")
        infer = reader.at_board(COMMANDS["infer"][0], "--json")
        reader.wait_for(lambda: reader.status("second").get("federation"), "the second board has joined")
        reader.ask(COMMANDS["label"][0], home="second")

        reader.wait_for(lambda: len(_predictions(infer)) > 3, "predictions")
        mapped = Path(f"/proc/{infer.pid}/maps").read_text()
        assert "onnxruntime" in mapped
        assert "libtorch" not in mapped
        reader.wait_for(lambda: reader.status("board")["model"].get("generation", 0) > 1, "a live exchange")
        assert infer.end(signal.SIGTERM) == 0, infer.err
        _check_predictions(_predictions(infer))
        (device,) = [d for d in reader.gateway.status()["devices"] if d["id"] == reader.status("board")["device"]]
        assert device["predictions"][0]["labels"], "--publish sent it"

        _check_blocks(reader)
        alone = reader.ask(COMMANDS["alone"][0], "--json", "--count", "2").splitlines()
        assert [json.loads(line)["type"] for line in alone] == ["prediction", "prediction", "summary"]
        reader.ask(COMMANDS["watch"][0], "--count", "2")

        reader.wait_for(lambda: any(p["personal"] for p in _predictions(own)), "a prediction of the own head")
        said = next(p for p in _predictions(own) if p["personal"])
        assert said["labels"] == ["PEN"], "the one class that it was told"
        assert said["versions"]["head/har"] >= 1
        reader.ask(COMMANDS["label"][1], home="second")
        assert reader.ask(COMMANDS["label"][-1], home="second").strip().endswith("no label")
        assert own.end(signal.SIGTERM) == 0, own.err


def _check_predictions(found: list[dict[str, Any]]) -> None:
    assert [p["number"] for p in found] == list(range(1, len(found) + 1)), "each window once"
    for prediction in found:
        assert set(prediction["versions"]) == BLOCKS
        assert min(prediction["versions"].values()) >= 1
        assert prediction["present"] == ["accel", "gyro"]
        assert 1 / 7 <= prediction["confidence"] <= 1
        assert prediction["end_s"] - prediction["start_s"] == pytest.approx(2.56)
        assert not prediction["personal"]


def _check_blocks(reader: Reader) -> None:
    """`blocks list|rollback|pin|pin --off`, on a board whose `infer` has ended."""
    listed, rollback, pin, free = COMMANDS["blocks"]

    def in_use() -> dict[str, int]:
        rows = json.loads(reader.ask(listed, "--json"))["blocks"]
        return {row["block"]: row["in_use"] for row in rows}

    before = in_use()
    assert set(before) == BLOCKS
    reader.ask(rollback)
    after = in_use()
    assert all(after[block] < before[block] for block in BLOCKS), (before, after)
    assert reader.ask(pin).startswith("encoder/accel: pinned to version")
    assert reader.ask(free).startswith("encoder/accel: follows the gateway again")
