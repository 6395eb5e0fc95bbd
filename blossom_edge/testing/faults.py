"""Faults as a script: what happens to a fake sensor when, in one line that a test can read.

    with play("at 1s unplug; at 3s replug; at 5s rate(0.5); at 7s clear", on=fake):
        ...

Names are the methods of the fake: unplug, replug, stuck, saturate, nan, rate(f), jitter(s), jump(s), reset, clear. Each
fake has those that its hardware can suffer; another one is refused before anything runs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from blossom_edge.core.errors import ConfigError

_STEP = re.compile(
    r"(?:at\s+)?(?P<at>\d+(?:\.\d+)?)\s*s?\s+(?P<name>[a-z_]+)\s*(?:\(\s*(?P<value>-?\d+(?:\.\d+)?)\s*\))?"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: seconds after the start, the fake's method, its number if it takes one."""

    at_s: float
    name: str
    value: float | None = None


def parse_script(script: str) -> tuple[Step, ...]:
    """Read `at SECONDS NAME(VALUE); ...`, sorted by time.

    Raises:
        ConfigError: `usage`: a step that is none, with the form expected.
    """
    steps = []
    for text in filter(None, map(str.strip, re.split(r"[;\n]", script))):
        match = _STEP.fullmatch(text)
        if match is None:
            raise ConfigError("usage", f"found the fault {text!r}, expected for example 'at 2s rate(0.5)'")
        value = match["value"]
        steps.append(Step(float(match["at"]), match["name"], None if value is None else float(value)))
    return tuple(sorted(steps, key=lambda step: step.at_s))


def calls(steps: tuple[Step, ...], fake: object) -> list[tuple[float, Callable[[], object]]]:
    """The methods of `fake` that the steps name, with their times.

    Raises:
        ConfigError: `usage`: the fake cannot do it.
    """
    result: list[tuple[float, Callable[[], object]]] = []
    for step in steps:
        method = getattr(fake, step.name, None)
        if step.name.startswith("_") or not callable(method):
            known = [name for name in KNOWN if callable(getattr(fake, name, None))]
            raise ConfigError(
                "usage", f"{type(fake).__name__} has no fault {step.name!r}", hint=f"it has {', '.join(known)}"
            )
        result.append((step.at_s, _bound(method, step.value)))
    return result


KNOWN = ("unplug", "replug", "stuck", "saturate", "nan", "rate", "jitter", "jump", "reset", "garble", "clear")


class Play:
    """Runs a script against a fake in a thread, from `start` on."""

    def __init__(self, script: str, fake: object) -> None:
        self._calls = calls(parse_script(script), fake)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self.done: list[float] = []
        """Times of the steps that were carried out."""

    def __enter__(self) -> Play:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        passed = 0.0
        for at_s, call in self._calls:
            if self._stop.wait(max(0.0, at_s - passed)):
                return
            passed = at_s
            call()
            self.done.append(at_s)


@contextmanager
def play(script: str, *, on: object) -> Iterator[Play]:
    """Run a script against a fake as long as the block lasts."""
    with Play(script, on) as playing:
        yield playing


def _bound(method: Callable[..., object], value: float | None) -> Callable[[], object]:
    return method if value is None else lambda: method(value)
