"""Runs received blocks with onnxruntime on the device's windows, and learns an own head where that is the role.

Never imports torch, never sends anything. Windows come from a `Collector` that keeps what is fresh; each is predicted
once, by one generation of the model.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from blossom_edge.board.clock import utc_stamp
from blossom_edge.client.actions import Held
from blossom_edge.client.learner import Taken
from blossom_edge.client.own_head import MIN_LABELLED, MORE_STEPS, NEW_STEPS, fit_heads, num_usable, own_gate
from blossom_edge.client.predicting import ModelInUse, Predictor
from blossom_edge.client.roles import used_blocks
from blossom_edge.codec.skeleton_file import check_skeleton
from blossom_edge.codec.tensors import make_codec
from blossom_edge.console.logs import log_event
from blossom_edge.core.blocks import Array, BlockId, BlockKey, BlockKind, Visibility
from blossom_edge.core.errors import BlossomError
from blossom_edge.core.gate import MIDDLE
from blossom_edge.core.metrics import MetricSums
from blossom_edge.core.prediction import Prediction
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import skeleton_digests
from blossom_edge.federation.spec import head_id
from blossom_edge.inference.canary import CanaryWindows
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.generation import Received, Swap, own_name, run_model, with_gates
from blossom_edge.inference.head import HeadValues
from blossom_edge.inference.live import LiveModel
from blossom_edge.inference.live_types import Masks
from blossom_edge.inference.model_folder import ModelFolder
from blossom_edge.inference.runtime import RuntimeOptions, load_onnxruntime
from blossom_edge.inference.scoring import score
from blossom_edge.inference.skeleton_set import SkeletonSet
from blossom_edge.sensors.collector import Collector
from blossom_edge.transport.malloc import trim_malloc

NEW_WINDOWS = 10
NEW_SHARE = 10
"""After so many new labelled windows, or a tenth of all, the own head learns again between two versions of the
encoders: all windows go through them anew, and on a slow board that must not be what it does all day."""
MAX_FAILED = 3
"""Windows on which a generation on trial may fail before it is left."""
PROVED_AFTER = 10
"""Predictions after which a generation has shown that it does not bring the process down ..."""
PROVED_S = 60.0
"""... or seconds."""
RECENT = 64
"""Newest windows that are kept for the trial run of a new model, labelled or not."""

log = logging.getLogger("blossom_edge")


class OnnxMember:
    """The model of a device of role `infer` or `personalize`. A `ModelUser` of the agent; works without one, too.

    waits: windows that come before the first model wait for it (recordings); else they pass by (live sensors).

    Raises:
        ConfigError: `role-unfit`; `package-missing`; `runtime-too-old`.
    """

    def __init__(
        self,
        federation: Federation,
        collector: Collector,
        *,
        role: str,
        tasks: tuple[str, ...],
        waits: bool,
        clock: Callable[[], float],
        seed: int = 0,
        options: RuntimeOptions | None = None,
    ) -> None:
        load_onnxruntime()
        self.federation = federation
        self.role = role
        self._collector = collector
        self._tasks = tuple(sorted(tasks or federation.tasks_for(collector.modalities)))
        self._blocks = used_blocks(federation, collector.modalities, tasks, role)
        self._waits, self._clock, self._seed = waits, clock, seed
        self._options = options or RuntimeOptions()
        self._predictor = Predictor(federation, span_s=collector.span_s, clock=clock, tasks=self._tasks)
        self._skeletons: SkeletonSet | None = None
        self._keys: dict[BlockId, BlockKey] = {}
        self._live: LiveModel | None = None
        self._received: dict[BlockKey, Received] = {}
        self._recent: deque[WindowSet] = deque(maxlen=RECENT)
        self._num_early = self._learned_at = 0
        self._uses_own: dict[str, bool] = {}
        self._gates: dict[str, float] = {}
        self._scores: dict[str, MetricSums] = {}
        self._lacking: tuple[str, ...] = ()
        self._held_back = False
        self._trial_began = (0, 0, 0.0)
        self._proved = self._failed_of = self._num_failed = 0

    # ---- as the agent uses it

    def open(self, place: Path, *, keys: Mapping[BlockId, BlockKey], boot: int) -> None:
        """Go on with what an earlier run left in `place`."""
        down = make_codec(self.federation.codec.down)
        self._keys = {block: keys[block] for block in self._blocks}
        self._skeletons = SkeletonSet(place / "skeletons")
        self._live = LiveModel(
            self.federation,
            ModelFolder(place),
            skeletons=self._skeletons.get,
            options=self._options,
            keys=self._keys,
            decode=lambda key, data: down.decode(data, self.federation.spec[key.block]),
            clock=self._clock,
            boot=boot,
            own_heads=self.role == "personalize",
            speaks_own=lambda task: self._uses_own.get(task, True),
            run=self._run,
            stamp=utc_stamp,
        )
        self._gates = dict(self._live.folder.state.gates) if self.role == "personalize" else {}
        self._lacking = self._look_for_skeletons()
        self._choose_heads()

    def lacking(self) -> tuple[str, ...]:
        """Digests of the skeletons that are needed and not here."""
        return self._lacking

    def _look_for_skeletons(self) -> tuple[str, ...]:
        wanted = set(skeleton_digests(self.federation, self._blocks).values())
        return tuple(self._skeletons.missing(wanted)) if self._skeletons is not None else ()

    def add_skeleton(self, digest: str, data: bytes) -> None:
        """Take a skeleton from the gateway, checked; one that this device does not need is passed over."""
        mine = {digest: block for block, digest in skeleton_digests(self.federation, self._blocks).items()}
        if self._skeletons is not None and digest in mine:
            name = f"the gateway's skeleton of {mine[digest]}"
            check_skeleton(data, self.federation.spec[mine[digest]], digest=digest, name=name)
            self._skeletons.add(digest, data)
            self._lacking = self._look_for_skeletons()

    def take(self, held: Mapping[BlockKey, Held]) -> Taken:
        """Put received versions to use, or go on with the old ones and say why."""
        live = self._opened()
        mine = {key: held[key] for key in self._keys.values() if key in held}
        if len(mine) < len(self._keys) or not any(one.version for one in mine.values()):
            return Taken({}, "waits for the first trained versions")
        if lacking := self.lacking():
            digests = skeleton_digests(self.federation, self._blocks)
            blocks = [str(block) for block, digest in digests.items() if digest in lacking]
            return Taken({}, f"waits for the skeletons of {', '.join(blocks)}", lacks=True)
        self._received = {key: Received(one.version, one.sha256, one.data) for key, one in mine.items()}
        reason = self._offer(live)
        if live.current is None:
            return Taken({}, reason or "no model yet")
        words = f"generation {live.current.number} in use"
        return Taken(self._used_score(), f"{words}; {reason}" if reason else words)

    def update(self, now: float) -> list[Prediction]:
        """Predict what came since the last call; learn when enough labelled windows are new; obey orders."""
        live = self._opened()
        if live.take_orders():
            self._offer(live)
        if live.current is None:
            if not self._waits:
                self._num_early += len(self._collector.fresh())
            return []
        fresh = self._collector.fresh()
        failed_before = self._predictor.num_failed
        predictions = self._predictor.predict(ModelInUse.of(live.current, self._gates), fresh, uses_own=self._uses_own)
        self._recent.extend(fresh.take(np.array([row])) for row in range(max(0, len(fresh) - RECENT), len(fresh)))
        self._prove(live, len(predictions), now, failed=self._predictor.num_failed - failed_before)
        self._learn(live)
        return predictions

    def present_modalities(self) -> frozenset[str]:
        """Modalities whose sensors are well."""
        return self._collector.well()

    def num_windows(self) -> int:
        """Labelled windows available for training and score."""
        return len(self._collector.train()) + len(self._collector.holdout())

    @property
    def score(self) -> MetricSums:
        """Over all labelled windows that were predicted."""
        return self._predictor.score

    def status(self) -> dict[str, Any]:
        """What is known of the model in use, as plain data."""
        live = self._live
        return {
            **(live.facts() if live is not None else {}),
            "own_head": live.current.head_number if live is not None and live.current is not None else 0,
            "uses_own_head": dict(sorted(self._uses_own.items())),
            "gates": dict(sorted(self._gates.items())),
            "scores": {
                name: {measure: metric.mean for measure, metric in sorted(found.items())}
                for name, found in sorted(self._scores.items())
            },
            "num_predicted": self._predictor.num_windows,
            "num_failed": self._predictor.num_failed,
            "num_before_first_model": self._num_early,
            "latency_ms": self._predictor.latency_ms,
            "lacking_skeletons": list(self.lacking()),
        }

    def close(self) -> None:
        """A clean end: it does not count as a crash of the model on trial."""
        if self._live is not None:
            self._live.ended()

    # ---- versions and heads

    def _offer(self, live: LiveModel) -> str:
        """Offer what was received; why it is not all in use."""
        why = self._cannot_refit(live)
        self._held_back = bool(why)
        if why:
            return why
        swap = live.offer(self._received, windows=self._canary_windows(), make_heads=self._make_heads)
        self._log_swap(swap)
        self._choose_heads()
        trim_malloc()  # the old sessions, and what the new ones were made from
        return swap.reason

    def _cannot_refit(self, live: LiveModel) -> str:
        """Why new encoders have to wait: an own head belongs to those in use, and there are too few labels for more."""
        current = live.current
        if current is None or not current.heads:
            return ""
        new = any(
            key.block.kind in (BlockKind.ENCODER, BlockKind.SCALE) and current.versions.get(key) != one.used
            for key, one in self._received.items()
        )
        for task in current.heads if new else ():
            if num_usable(self.federation, task, self._collector.train()) < MIN_LABELLED:
                return (
                    f"new encoders wait for {MIN_LABELLED} labelled windows: the own head of {task} fits those in use"
                )
        return ""

    def _make_heads(self, model: OnnxModel, before: Mapping[str, HeadValues]) -> Mapping[str, HeadValues] | None:
        """Own heads fitted to these encoders; None for the role `infer`."""
        return self._fit(model, before, steps=NEW_STEPS) if self.role == "personalize" else None

    def _fit(self, model: OnnxModel, before: Mapping[str, HeadValues], *, steps: int) -> Mapping[str, HeadValues]:
        self._learned_at = self._collector.num_seen()
        windows = self._collector.train()
        return fit_heads(self.federation, self._tasks, model, before, windows=windows, seed=self._seed, steps=steps)

    def _learn(self, live: LiveModel) -> None:
        """Fit the own heads again when enough labelled windows have come since."""
        if self.role != "personalize" or live.current is None:
            return
        if self._held_back and not self._cannot_refit(live):
            self._offer(live)
            return
        num_windows = len(self._collector.train())
        if self._collector.num_seen() - self._learned_at < max(NEW_WINDOWS, num_windows // NEW_SHARE):
            return
        heads = self._fit(live.current.model, live.current.heads, steps=MORE_STEPS)
        if heads:
            live.adopt_heads(heads)
            self._choose_heads()

    def _choose_heads(self) -> None:
        """Score shared and own heads on the holdout; the better one is used, the own one when they are equal.

        Where the head is dual the two are mixed by a gate, which is chosen there too: no head is fitted to the holdout.
        """
        current, windows = self._opened().current, self._collector.holdout()
        self._scores, self._uses_own = {}, {}
        if current is None:
            return
        for task in current.heads if self.role == "personalize" else ():
            if self._is_dual(task) and task in current.model.tasks:
                self._gates.setdefault(task, MIDDLE)
        if not len(windows):
            self._keep_gates()
            return
        outputs = run_model(current.model, current.heads, windows.inputs, windows.present)
        for task in self._tasks:
            here = [windows.present[m] for m in self.federation.task_modalities(task) if m in windows.present]
            rows = windows.labelled(task) & np.logical_or.reduce([np.zeros(len(windows), dtype=np.bool_), *here])
            for name, output in (("shared", task), ("own", own_name(task))):
                if output in outputs and rows.any():
                    found = score(task, self.federation.tasks[task], outputs[output][rows], windows.labels[task][rows])
                    self._scores[name] = {**self._scores.get(name, {}), **found}
            if task not in outputs or own_name(task) not in outputs:
                continue
            if self._is_dual(task):
                labels, both = windows.labels[task][rows], (outputs[task][rows], outputs[own_name(task)][rows])
                settings, before = self.federation.tasks[task], self._gates.get(task)
                self._gates[task] = gate = own_gate(settings, *both, labels, before=before)
                self._uses_own[task] = gate < 1.0
                mix = with_gates(outputs, {task: gate})[own_name(task)]
                if rows.any():
                    found = score(task, settings, mix[rows], windows.labels[task][rows])
                    self._scores["mixed"] = {**self._scores.get("mixed", {}), **found}
            elif rows.any():
                self._uses_own[task] = not _is_better(task, self._scores["shared"], self._scores["own"])
        self._keep_gates()

    def _keep_gates(self) -> None:
        """Write them down; a device of role infer leaves those that an own head left behind as they are."""
        if self.role == "personalize":
            self._opened().keep_gates(self._gates)

    def _is_dual(self, task: str) -> bool:
        return self.federation.spec[head_id(task)].visibility is Visibility.DUAL

    def _run(
        self, model: OnnxModel, heads: Mapping[str, HeadValues], inputs: Mapping[str, Array], present: Masks
    ) -> Mapping[str, Array]:
        return with_gates(run_model(model, heads, inputs, present), self._gates)

    def _used_score(self) -> MetricSums:
        """The holdout score of what is used."""
        own = {task for task in self._tasks if self._uses_own.get(task, True)}
        first = {**self._scores.get("own", {}), **self._scores.get("mixed", {})}
        second = self._scores.get("shared", {})
        return {
            name: (first if name in first and (name.partition(".")[0] in own or name not in second) else second)[name]
            for name in sorted({*first, *second})
        }

    # ---- inside

    def _opened(self) -> LiveModel:
        if self._live is None:
            raise RuntimeError("the member was not opened")
        return self._live

    def _canary_windows(self) -> CanaryWindows:
        return CanaryWindows.of(self._collector.holdout(), WindowSet.joined(self._recent) if self._recent else None)

    def _prove(self, live: LiveModel, num_predictions: int, now: float, *, failed: int) -> None:
        """Note how the generation in use does: it has worked, or it is left because windows fail on it."""
        if live.current is None:
            return
        if self._failed_of != live.current.number:
            self._failed_of, self._num_failed = live.current.number, 0
        self._num_failed += failed
        if self._num_failed >= MAX_FAILED and self._proved != live.current.number:
            self._num_failed = 0
            why = f"{MAX_FAILED} windows could not be predicted: {self._predictor.last_failure}"
            with suppress(BlossomError):  # there may be nothing to go back to
                live.rollback(reason=why, by="run")
                self._choose_heads()
            return
        number, count, began = self._trial_began
        if number != live.current.number:
            number, count, began = live.current.number, 0, now
        self._trial_began = number, count + num_predictions, began
        worked = count + num_predictions >= PROVED_AFTER or now - began >= PROVED_S
        if worked and self._proved != live.current.number:
            self._proved = live.current.number
            live.proved()
            trim_malloc()

    def _log_swap(self, swap: Swap) -> None:
        if swap.taken or swap.reason:
            log_event(
                log,
                "model-swap",
                taken=swap.taken,
                blocks=",".join(map(str, swap.changed)),
                reason=swap.reason,
                build_ms=round(1e3 * sum(swap.seconds.values()), 2),
                canary_ms=round(1e3 * swap.canary_s, 2),
            )


def _is_better(task: str, one: MetricSums, other: MetricSums) -> bool:
    """Whether `one` has the clearly better measure of a task: more accuracy, or a smaller error."""
    for measure, sign in ((f"{task}.accuracy", 1.0), (f"{task}.mae", -1.0)):
        if measure in one and measure in other:
            first, second = one[measure].mean, other[measure].mean
            return first is not None and second is not None and sign * (first - second) > 0
    return False
