"""The sensors: opened and listened to. With `--hil` all checks of the conformance suite, a report and a trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blossom_edge.board.clock import UtcClock
from blossom_edge.board.identity import compatible
from blossom_edge.doctor.finding import Finding
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.labels import boot_id
from blossom_edge.sensors.opening import needed_channels, split_sources
from blossom_edge.sensors.recordings import Recording, Stream, Track, write_recording
from blossom_edge.testing.conformance import CHECKS, Heard, Subject, Verdict, run_check
from firmware_profiles.schema import Profile

QUICK = ("answers", "units", "rate", "range", "gaps")
"""What the doctor checks of every sensor without `--hil`: one opening, one listening."""
REPORT_FORMAT = "blossom-edge-hil-1"
WORDS: Mapping[str, Any] = {"ok": "ok", "failed": "fail", "skipped": "skip"}


@dataclass(frozen=True, slots=True)
class Hands:
    """Somebody who pulls and puts back the plug of a sensor when asked."""

    unplug: Callable[[str], None]
    replug: Callable[[str], None]


def subjects(profile: Profile, host: Host, *, seconds: float, hands: Hands | None = None) -> dict[str, Subject]:
    """The sensors that the profile's modalities use, to be tested; those that are only simulated left out."""
    return {
        name: Subject(
            name,
            profile.sensors[name],
            host,
            unplug=None if hands is None else lambda name=name: hands.unplug(name),  # type: ignore[misc]  # bound now
            replug=None if hands is None else lambda name=name: hands.replug(name),  # type: ignore[misc]  # bound now
            seconds=seconds,
        )
        for name in needed_channels(profile, None)
        if split_sources(profile.sensors[name])[0]
    }


def simulated_sensors(profile: Profile) -> Iterator[Finding]:
    """A line for each sensor that the profile's modalities use and that no source reads from hardware."""
    for name in needed_channels(profile, None):
        live, source = split_sources(profile.sensors[name])
        if not live and source is not None:
            yield Finding("sensors", _answers(name), "skip", f"simulated ({source.driver}): nothing to check", "")


def check_sensors(found: Mapping[str, Subject], *, full: bool) -> Iterator[Finding]:
    """The quick checks of every sensor, or with `full` all of the conformance suite."""
    for name, subject in found.items():
        names = tuple(CHECKS) if full else QUICK
        for check in names:
            verdict = run_check(check, subject)
            yield _finding(name, verdict)
            if check == "answers" and verdict.status == "failed":
                break


def write_report(
    folder: Path, profile: Profile, found: Mapping[str, Subject], findings: list[Finding], *, host: Host, stem: str
) -> tuple[Path, Path | None]:
    """Write `STEM.json` and, of what was heard, `STEM.npz`, which `join --replay` and the kit's `replay_trace` play.

    findings: of `check_sensors`; a sensor that did not answer then is not listened to once more.

    Returns:
        The report, and the trace (None: nothing was heard).

    Raises:
        StorageError: the disk refuses.
    """
    make_folder(folder)
    red = {finding.check for finding in findings if finding.status == "fail"}
    heard = {name: subject.heard for name, subject in found.items() if _answers(name) not in red}
    streams = {name: _stream(found[name], part) for name, part in heard.items()}
    trace = folder / f"{stem}.npz"
    if streams:
        write_recording(trace, Recording(str(trace), streams, {}))
    clock = UtcClock(host.root, monotonic=host.clock)
    report = {
        "format": REPORT_FORMAT,
        "profile": profile.id,
        "digest": profile.digest,
        "board": list(compatible(host.root)),
        "made_utc": clock.utc_stamp(),
        "made_monotonic_s": round(host.clock(), 3),
        "boot": boot_id(host.root),
        "clock": clock.knowledge().why,
        "passed": not any(finding.status == "fail" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "trace": trace.name if streams else None,
        "drivers": {name: part.driver for name, part in heard.items()},
    }
    path = folder / f"{stem}.json"
    atomic_write(path, json.dumps(report, indent=2).encode(), name="report", mode=0o644)
    return path, trace if streams else None


def _finding(sensor: str, verdict: Verdict) -> Finding:
    return Finding("sensors", f"{sensor}: {verdict.check}", WORDS[verdict.status], verdict.detail, verdict.fix)


def _answers(sensor: str) -> str:
    """The check that says whether a sensor could be listened to."""
    return f"{sensor}: answers"


def _stream(subject: Subject, heard: Heard) -> Stream:
    """Samples brought to their mean rate: a recording has one rate and no times of its own."""
    times, values = heard.reading.times, heard.reading.values
    rate = (len(times) - 1) / float(times[-1] - times[0]) if len(times) > 1 else heard.rate_hz
    grid = np.arange(len(times)) / rate + times[0]
    if not subject.settings.shape:
        values = np.stack([np.interp(grid, times, column) for column in values.T], axis=1)
    track = Track(0.0, values.astype(np.float32), {})
    return Stream(heard.channels, heard.units, float(rate), {0: track}, **_shape(subject))


def _shape(subject: Subject) -> dict[str, Any]:
    return {"shape": subject.settings.shape} if subject.settings.shape else {}
