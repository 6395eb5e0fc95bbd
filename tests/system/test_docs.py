"""The documentation is true: its links lead somewhere, its commands parse, those of the README run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from live import Program, call_json, free_port, is_free, until

from aggregator.cli import program as aggregator_program
from blossom_edge.cli.main import program as edge_program

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"blossom-edge": edge_program, "blossom-aggregator": aggregator_program}
BLOCK = re.compile(r"^(?:<!-- run: (?P<name>[a-z ]+) -->\n)?```sh\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
PORT = 18830


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs-{page.name}")
def test_every_link_to_a_page_of_ours_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def _commands(page: Path) -> list[list[str]]:
    found = []
    for match in BLOCK.finditer(page.read_text("utf-8")):
        for line in match["text"].replace("\\\n", " ").splitlines():
            if line.startswith(tuple(PROGRAMS)):
                found.append(shlex.split(line, comments=True))
    return found


ALL_COMMANDS = [(page.name, words) for page in PAGES for words in _commands(page)]


def test_there_are_commands_in_the_documentation() -> None:
    assert len(ALL_COMMANDS) > 20


@pytest.mark.parametrize(("page", "words"), ALL_COMMANDS, ids=lambda value: " ".join(value) if value else "")
def test_every_command_of_the_documentation_parses(page: str, words: list[str]) -> None:
    command: click.Command = PROGRAMS[words[0]]
    rest = words[1:]
    while isinstance(command, click.Group):
        with click.Context(command) as context:
            _, found, rest = command.resolve_command(context, rest)
        assert found is not None, f"{page}: {' '.join(words)}"
        command = found
    with command.make_context(command.name, rest):
        pass


def _readme_blocks() -> dict[str, list[list[str]]]:
    text = (ROOT / "README.md").read_text("utf-8")
    return {
        match["name"]: [shlex.split(line, comments=True) for line in match["text"].splitlines() if line]
        for match in BLOCK.finditer(text)
        if match["name"]
    }


class Desk:
    """A person with some terminals in one folder, who types what the README says."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.programs: list[Program] = []
        bin_folder = str(Path(sys.executable).parent)
        self.env = {
            "XDG_STATE_HOME": str(folder / "state"),
            "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)]),
            "NO_COLOR": "1",
        }

    def type(self, words: list[str]) -> Program:
        """Start a command as written; only a port that is taken on this machine is replaced."""
        if self.port != PORT:
            words = [word.replace(f":{PORT}", f":{self.port}") for word in words]
            words += [f"--port={self.port}"] if words[1] == "serve" else []
        path = shutil.which(words[0], path=self.env["PATH"])
        assert path is not None, f"{words[0]} is not installed"
        command = [sys.executable, "-c", _IN_FOLDER, str(self.folder), path, *words[1:]]
        program = Program(f"terminal{len(self.programs)}", command, self.folder, env=self.env)
        self.programs.append(program)
        return program

    def ask(self, words: list[str]) -> Program:
        """Type a command and wait for its end, which must be a good one."""
        program = self.type(words)
        assert program.wait() == 0, program.err
        return program


_IN_FOLDER = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, PORT if is_free(PORT) else free_port())
    yield made
    for program in reversed(made.programs):
        program.end(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.broker
@pytest.mark.timeout(240)
def test_the_three_terminals_of_the_readme_learn_together(desk: Desk) -> None:
    pytest.importorskip("torch")
    blocks = _readme_blocks()
    gateway = desk.type(*blocks["gateway"])
    until(lambda: "join with" in gateway.out, "the gateway is ready", desk.programs)
    first = desk.type(*blocks["first device"])
    until(lambda: " joined federation har " in first.out, "the first device has joined", desk.programs)
    sample, join = blocks["second device"]
    desk.ask(sample)
    second = desk.type(join)
    status_file = desk.folder / "state" / "blossom-edge" / "gateway"

    def both_counted() -> bool:
        found = call_json([sys.executable, "-m", "aggregator.cli"], "status", f"--data-dir={status_file}")
        return any(b["block"] == "encoder/gyro" and len(b["members"]) == 2 for b in found["blocks"])

    until(both_counted, "encoder/gyro is averaged over both", desk.programs, timeout_s=90.0)
    for words in blocks["questions"]:
        assert desk.ask(words).out.strip()
    for program in (second, first, gateway):
        program.send(signal.SIGINT)
        assert program.wait() in (0, 130), program.err
        assert "Traceback" not in program.err
    assert is_free(desk.port)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.timeout(240)
def test_the_simulation_of_the_readme_runs(desk: Desk) -> None:
    pytest.importorskip("torch")
    (words,) = _readme_blocks()["simulation"]
    program = desk.type(words)
    assert program.wait(200.0) == 0, program.err
    assert "encoder/accel" in program.out
