"""Faults as a script: what happens to a fake sensor when, in one line that a test can read.

    with play("at 1s unplug; at 3s replug; at 5s rate(0.5); at 7s clear", on=fake):
        ...

It starts at once, with or without `with`; the end of the block, `stop()`, or in pytest the end of the test ends it.
Names are the methods of the fake: unplug, replug, stuck, saturate, nan, rate(f), jitter(s), jump(s), reset, clear. Each
fake has those that its hardware can suffer; another one, or a wrong number, is refused before anything runs.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from blossom_edge.testing.refusals import KitError

KNOWN = ("unplug", "replug", "stuck", "saturate", "nan", "rate", "jitter", "jump", "reset", "garble", "clear")
_RULES: dict[str, tuple[Callable[[float], bool], str]] = {
    "rate": (lambda value: value > 0, "a factor above 0"),
    "jitter": (lambda value: value >= 0, "seconds from 0 on"),
    "garble": (lambda value: 0 <= value <= 1, "a share from 0 to 1"),
}
_FORM = "expected for example 'at 2s rate(0.5)'"
_STEP = re.compile(
    r"(?:at\s+)?(?P<at>\d+(?:\.\d+)?)\s*s?\s+(?P<name>[a-z_]+)\s*(?:\(\s*(?P<value>-?\d+(?:\.\d+)?)?\s*\))?"
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
        ConfigError: `usage`: a step that is none, with the form expected; no step at all.
    """
    steps = []
    for text in filter(None, map(str.strip, re.split(r"[;\n]", script))):
        match = _STEP.fullmatch(text)
        if match is None:
            raise KitError("usage", f"found the fault {text!r}, {_FORM}")
        value = match["value"]
        steps.append(Step(float(match["at"]), match["name"], None if value is None else float(value)))
    if not steps:
        raise KitError("usage", f"found no fault, {_FORM}")
    return tuple(sorted(steps, key=lambda step: step.at_s))


def calls(steps: tuple[Step, ...], fake: object) -> list[tuple[float, Callable[[], object]]]:
    """The methods of `fake` that the steps name, with their times.

    Raises:
        ConfigError: `usage`: the fake cannot do it, or not with this number.
    """
    return [(step.at_s, _call(step, fake)) for step in steps]


class Play:
    """Runs a script against a fake in a thread; `play` makes and starts it."""

    def __init__(self, script: str, fake: object) -> None:
        """Read and check the script.

        Raises:
            ConfigError: `usage`: see `parse_script` and `calls`.
        """
        self.done: list[float] = []
        """Times of the steps that were carried out."""
        self._calls = calls(parse_script(script), fake)
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = _FaultThread(self)

    @property
    def broken(self) -> bool:
        """Whether a step of the fake raised an error: no further step comes, `stop` raises it."""
        return self._error is not None

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self) -> None:
        """End it; steps that are not due yet do not happen. What a step of the fake raised is raised here, once."""
        error = self.end()
        if error is not None:
            raise error

    def end(self) -> Exception | None:
        """The same; the error is returned."""
        self._stop.set()
        self._thread.join()
        error, self._error = self._error, None
        return error

    def __enter__(self) -> Play:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self) -> None:
        """What the thread does: the steps, then it waits to be ended, so that `stop_all` finds it."""
        passed = 0.0
        for at_s, call in self._calls:
            if self._stop.wait(max(0.0, at_s - passed)):
                return
            passed = at_s
            try:
                call()
            except Exception as error:  # the outermost of this thread; `stop` raises it in the test
                self._error = error
                break
            self.done.append(at_s)
        self._stop.wait()


class _FaultThread(threading.Thread):
    def __init__(self, play: Play) -> None:
        super().__init__(name="faults", daemon=True)
        self.play = play

    def run(self) -> None:
        self.play.run()


def play(script: str, *, on: object) -> Play:
    """Run a script against a fake from now on, until the `with` block, `stop()` or the test ends.

    Raises:
        ConfigError: `usage`: the script is wrong, or not for this fake; nothing ran.
    """
    playing = Play(script, on)
    playing.start()
    return playing


def stop_all() -> Exception | None:
    """End every script that still runs in this process; returns the first error that one of their steps had."""
    running = [thread.play for thread in threading.enumerate() if isinstance(thread, _FaultThread)]
    return next(filter(None, [playing.end() for playing in running]), None)


def _call(step: Step, fake: object) -> Callable[[], object]:
    method = getattr(fake, step.name, None)
    if step.name.startswith("_") or not callable(method):
        kind = type(fake).__name__
        known = [name for name in KNOWN if callable(getattr(fake, name, None))]
        if known:
            raise KitError("usage", f"{kind} has no fault {step.name!r}", hint=f"it has {', '.join(known)}")
        raise KitError(
            "usage",
            f"`on` is a {kind} without any fault, expected a fake such as `board.fakes['imu']`",
            hint="a fixture such as fake_i2c makes one: `on=fake_i2c()`" if callable(fake) else "",
        )
    arguments = () if step.value is None else (step.value,)
    signature = inspect.signature(method)
    try:
        signature.bind(*arguments)
    except TypeError:
        takes = "takes no number" if arguments else "needs a number"
        raise KitError("usage", f"{type(fake).__name__}: {step.name} {takes}: found {_text(step)}, {_FORM}") from None
    if step.value is not None:
        first = next(iter(signature.parameters.values()))
        allowed, words = _RULES.get(step.name, (lambda value: True, ""))
        if isinstance(first.default, bool):
            allowed, words = (lambda value: value in (0, 1)), "no number"
        if not allowed(step.value):
            raise KitError("usage", f"found {_text(step)}, expected {words}")
    return lambda: method(*arguments)


def _text(step: Step) -> str:
    return repr(step.name if step.value is None else f"{step.name}({step.value:g})")
