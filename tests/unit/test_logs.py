"""Logs: one line per event, rotated files, and no word of people's data."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blossom_edge.console import logs
from blossom_edge.core.errors import ConfigError, StorageError


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def _logged(*, format: Any = "text", level: str = "info", file: Path | None = None, **fields: Any) -> str:
    stream = io.StringIO()
    logs.configure_logging(level, format=format, stream=stream, file=file)
    logs.log_event(logging.getLogger("blossom_edge.test"), "update-accepted", **fields)
    return stream.getvalue()


def test_a_file_may_take_more_than_the_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    logs.configure_logging("warning", stream=stream, file=tmp_path / "log", file_level="info")
    logger = logging.getLogger("blossom_edge.test")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logs.log_event(logger, f"event-{level}", level=level)
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == ["event-30"]
    assert [line.split()[2] for line in (tmp_path / "log").read_text().splitlines()] == ["event-20", "event-30"]
    with pytest.raises(ConfigError, match="'loud'"):
        logs.configure_logging("warning", file=tmp_path / "log", file_level="loud")
    logs.configure_logging("warning", stream=stream)  # closes the file


def test_event_is_one_line_with_round_block_and_device_first() -> None:
    line = _logged(num_samples=64, device="pi-3", block="encoder/accel", round=3, why="two words", norm=0.123456789)
    stamp, _, rest = line.partition(" ")
    assert len(stamp) == len("2026-03-01T10:00:00.125+01:00")
    assert rest == (
        'INFO update-accepted round=3 block=encoder/accel device=pi-3 num_samples=64 why="two words" norm=0.123457\n'
    )


def test_fields_may_come_as_extra_of_any_logger_call() -> None:
    stream = io.StringIO()
    logs.configure_logging("info", stream=stream)
    logging.getLogger("aggregator.service").warning("held", extra={"round": 2, "block": "head/har"})
    assert stream.getvalue().endswith("WARNING held round=2 block=head/har\n")


def test_json_log_is_one_object_per_line() -> None:
    entry = json.loads(_logged(format="json", round=3, members=["a", "b"]))
    assert entry.pop("time")
    assert entry == {
        "level": "info", "logger": "blossom_edge.test", "event": "update-accepted", "round": 3, "members": "a,b",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["samples", "label", "true_labels", "gateway_key", "password", "raw_values", "token"])
@pytest.mark.parametrize("format", ["text", "json"])
def test_people_s_data_and_secrets_are_withheld_by_name(name: str, format: str) -> None:
    fields: dict[str, Any] = {name: "walking-7f3a"}
    line = _logged(format=format, **fields)
    assert "walking-7f3a" not in line
    assert logs.WITHHELD in line


@pytest.mark.parametrize("value", [b"walking", [0.25, 0.5], {"a": "walking"}, (b"walking",)])
def test_values_that_are_no_single_figure_are_withheld(value: object) -> None:
    line = _logged(shown=value)
    assert line.endswith(f"shown={logs.WITHHELD}\n")


def test_arrays_are_withheld_and_numpy_scalars_are_not() -> None:
    np = pytest.importorskip("numpy")
    assert _logged(norm=np.float32(0.5), array=np.ones(2)).endswith(f"norm=0.5 array={logs.WITHHELD}\n")


def test_text_from_the_other_side_cannot_forge_a_line_or_move_the_cursor() -> None:
    line = _logged(device="x\n2026 INFO fine\x1b[2J", why="y" * 1000)
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert len(line) < 500


def test_levels_are_ours_alone_and_a_second_call_replaces_the_first() -> None:
    assert _logged(level="warning", round=1) == ""
    stream = io.StringIO()
    logs.configure_logging("debug", stream=stream)
    logs.configure_logging("debug", stream=stream)
    logging.getLogger("blossom_edge.x").debug("ours")
    logging.getLogger("amqtt.x").info("theirs")
    assert stream.getvalue().endswith("DEBUG ours\n")
    assert stream.getvalue().count("\n") == 1
    with pytest.raises(ConfigError, match="expected one of debug"):
        logs.configure_logging("loud")


def test_log_file_is_rotated_and_keeps_5_files_of_2_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (logs.NUM_FILES, logs.FILE_BYTES) == (5, 2_000_000)
    monkeypatch.setattr(logs, "FILE_BYTES", 2_000)
    _logged(file=tmp_path / "log", round=1)
    for i in range(200):
        logs.log_event(logging.getLogger("blossom_edge.test"), "round-opened", round=i)
    logs.configure_logging("info", stream=io.StringIO())
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == ["log", "log.1", "log.2", "log.3", "log.4"]
    assert max(sizes.values()) <= 2_000
    assert "round=199" in (tmp_path / "log").read_text()


def test_log_file_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        logs.configure_logging("info", file=tmp_path / "no" / "log")


def test_trace_follows_its_line_marked() -> None:
    stream = io.StringIO()
    logs.configure_logging("info", stream=stream)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("blossom_edge").exception("loop-failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("ERROR loop-failed")
    assert all(line.startswith("  | ") for line in lines[1:])
