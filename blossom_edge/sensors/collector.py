"""Keeps a device's newest labelled windows, for training and for holdout. Never writes to disk.

No window that is trained on shares a sample with one of the holdout. A sensor that is not well takes its modalities
with it, in all windows, until it is well again.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from blossom_edge.console.logs import log_event
from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Sensor
from blossom_edge.sensors.division import Split, divide, has_label, keep_few, stack, without
from blossom_edge.sensors.health import Distrust, Health
from blossom_edge.sensors.intake import Intake
from blossom_edge.sensors.opening import close_sensors
from blossom_edge.sensors.reopening import Reopening, Spawn, in_thread
from blossom_edge.sensors.window_shapes import window_shape
from blossom_edge.sensors.windows import LabelKind, Row, Windower
from firmware_profiles.schema import Profile

REOPEN_AFTER_S = 2.0
"""A sensor that failed is opened again after this time, then after twice as long each time ..."""
REOPEN_MOST_S = 30.0
"""... up to this. So is one that is silent or stuck."""
CLOSE_S = 5.0
"""How long `close` waits for a sensor that is just being opened."""
KEEP_BYTES = 256 * 1024 * 1024
"""Windows kept take at most this much memory: matters for images only."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of one sensor, and since when (monotonic seconds of the poll that noticed it)."""

    health: Health
    since_s: float


@dataclass(slots=True)
class _Attempt:
    """When a sensor that is not well is opened next. failed: not to be read until then. opening: that is going on."""

    due_s: float
    wait_s: float = REOPEN_AFTER_S
    failed: bool = False
    opening: Reopening | None = None

    def again(self, now: float) -> None:
        self.wait_s = min(2 * self.wait_s, REOPEN_MOST_S)
        self.due_s = now + self.wait_s


class Collector:
    """From sensors to `WindowSet`s for the modalities that profile and federation have in common.

    split "later": of each recording the first 1 - `holdout` of its time trains, the rest is holdout.
    split "blocks": for live streams: of each ten windows seven train, one is left out, two are holdout (all train if
        `holdout` is 0); where windows overlap, also the first training windows of the next ten are left out.
    labels_per_class: keep the label of only so many training windows per class, spread evenly over the time.
    capacity: number of windows kept, the newest.
    keep_fresh: all windows, labelled or not, are kept until `fresh` takes them away.
    spawn: runs what opens a sensor again, which may take long.
    `poll` belongs to one thread; the rest may be called from another one.

    Raises:
        ConfigError: `federation-mismatch`: a sensor delivers another unit or rate than the federation wants.
    """

    def __init__(
        self,
        profile: Profile,
        federation: Federation,
        sensors: Mapping[str, Sensor],
        *,
        holdout: float = 0.3,
        split: Split = "later",
        labels_per_class: int | None = None,
        seed: int = 0,
        capacity: int = 4096,
        tasks: Collection[str] | None = None,
        spawn: Spawn = in_thread,
        keep_fresh: bool = False,
    ) -> None:
        if not 0 <= holdout < 1 or capacity < 1 or (labels_per_class is not None and labels_per_class < 1):
            raise ConfigError(
                "usage",
                f"found holdout {holdout:g}, capacity {capacity}, labels per class {labels_per_class}, "
                "expected a holdout from 0 to below 1, and 1 or more of the others",
            )
        sensors = dict(sorted(sensors.items()))
        self._shapes = {
            name: window_shape(name, profile, federation, sensors)
            for name in sorted(profile.modalities)
            if name in federation.modalities and profile.modalities[name].sensor in sensors
        }
        if not self._shapes:
            raise ConfigError("federation-mismatch", "no sensor is open for a modality of this federation")
        self._kinds = {
            name: LabelKind(task.type, task.classes)
            for name, task in sorted(federation.tasks.items())
            if tasks is None or name in tasks
        }
        self._holdout, self._split, self._seed = holdout, split, seed
        self._labels_per_class, self._spawn = labels_per_class, spawn
        self._fresh: list[Row] | None = [] if keep_fresh else None
        longest_s = max(shape.span_s for shape in self._shapes.values())
        spans = {
            name: max((s.span_s for s in self._shapes.values() if s.sensor == name), default=longest_s)
            for name in sensors
        }
        self._intakes = {
            name: Intake(sensor, profile.sensors[name], span_s=spans[name]) for name, sensor in sensors.items()
        }
        self._windower = Windower(self._shapes, self._kinds)
        row_bytes = sum(4 * shape.window * shape.width for shape in self._shapes.values())
        self._rows: deque[tuple[int, Row]] = deque(maxlen=max(1, min(capacity, KEEP_BYTES // row_bytes)))
        self._lock = threading.Lock()
        self._num_rows = 0
        self._finished = self._closed = False
        self._verdicts = {name: Verdict(Health(), -math.inf) for name in sensors}
        self._attempts: dict[str, _Attempt] = {}
        self._distrust: dict[str, list[Distrust]] = {name: [] for name in sensors}
        self._dropped: dict[str, Counter[str]] = {name: Counter() for name in self._shapes}
        self._absent: frozenset[str] = frozenset()
        self._sets: tuple[WindowSet, WindowSet] | None = None
        self._shown: tuple[WindowSet, WindowSet] | None = None

    def poll(self, now: float) -> int:
        """Read all sensors up to `now` (monotonic seconds); returns the number of new labelled windows.

        The modalities of a sensor that fails are absent, and it is opened again after 2, 4, 8 ... 30 s; nobody waits
        for that. One that delivers nonsense is absent until it has delivered sense for two windows.
        """
        if self._finished or self._closed:
            return 0
        for name, intake in self._intakes.items():
            self._read(name, intake, now)
            self._review(name, intake, now)
        self._finished = not self._attempts and all(intake.sensor.exhausted for intake in self._intakes.values())
        cut = self._windower.rows(finish=self._finished)
        whole = [row for row in map(self._trusted, cut) if row.inputs]
        rows = [row for row in whole if self._is_labelled(row)]
        if self._fresh is not None:
            self._fresh += whole
        if cut:  # rows come in the order of time: what is distrusted before them meets no other
            for name, spans in self._distrust.items():
                self._distrust[name] = [span for span in spans if span.end_s > cut[-1].start_s]
        if rows:
            with self._lock:
                self._rows.extend(enumerate(rows, start=self._num_rows))
                self._num_rows += len(rows)
                self._sets = self._shown = None
        return len(rows)

    def close(self) -> None:
        """Close all sensors, before the process ends: their threads may be in a library that must not be cut off.

        Belongs to the thread that polls; windows stay, nothing new comes.
        """
        self._closed = True
        opening = {name: attempt.opening for name, attempt in self._attempts.items() if attempt.opening is not None}
        hang = {name for name, one in opening.items() if not one.give_up(CLOSE_S)}
        close_sensors({name: intake.sensor for name, intake in self._intakes.items() if name not in hang})

    def train(self) -> WindowSet:
        """The windows to learn from, oldest first; the arrays are shared between calls: do not change them.

        The same object until something changes. Modalities of a sensor that is not well are absent in all of them.
        """
        return self._divided()[0]

    def holdout(self) -> WindowSet:
        """The windows to score on, like `train`."""
        return self._divided()[1]

    def fresh(self) -> WindowSet:
        """The windows cut since the last call, labelled or not, each once, in the order of time; one's own arrays."""
        rows, self._fresh = self._fresh or [], [] if self._fresh is not None else None
        return stack(rows, self._shapes, self._kinds)

    @property
    def span_s(self) -> float:
        """Seconds from the start of a window to its end, of the longest one."""
        return max(shape.span_s for shape in self._shapes.values())

    def num_seen(self) -> int:
        """Labelled windows that ever came, also those that no longer fit into `capacity`."""
        return self._num_rows

    def present(self) -> frozenset[str]:
        """Modalities with training windows whose sensor is well."""
        train = self.train()
        return frozenset(name for name in self._shapes if bool(train.present[name].any()))

    def well(self) -> frozenset[str]:
        """Modalities whose sensor is well."""
        return frozenset(self._shapes) - self._absent

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that this device owns in the federation, sorted."""
        return tuple(self._shapes)

    @property
    def finished(self) -> bool:
        """Whether all recordings were read to their end."""
        return self._finished

    @property
    def failures(self) -> dict[str, str]:
        """Sensors that do not deliver, or nothing to trust, right now, and why."""
        return {name: v.health.reason for name, v in dict(self._verdicts).items() if not v.health.ok}

    def health(self) -> dict[str, Verdict]:
        """What is thought of each sensor."""
        return dict(self._verdicts)

    def counts(self) -> dict[str, dict[str, int]]:
        """Per modality the windows that were made and kept, and those that were not, by reason.

        "made"; "gap", "nan" (samples that are no numbers) and "silent" (nothing came) of a sensor that was well;
        else what was wrong with it: "stuck", "rate" ...
        """
        return {
            name: {key: count for key, count in (self._windower.counts[name] + dropped).items() if count}
            for name, dropped in self._dropped.items()
        }

    def sample_counts(self) -> dict[str, dict[str, int]]:
        """Per sensor: samples "taken", and of those that came "not rising", "no number" or "clipped" to the range."""
        return {name: dict(intake.counts) for name, intake in self._intakes.items()}

    def drift_ppm(self) -> dict[str, float | None]:
        """Per sensor how much faster than declared it samples, in parts per million; None: not known (yet)."""
        return {name: intake.drift.ppm for name, intake in self._intakes.items()}

    def _read(self, name: str, intake: Intake, now: float) -> None:
        try:
            if not self._is_open(name, intake, now):
                return
            rate_hz = intake.rate_hz
            for piece in intake.take(intake.sensor.read(now), now):
                self._windower.push(name, piece.reading, holes=piece.holes, restarted=piece.restarted)
            if intake.rate_hz != rate_hz:
                self._windower.set_rate(name, intake.rate_hz)
                if rate_hz == intake.sensor.rate_hz:
                    log_event(_log, "sensor-rate", sensor=name, declared_hz=rate_hz, measured_hz=intake.rate_hz)
        except (HardwareError, ConfigError) as error:
            intake.failed(str(error))
            attempt = self._attempts.setdefault(name, _Attempt(now + REOPEN_AFTER_S))
            attempt.failed = True
            attempt.due_s = now + attempt.wait_s

    def _is_open(self, name: str, intake: Intake, now: float) -> bool:
        """Whether a sensor may be read. One that failed, is silent or is stuck is opened anew when it is time.

        Raises:
            HardwareError, ConfigError: it could not be opened.
        """
        attempt = self._attempts.get(name)
        if attempt is None:
            return True
        if attempt.opening is None:
            hangs = intake.judge is not None and intake.judge.hangs(now)
            if now < attempt.due_s or not (attempt.failed or hangs):
                return not attempt.failed
            attempt.again(now)
            attempt.opening = Reopening(intake.sensor, spawn=self._spawn)
        if not attempt.opening.done:
            return False
        opening, attempt.opening = attempt.opening, None
        opening.check()
        attempt.failed = False
        intake.opened(now)
        self._windower.set_rate(name, intake.rate_hz)
        return True

    def _review(self, name: str, intake: Intake, now: float) -> None:
        """Act on what is thought of a sensor now."""
        if intake.judge is not None:
            for span in intake.judge.distrusted():
                self._distrust_span(name, span)
        old, health = self._verdicts[name].health, intake.health
        if health.state == old.state:
            return
        self._verdicts[name] = Verdict(health, now)
        mine = sorted(modality for modality, shape in self._shapes.items() if shape.sensor == name)
        if health.ok:
            self._attempts.pop(name, None)
            log_event(_log, "sensor-back", sensor=name, modalities=mine)
        else:
            self._attempts.setdefault(name, _Attempt(now + REOPEN_AFTER_S))
            log_event(
                _log,
                "sensor-absent",
                sensor=name,
                modalities=mine,
                state=health.state,
                reason=health.reason,
            )
        bad = {sensor for sensor, verdict in self._verdicts.items() if not verdict.health.ok}
        with self._lock:
            self._absent = frozenset(modality for modality, shape in self._shapes.items() if shape.sensor in bad)
            self._shown = None

    def _distrust_span(self, name: str, span: Distrust) -> None:
        """Take the windows of a stretch away from a sensor's modalities, and those that are still to be cut."""
        spans = self._distrust[name]
        if spans and spans[-1].state == span.state and spans[-1].end_s >= span.begin_s:
            spans[-1] = Distrust(spans[-1].begin_s, max(spans[-1].end_s, span.end_s), span.state)
        else:
            spans.append(span)
        with self._lock:
            kept = [(n, self._trusted(row)) for n, row in self._rows]
            if any(new is not row for (_, new), (_, row) in zip(kept, self._rows, strict=True)):
                rows = [(n, row) for n, row in kept if row.inputs]
                self._rows.clear()
                self._rows.extend(rows)
                self._sets = self._shown = None

    def _trusted(self, row: Row) -> Row:
        """The row without what came from a sensor that was not well."""
        lost: dict[str, str] = {}
        for modality in row.inputs:
            shape = self._shapes[modality]
            judge = self._intakes[shape.sensor].judge
            if judge is None:
                continue
            end_s = row.start_s + shape.span_s
            if not judge.health.ok and end_s > judge.trusted_until_s + 1.0 / shape.rate_hz:
                lost[modality] = judge.health.state
            for span in self._distrust[shape.sensor]:
                if span.begin_s < end_s and row.start_s < span.end_s:
                    lost[modality] = span.state
        if not lost:
            return row
        for modality, state in lost.items():
            self._dropped[modality][state] += 1
            self._dropped[modality]["made"] -= 1
        return replace(row, inputs={name: x for name, x in row.inputs.items() if name not in lost})

    def _is_labelled(self, row: Row) -> bool:
        return any(has_label(row.labels[task]) for task in self._kinds)

    def _divided(self) -> tuple[WindowSet, WindowSet]:
        with self._lock:
            if self._sets is None:
                train, held = divide(self._rows, self._shapes, split=self._split, holdout=self._holdout)
                sets = [stack(rows, self._shapes, self._kinds) for rows in (train, held)]
                if self._labels_per_class is not None:
                    sets[0] = keep_few(sets[0], self._kinds, count=self._labels_per_class, seed=self._seed)
                self._sets = sets[0], sets[1]
            if self._shown is None:
                self._shown = without(self._sets[0], self._absent), without(self._sets[1], self._absent)
            return self._shown
