"""The mechanism of both programs: commands, errors, tables and JSON."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from blossom_edge.console.output import Output, format_bytes, format_seconds, table_lines
from blossom_edge.console.program import LazyGroup, command, run
from blossom_edge.core.errors import ConfigError, HardwareError, LinkError, StorageError


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


ERRORS: dict[str, BaseException] = {
    "config": ConfigError("settings-invalid", "port 99999, expected 1 to 65535", hint="mend --port"),
    "link": LinkError("gateway-unreachable", "nothing answers at localhost:1"),
    "hardware": HardwareError("sensor-missing", "imu: no answer"),
    "storage": StorageError("folder-in-use", "folder is used by process 7"),
    "fault": KeyError("x"),
    "ctrl-c": KeyboardInterrupt(),
    "package": ModuleNotFoundError("No module named 'torch'", name="torch"),
    "disk": PermissionError(13, "Permission denied", "/nowhere/file"),
}


@command("fail", has_json=True, example="tool fail config")
@click.argument("what")
def fail(out: Output, what: str) -> None:
    """Fail in the way that WHAT says."""
    raise ERRORS[what]


@command("show", has_json=True, example="tool show")
@click.option("--status", type=int, default=0)
def show(out: Output, status: int) -> int:
    """Show one thing."""
    print("a library that prints")
    out.json({"a": 1})
    out.line("a is 1")
    out.note("a note")
    return status


@command("mute", has_json=True, example="tool mute")
def mute(out: Output) -> None:
    """Forget about --json."""


@command("lay", has_json=True, example="tool lay --yes")
@click.option("--yes", is_flag=True)
def lay(out: Output, yes: bool) -> None:
    """Wait for a key."""
    if not yes:
        click.prompt("lay it down, then press Enter", default="", show_default=False, err=True)
    out.json({})


@command("pull", example="tool pull")
def pull(out: Output) -> None:
    """Wait for a hand, which nothing replaces."""
    click.confirm("is it out?", err=True)


HERE = __name__
group = LazyGroup(
    "tool",
    help="For tests.",
    version="1.2.3",
    targets={
        "fail": (f"{HERE}:fail", "Fail."),
        "show": (f"{HERE}:show", "Show."),
        "mute": (f"{HERE}:mute", "Mute."),
        "lay": (f"{HERE}:lay", "Wait for a key."),
        "pull": (f"{HERE}:pull", "Wait for a hand."),
        "broken": ("no_such_module:x", "Not loadable."),
    },
)


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize(
    ("what", "status", "error_id"),
    [
        ("config", 2, "settings-invalid"),
        ("link", 3, "gateway-unreachable"),
        ("hardware", 4, "sensor-missing"),
        ("storage", 1, "folder-in-use"),
        ("fault", 1, "unexpected"),
        ("package", 1, "package-missing"),
        ("disk", 1, "disk-failed"),
    ],
)
def test_failure_is_one_line_with_its_id_and_its_exit_code(
    what: str, status: int, error_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(group, ["fail", what]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.endswith(f" [{error_id}]\n")
    assert shown.err.count("\n") == 1

    assert run(group, ["fail", what, "--json"]) == status
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["id"] == error_id


def test_failure_says_message_and_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    run(group, ["fail", "config", "--json"])
    shown = capsys.readouterr()
    assert shown.err == "error: port 99999, expected 1 to 65535; mend --port [settings-invalid]\n"
    assert json.loads(shown.out) == {
        "error": {"id": "settings-invalid", "message": "port 99999, expected 1 to 65535", "hint": "mend --port"}
    }


def test_missing_package_names_the_extra_that_brings_it(capsys: pytest.CaptureFixture[str]) -> None:
    run(group, ["fail", "package"])
    assert "pip install 'blossom-edge[torch]'" in capsys.readouterr().err


def test_trace_is_shown_with_v_only(capsys: pytest.CaptureFixture[str]) -> None:
    run(group, ["fail", "fault"])
    assert "Traceback" not in capsys.readouterr().err
    run(group, ["fail", "fault", "-v"])
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_quietly_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, ["fail", "ctrl-c"]) == 130
    shown = capsys.readouterr()
    assert (shown.out, shown.err.strip()) == ("", "")


@pytest.mark.parametrize("name", ["lay", "pull"])
def test_ctrl_c_at_a_question_is_130_as_well(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(click.termui, "visible_prompt_func", _raises(KeyboardInterrupt()))
    assert run(group, [name]) == 130
    assert capsys.readouterr().err.endswith("\n")  # the prompt of the shell has a line of its own


@pytest.mark.parametrize(
    ("name", "hint"), [("lay", "answer on a terminal, or give --yes"), ("pull", "answer on a terminal")]
)
def test_input_that_ends_at_a_question_is_wrong_use_and_names_the_flag_that_skips_it(
    name: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(click.termui, "visible_prompt_func", _raises(EOFError()))
    assert run(group, [name]) == 2
    expected = f"error: the input ended at a question, expected an answer; {hint} [usage]"
    assert capsys.readouterr().err.splitlines()[-1] == expected


def _raises(error: BaseException) -> Callable[[str], str]:
    def ask(question: str) -> str:
        raise error

    return ask


def test_exit_code_of_a_command_is_kept() -> None:
    assert run(group, ["show"]) == 0
    assert run(group, ["show", "--status", "2"]) == 2


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["sho"], "no command 'sho', did you mean 'show'?; see tool --help"),
        (["zzz"], "no command 'zzz', expected one of fail, show, mute, lay, pull, broken"),
        (["show", "--nope"], "see tool show --help"),
        (["fail"], "see tool fail --help"),
        (["show", "--status", "x"], "'x' is not a valid integer"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    args: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(group, args) == 2
    shown = capsys.readouterr()
    assert part in shown.err
    assert shown.err.count("\n") == 1
    assert shown.err.endswith(" [usage]\n")
    assert shown.out == ""


def test_json_is_all_that_stands_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, ["show", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"a": 1}
    assert shown.err == "a library that prints\na note\n"


def test_quiet_drops_notes_and_keeps_results(capsys: pytest.CaptureFixture[str]) -> None:
    run(group, ["show", "--quiet"])
    shown = capsys.readouterr()
    assert shown.out.endswith("a is 1\n")
    assert shown.err == ""


def test_command_that_forgets_its_json_object_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, ["mute", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "unexpected"


def test_second_json_object_is_a_fault() -> None:
    out = Output(as_json=True, stdout=io.StringIO(), stderr=io.StringIO())
    out.json({})
    with pytest.raises(RuntimeError, match="second"):
        out.json({})


def test_help_lists_commands_without_loading_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, ["--help"]) == 0
    assert "broken" in capsys.readouterr().out
    assert run(group, []) == 0
    assert run(group, ["--version"]) == 0
    assert capsys.readouterr().out.endswith("tool 1.2.3\n")


def test_reader_that_goes_away_is_no_error_of_ours() -> None:
    code = (
        "import sys; from blossom_edge.console.program import *; from blossom_edge.console.output import Output\n"
        "@command('many', example='t many')\n"
        "def many(out):\n"
        "    for i in range(200_000): out.line(f'line {i}')\n"
        "g = LazyGroup('t', help='', targets={'many': ('__main__:many', '')})\n"
        "sys.exit(run(g, ['many']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


@pytest.mark.parametrize(
    ("stream", "environ", "wanted"),
    [
        (Terminal, {}, True),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"NO_COLOR": ""}, True),
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
    ],
)
def test_colour_is_for_terminals_without_no_color(
    stream: type[io.StringIO], environ: dict[str, str], wanted: bool
) -> None:
    out = Output(stdout=stream(), stderr=io.StringIO(), environ=environ)
    assert out.paint("ok", "good") == ("\x1b[32mok\x1b[0m" if wanted else "ok")


def test_progress_is_for_terminals_and_ends_its_line() -> None:
    terminal, file = Terminal(), io.StringIO()
    out = Output(stdout=io.StringIO(), stderr=terminal)
    out.progress(1, 2, "round 1")
    out.note("done")
    assert terminal.getvalue().startswith("\r[##########..........] 1/2 round 1")
    assert terminal.getvalue().endswith("\ndone\n")
    Output(stdout=io.StringIO(), stderr=file).progress(1, 2)
    assert file.getvalue() == ""


def test_table_aligns_numbers_right_and_shows_what_is_missing_as_a_dash() -> None:
    lines = table_lines([("a", 3, 0.5, True), ("bcd", 12, None, False)], ["name", "n", "score", "ok"])
    assert lines == [
        "name   n  score  ok",
        "----  --  -----  ---",
        "a      3  0.500  yes",
        "bcd   12      -  no",
    ]
    assert table_lines([], ["name", "n"]) == ["name  n", "----  -"]


def test_table_never_exceeds_its_width_and_loses_no_word() -> None:
    words = [f"word{i}" for i in range(60)]
    lines = table_lines([("x" * 50, " ".join(words), 1)], ["long", "text", "n"])
    assert max(map(len, lines)) <= 80
    assert [w for w in words if not any(w in line.split() for line in lines)] == []
    assert sum(line.count("x") for line in lines[2:]) == 50


def test_json_holds_plain_values_only() -> None:
    stream = io.StringIO()
    out = Output(as_json=True, stdout=stream, stderr=io.StringIO())
    out.json({"nan": float("nan"), "path": Path("a/b"), "set": {2, 1}, "tuple": (1, "ü", None), "yes": True})
    assert json.loads(stream.getvalue()) == {
        "nan": None, "path": "a/b", "set": [1, 2], "tuple": [1, "ü", None], "yes": True,
    }  # fmt: skip
    assert stream.getvalue().isascii()


def test_text_that_the_stream_cannot_encode_is_escaped() -> None:
    buffer = io.BytesIO()
    out = Output(stdout=io.TextIOWrapper(buffer, encoding="ascii"), stderr=io.StringIO())
    out.line("m/s²")
    assert buffer.getvalue() == b"m/s\\xb2\n"


def test_sizes_and_durations_are_said_for_people() -> None:
    assert [format_bytes(n) for n in (950, 1_207_808, 12_300_000)] == ["950 B", "1,208 kB", "12.3 MB"]
    assert [format_seconds(s) for s in (0.42, 12.4, 185, 7_800)] == ["0.4 s", "12 s", "3 min 05 s", "2 h 10 min"]
