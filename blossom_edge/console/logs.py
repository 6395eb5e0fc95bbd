"""One line per event on stderr or in a rotated file. Never a sample, a label or a key.

    log_event(logger, "update-accepted", round=3, block="encoder/accel", device="pi-3", num_samples=64)

    2026-03-01T10:00:00.125+01:00 INFO update-accepted round=3 block=encoder/accel device=pi-3 num_samples=64

The guard stands in the formatter, behind every caller: a field whose name speaks of people's data or of secrets is
withheld (a count of them is named `num_...`), and so is any value that is not one number, one short text or a list
of names.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from datetime import datetime
from pathlib import Path
from typing import Literal, TextIO

from blossom_edge.core.errors import ConfigError, StorageError

OUR_LOGGERS = ("blossom_edge", "aggregator", "firmware_profiles")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FILE_BYTES = 2_000_000
NUM_FILES = 5
MAX_TEXT = 300
FIRST_FIELDS = ("round", "block", "device")
WITHHELD = "[withheld]"

_PEOPLES_DATA = ("sample", "label", "value", "window", "signal", "tensor", "prediction")
_SECRETS = ("key", "secret", "token", "password", "credential")
_SENSITIVE = frozenset(word + plural for word in (*_PEOPLES_DATA, *_SECRETS) for plural in ("", "s"))
_COUNTED = ("num_",), ("_samples", "_windows", "_bytes", "_fingerprint")


def configure_logging(
    level: str,
    *,
    format: Literal["text", "json"] = "text",
    file: Path | None = None,
    file_level: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send the log to stderr (or `stream`), and to `file` (5 files of 2 MB) if given; replaces an earlier call.

    Ours are logged from `level` on (in the file from `file_level` on, if given), other packages from warnings on.
    Raises ConfigError, StorageError.
    """
    for name in (level, file_level or level):
        if name not in LEVELS:
            raise ConfigError("settings-invalid", f"log level {name!r}, expected one of {', '.join(LEVELS)}")
    formatter = JsonFormatter() if format == "json" else TextFormatter()
    shown = LEVELS[level]
    kept = shown if file is None else LEVELS[file_level or level]
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr if stream is None else stream)]
    if file is not None:
        try:
            handlers.append(
                logging.handlers.RotatingFileHandler(
                    file, maxBytes=FILE_BYTES, backupCount=NUM_FILES - 1, encoding="utf-8"
                )
            )
        except OSError as error:
            hint = "choose another file or mend the permissions"
            raise StorageError("disk-failed", f"log file {file}: {error.strerror}", hint=hint) from error
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, _EventFormatter)]:
        root.removeHandler(old)
        old.close()
    for handler, lowest in zip(handlers, (shown, kept), strict=False):
        handler.setFormatter(formatter)
        handler.setLevel(lowest)
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(min(shown, kept))


def log_event(logger: logging.Logger, event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log one event with its fields; `event` is a fixed-name-with-dashes, what varies goes into the fields."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": fields}, stacklevel=2)


def may_be_logged(name: str) -> bool:
    """Whether a field of this name may stand in a log.

    `num_samples`, `window_samples` (counts) and `key_fingerprint` may; `samples`, `label` and `gateway_key` may not.
    """
    prefixes, suffixes = _COUNTED
    return name.startswith(prefixes) or name.endswith(suffixes) or _SENSITIVE.isdisjoint(name.lower().split("_"))


class _EventFormatter(logging.Formatter):
    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Fields of the record in a fixed order, made safe."""
        given = getattr(record, "fields", {})
        found = {name: record.__dict__[name] for name in FIRST_FIELDS if name in record.__dict__}
        merged = {**found, **(given if isinstance(given, dict) else {})}
        ordered = [name for name in FIRST_FIELDS if name in merged] + [n for n in merged if n not in FIRST_FIELDS]
        return {name: _safe(name, merged[name]) for name in ordered if merged[name] is not None}

    def trace(self, record: logging.LogRecord) -> str:
        """The trace of an exception, or nothing."""
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


class TextFormatter(_EventFormatter):
    """For people: time, level, event, name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; the trace of a fault follows it, each line marked."""
        words = [_time(record), record.levelname, _one_line(record.getMessage())]
        words += [f"{name}={_text(value)}" for name, value in self.fields(record).items()]
        return "\n  | ".join([" ".join(words), *self.trace(record).splitlines()])


class JsonFormatter(_EventFormatter):
    """For machines: one object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, always."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _one_line(record.getMessage()),
            **self.fields(record),
        }
        if trace := self.trace(record):
            entry["trace"] = trace
        return json.dumps(entry, default=str)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _safe(name: str, value: object) -> object:
    if not may_be_logged(name):
        return WITHHELD
    if hasattr(value, "__array__"):
        value = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else b""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        texts = [str(item) for item in value if isinstance(item, str)]
        return _one_line(",".join(texts)) if len(texts) == len(value) else WITHHELD
    if isinstance(value, bytes | bytearray | memoryview | dict):
        return WITHHELD
    return _one_line(str(value))


def _one_line(text: str) -> str:
    """Cut to a sane length and escape what could end the line or move the cursor."""
    shown = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=') else text
