"""What every driver must do, as checks that run on a fake in CI and on real hardware by `doctor --hil`: the same code.

    subject = Subject("imu", profile.sensors["imu"], host)
    for verdict in run_checks(subject):
        print(verdict.check, verdict.status, verdict.detail)

A check that needs a hand (unplug) is skipped where nobody lends one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import BlossomError, HardwareError
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.live import LiveSensor
from blossom_edge.sensors.opening import split_sources
from firmware_profiles.schema import ProfileSensor

RATE_TOLERANCE = 0.05
"""How far the measured rate may be from the one that the driver says."""
MISSING_SHARE = 0.02
"""Samples that may be missing, as a part of those that should have come; a busy test machine may need a larger one."""
PAUSE_PERIODS, PAUSE_S = 10.0, 0.25
"""No pause between two samples may be longer than so many periods, or this time if that is longer."""
LATE_S = 2.0
"""The newest sample may be so old when it is read."""
ANSWER_S = 5.0
"""How long a first sample, or the error after an unplug, may take."""
GRAVITY_M_S2 = (5.0, 20.0)
"""Length of what three axes of acceleration show on average, on a device that is not thrown."""
POLL_S = 0.02

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one check ended. `fix` is the next step where it failed."""

    check: str
    status: Status
    detail: str
    fix: str = ""


class NotMet(Exception):
    """A check failed."""

    def __init__(self, detail: str, fix: str = "") -> None:
        super().__init__(detail)
        self.fix = fix


class NotAsked(Exception):
    """A check cannot be made here."""


@dataclass(frozen=True)
class Subject:
    """One sensor under test.

    unplug, replug: hands that pull the plug and put it back; a fake's methods, or None. seconds: how long to listen.
    missing_share: the part of the samples that may be missing.
    """

    name: str
    settings: ProfileSensor
    host: Host = field(default_factory=Host.here)
    unplug: Callable[[], None] | None = None
    replug: Callable[[], None] | None = None
    seconds: float = 3.0
    missing_share: float = MISSING_SHARE

    def make(self) -> LiveSensor:
        """The sensor, not open yet."""
        needed = [channel.name for channel in self.settings.channels]
        sources, _ = split_sources(self.settings)
        return LiveSensor(self.name, self.settings, needed=needed, host=self.host, sources=sources)

    @cached_property
    def heard(self) -> Heard:
        """What it delivered when it was listened to for `seconds`; done once."""
        sensor = self.make()
        try:
            sensor.open()
            first = _listen(sensor, until=bool, limit_s=ANSWER_S)
            if not first:
                raise NotMet(f"no sample within {ANSWER_S:g} s", "is it wired, and is its clock or trigger running?")
            end = time.monotonic() + self.seconds
            rest = _listen(sensor, until=lambda parts: time.monotonic() >= end, limit_s=self.seconds + ANSWER_S)
            lag = self.host.clock() - float((rest or first)[-1].times[-1])
            return Heard(_join(first + rest), sensor.channels, sensor.units, sensor.rate_hz, _driver(sensor), lag)
        except BlossomError as error:
            raise NotMet(str(error), error.hint) from error
        finally:
            sensor.close()


@dataclass(frozen=True)
class Heard:
    """Samples of one sensor. rate_hz as the driver says it; lag_s: age of the newest one when it was read."""

    reading: Reading
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    driver: str
    lag_s: float


def check_answers(subject: Subject) -> str:
    """A source opens and samples come."""
    heard = subject.heard
    return f"{heard.driver}: {len(heard.reading)} samples in {subject.seconds:g} s"


def check_units(subject: Subject) -> str:
    """The units are the profile's; three axes of acceleration show about gravity on average, at rest or moved."""
    heard = subject.heard
    wanted = tuple(channel.unit for channel in subject.settings.channels)
    if heard.units != wanted:
        raise NotMet(f"found {', '.join(heard.units)}, expected {', '.join(wanted)}", "see the driver's units")
    axes = [i for i, unit in enumerate(heard.units) if unit == "m/s2"]
    if len(axes) != 3 or subject.settings.shape:
        return ", ".join(dict.fromkeys(wanted))
    length = float(np.linalg.norm(heard.reading.values[:, axes].mean(axis=0)))
    low, high = GRAVITY_M_S2
    if not low <= length <= high:
        raise NotMet(
            f"found {length:.3g} m/s2 in all on average, expected about 9.81 of gravity",
            "is its scale right? does it lie still?",
        )
    return f"{length:.2f} m/s2 in all on average"


def check_rate(subject: Subject) -> str:
    """Samples come at the rate that the driver says, and at least as fast as the profile asks."""
    heard = subject.heard
    times = heard.reading.times
    if len(times) < 5:
        raise NotMet(f"found {len(times)} samples in {subject.seconds:g} s, too few to measure a rate", "listen longer")
    measured = _rate(times, heard.rate_hz)
    if abs(measured / heard.rate_hz - 1) > RATE_TOLERANCE:
        raise NotMet(
            f"found {measured:.4g} Hz, the driver says {heard.rate_hz:g} Hz", "see the rate of the source and the load"
        )
    return f"{measured:.4g} Hz"


def check_range(subject: Subject) -> str:
    """Every value is a number within the profile's range and does not stand at its end."""
    values = subject.heard.reading.values
    repeat = int(np.prod(subject.settings.shape, dtype=int))
    low = np.tile(np.array([c.range[0] for c in subject.settings.channels]), repeat)
    high = np.tile(np.array([c.range[1] for c in subject.settings.channels]), repeat)
    if not np.isfinite(values).all():
        raise NotMet("found values that are no numbers", "see the wiring")
    slack = 0.01 * (high - low)
    outside = (values < low - slack) | (values > high + slack)
    names = [c.name for c in subject.settings.channels]
    if outside.any():
        number = int(np.argmax(outside.any(axis=0))) % len(names)
        one = subject.settings.channels[number]
        mine = values[:, number :: len(names)]
        raise NotMet(
            f"{one.name}: found {_span(mine)}, expected {one.range[0]:g} to {one.range[1]:g} {one.unit}",
            "see range and unit in the profile",
        )
    if not subject.settings.shape:
        at_end = (values <= low + slack * 0.01) | (values >= high - slack * 0.01)
        share = at_end.mean(axis=0)
        if share.max() > 0.5:
            raise NotMet(
                f"{names[int(share.argmax())]} stands at the end of its range", "it is saturated, or not wired"
            )
    of_unit: dict[str, list[int]] = {}
    for number, one in enumerate(subject.settings.channels):
        of_unit.setdefault(one.unit, []).extend(range(number, values.shape[1], len(names)))
    return ", ".join(f"{_span(values[:, columns])} {unit}" for unit, columns in of_unit.items())


def check_time(subject: Subject) -> str:
    """Times rise strictly and are those of this machine's monotonic clock."""
    heard = subject.heard
    steps = np.diff(heard.reading.times)
    if (steps <= 0).any():
        raise NotMet(
            f"found {int((steps <= 0).sum())} samples not later than the one before", "see the driver's stamps"
        )
    if not -0.1 <= heard.lag_s <= LATE_S:
        raise NotMet(f"the newest sample is {heard.lag_s:.2f} s old, expected 0 to {LATE_S:g} s", "see its clock")
    return f"newest sample {heard.lag_s * 1000:.0f} ms old"


def check_gaps(subject: Subject) -> str:
    """Next to no sample is missing and no pause is long."""
    heard = subject.heard
    times = heard.reading.times
    steps = np.diff(times)
    longest, limit = float(steps.max(initial=0.0)), max(PAUSE_PERIODS / heard.rate_hz, PAUSE_S)
    if longest > limit:
        raise NotMet(f"found a pause of {longest:.3f} s, expected at most {limit:.3f} s", "is the machine overloaded?")
    span = float(times[-1] - times[0])
    missing = max(0.0, 1 - (len(times) - 1) / (span * heard.rate_hz)) if span else 0.0
    if missing > subject.missing_share + 1 / max(1, len(times)):
        allowed = f"{subject.missing_share:.0%}"
        raise NotMet(f"{missing:.1%} of the samples are missing, expected at most {allowed}", "see the load")
    return f"longest pause {longest * 1000:.0f} ms, {missing:.1%} missing"


def check_restart(subject: Subject) -> str:
    """Closed and opened again, it delivers later samples."""
    last = float(subject.heard.reading.times[-1])
    sensor = subject.make()
    try:
        sensor.open()
        parts = _listen(sensor, until=lambda parts: sum(map(len, parts)) >= 3, limit_s=ANSWER_S)
        if not parts:
            raise NotMet(f"no sample within {ANSWER_S:g} s after a restart", "see what `close` leaves behind")
        if float(parts[0].times[0]) <= last:
            raise NotMet("found samples of before the restart", "empty the buffer when it is opened")
    except BlossomError as error:
        raise NotMet(f"after a restart: {error}", error.hint) from error
    finally:
        sensor.close()
    return "delivers again"


def check_unplug(subject: Subject) -> str:
    """Unplugged in mid-read it says so within seconds, and opens again once it is back."""
    if subject.unplug is None or subject.replug is None:
        raise NotAsked("nobody here who pulls the plug")
    sensor = subject.make()
    try:
        sensor.open()
        _listen(sensor, until=bool, limit_s=ANSWER_S)
        subject.unplug()
        began = time.monotonic()
        said = str(_failure(sensor, limit_s=ANSWER_S))
        took = time.monotonic() - began
        subject.replug()
        _open_again(sensor, limit_s=ANSWER_S)
        if not _listen(sensor, until=bool, limit_s=ANSWER_S):
            raise NotMet("plugged in again, no sample comes", "see what `open` does after a failure")
    except BlossomError as error:
        raise NotMet(str(error), error.hint) from error
    finally:
        sensor.close()
    return f"noticed after {took:.1f} s ({said}); back after replug"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "answers": check_answers,
    "units": check_units,
    "rate": check_rate,
    "range": check_range,
    "time": check_time,
    "gaps": check_gaps,
    "restart": check_restart,
    "unplug": check_unplug,
}
"""In the order in which they are run; each returns what it found or raises `NotMet` or `NotAsked`."""


def run_check(name: str, subject: Subject) -> Verdict:
    """Make one check."""
    try:
        return Verdict(name, "ok", CHECKS[name](subject))
    except NotMet as error:
        return Verdict(name, "failed", str(error), error.fix)
    except NotAsked as error:
        return Verdict(name, "skipped", str(error))


def run_checks(subject: Subject) -> Iterator[Verdict]:
    """Make all checks; when nothing answers, the others are skipped."""
    for name in CHECKS:
        verdict = run_check(name, subject)
        yield verdict
        if name == "answers" and verdict.status == "failed":
            yield from (Verdict(other, "skipped", "nothing answers") for other in CHECKS if other != name)
            return


def _span(values: NDArray[np.floating[Any]]) -> str:
    return f"{values.min():.4g} to {values.max():.4g}"


def _rate(times: NDArray[np.float64], expected_hz: float) -> float:
    """Samples per second, without the time of those that are missing: each step counts as whole periods."""
    steps = np.diff(times)
    typical = float(np.median(steps))
    if abs(typical * expected_hz - 1) < RATE_TOLERANCE:  # a step of k periods stands for k - 1 missing samples
        return float(np.maximum(1, np.round(steps / typical)).sum() / steps.sum())
    return len(steps) / float(steps.sum())


def _listen(sensor: LiveSensor, *, until: Callable[[list[Reading]], bool], limit_s: float) -> list[Reading]:
    parts: list[Reading] = []
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        parts += sensor.read(time.monotonic())
        if until(parts):
            break
        time.sleep(POLL_S)
    return parts


def _failure(sensor: LiveSensor, *, limit_s: float) -> HardwareError:
    try:
        _listen(sensor, until=lambda parts: False, limit_s=limit_s)
    except HardwareError as error:
        return error
    raise NotMet(f"unplugged, and no error within {limit_s:g} s", "was the plug pulled? if it was, please report it")


def _open_again(sensor: LiveSensor, *, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while True:
        try:
            sensor.open()
            return
        except HardwareError:
            if time.monotonic() >= end:
                raise
            time.sleep(POLL_S)


def _join(parts: list[Reading]) -> Reading:
    return Reading(np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts]))


def _driver(sensor: LiveSensor) -> str:
    return sensor.source.driver if sensor.source is not None else ""
