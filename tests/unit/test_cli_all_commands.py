"""One test of the common rules over all commands of both programs: help, example, flags, width, exit codes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
from collections.abc import Iterator

import click
import pytest

from blossom_edge.cli.main import program as edge
from blossom_edge.console.program import Command, LazyGroup, run

READING = {
    "blossom-edge": {
        "demo", "label", "status", "why", "privacy", "simulate", "version", "export",
        "sensors find", "sensors watch", "sensors calibrate",
        "profiles list", "profiles show", "profiles validate", "profiles detect", "profiles schema", "profiles new",
        "data list", "data fetch", "experiment run", "experiment list", "experiment report",
        "doctor", "infer", "blocks list", "blocks show", "blocks rollback", "blocks pin",
    },
    "blossom-aggregator": {"plan", "status", "why", "federations list", "federations show", "federations validate"},
}  # fmt: skip
"""Commands that show something, as the README promises them: each takes --json."""


def _programs() -> list[LazyGroup]:
    programs = [edge]
    if _exists("aggregator.cli"):
        programs.append(importlib.import_module("aggregator.cli").program)
    return programs


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _walk(group: LazyGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[LazyGroup, tuple[str, ...]]]:
    """Every group and command below: (its group, words that call it). Those whose file is missing are left out."""
    for name, (target, _) in group.targets.items():
        if not _exists(target.partition(":")[0]):
            continue
        yield group, (*path, name)
        loaded = group.get_command(click.Context(group), name)
        if isinstance(loaded, LazyGroup):
            yield from _walk(loaded, (*path, name))


def _missing(group: LazyGroup) -> list[str]:
    modules = {target.partition(":")[0] for target, _ in group.targets.values()}
    return sorted(module for module in modules if not _exists(module))


NODES = [(program, group, path) for program in _programs() for group, path in _walk(program)]
COMMANDS = [
    pytest.param(program, path, command, id=" ".join((program.name or "", *path)))
    for program, group, path in NODES
    if not isinstance(command := group.get_command(click.Context(group), path[-1]), LazyGroup)
]
GROUPS = [
    pytest.param(program, path, id=" ".join((program.name or "", *path)))
    for program, path in [(program, ()) for program in _programs()]
    + [
        (p, path)
        for p, group, path in NODES
        if isinstance(group.get_command(click.Context(group), path[-1]), LazyGroup)
    ]
]
every_command = pytest.mark.parametrize(("program", "path", "command"), COMMANDS)


def test_no_command_is_registered_without_its_file() -> None:
    assert [m for program in _programs() for m in _missing(program)] == []
    assert [program.name for program in _programs()] == list(READING)


@every_command
def test_help_has_what_it_does_an_example_and_80_columns(
    program: LazyGroup, path: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(command, Command), "made without @command of blossom_edge.console.program"
    assert run(program, [*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert command.help
    assert "Example:\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert all(option.help for option in command.params if isinstance(option, click.Option)), "an option without help"
    assert path[-1] == command.name


@every_command
def test_example_is_a_command_line_that_is_understood(
    program: LazyGroup, path: tuple[str, ...], command: Command
) -> None:
    lines = [shlex.split(line) for line in command.example.strip().replace("\\\n", " ").splitlines()]
    assert [program.name, *path] in [words[: 1 + len(path)] for words in lines], "the example calls another command"
    for words in lines:
        assert words[0] in READING
        if words[: 1 + len(path)] == [program.name, *path]:
            command.make_context(command.name, words[1 + len(path) :])


@every_command
def test_common_flags_are_there(program: LazyGroup, path: tuple[str, ...], command: Command) -> None:
    flags = {flag for option in command.params for flag in option.opts}
    assert {"-v", "--verbose", "--quiet"} <= flags
    if " ".join(path) in READING[program.name or ""]:
        assert "--json" in flags


@every_command
@pytest.mark.parametrize("more", [[], ["--json"], ["-v", "--quiet"]])
def test_unknown_option_is_one_line_and_exit_code_2(
    program: LazyGroup,
    path: tuple[str, ...],
    command: click.Command,
    more: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(program, [*path, *more, "--no-such-option"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    if more == ["--json"]:
        assert json.loads(shown.out)["error"]["id"] == "usage"
    else:
        assert shown.out == ""


@pytest.mark.parametrize(("program", "path"), GROUPS)
def test_group_help_fits_80_columns_and_lists_each_command(
    program: LazyGroup, path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, [*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    group: click.Command | None = program
    for word in path:
        assert isinstance(group, LazyGroup)
        group = group.get_command(click.Context(group), word)
    assert isinstance(group, LazyGroup)
    for name, (_, short) in group.targets.items():
        assert name in text
        assert short.endswith(".")
        assert len(name) + len(short) <= 72, f"the short help of {name} is cut"


@pytest.mark.parametrize("args", [["version"], ["profiles", "list"], ["profiles", "show", "generic-mock"]])
@pytest.mark.parametrize("more", [[], ["-v"], ["--quiet"], ["--json"]])
def test_result_fits_80_columns_and_has_no_colour_without_a_terminal(
    args: list[str], more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(edge, [*args, *more]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out
    assert shown.err == ""
    if more == ["--json"]:
        assert isinstance(json.loads(shown.out), dict)
    else:
        assert max(map(len, shown.out.splitlines())) <= 80
