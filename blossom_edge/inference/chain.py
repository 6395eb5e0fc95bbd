"""The model of one device on onnxruntime: one session per block, joined as `models.BlockModel` joins its modules.

Values never change after it is built: a new version of a block is a new model, which shares the sessions of the blocks
that stayed. A task with a private copy of its head has two branches on the same encoders, mixed by its gate; windows of
a modality with an agreed scale are scaled first. Never knows versions, files or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, BlockId, Tensors
from blossom_edge.core.errors import ConfigError, RemoteError
from blossom_edge.core.names import Modality, TaskName
from blossom_edge.core.scale import apply_scale
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import has_skeleton, skeleton_digest
from blossom_edge.federation.spec import (
    embedding_width,
    encoder_id,
    fusion_id,
    gate_id,
    head_id,
    own_id,
    scale_id,
    zero_filled,
)
from blossom_edge.inference.features import can_embed
from blossom_edge.inference.runtime import CPU, DEFAULT_OPTIONS, RuntimeOptions, Session, make_session
from blossom_edge.inference.single import MAX_TAILS, SingleWindow, branches, mixed

AT_ONCE = 32
"""So many windows go through an encoder together: what it works with then stays in a megabyte or two."""

Mask = NDArray[np.bool_]
Values = NDArray[np.float32]


class OnnxModel:
    """The given blocks of a federation, wired.

    A modality counts for a task when its encoder and its part of the task's fusion are both here, and its scale where
    the federation agrees on one; a task is served when its fusion, its head and at least one such modality are.
    Encoders alone serve no task, and embed. `numbers` are the blocks that are no graph: gates and scales. A scale that
    no round has settled changes nothing, as where blocks are trained.
    """

    def __init__(
        self, federation: Federation, sessions: Mapping[BlockId, Session], numbers: Mapping[BlockId, Tensors]
    ) -> None:
        """Made by `build`."""
        self.federation = federation
        self.numbers: Mapping[BlockId, Tensors] = MappingProxyType(dict(sorted(numbers.items())))
        self.sessions: Mapping[BlockId, Session] = MappingProxyType(dict(sorted(sessions.items())))
        self._widths = {
            m: embedding_width(federation, encoder_id(m))
            for m in sorted(federation.modalities)
            if can_embed(federation, self.blocks, m)
        }
        self._wiring = {t: have for t in sorted(federation.tasks) if (have := self._modalities_of(t))}
        signals = {m: federation.modalities[m].signal for m in self._widths}
        self._shapes = {m: (signal.window, signal.width) for m, signal in signals.items()}
        self._units = {t: (s.spread, s.mean) for t, s in federation.tasks.items() if s.type == "regression"}
        self._plans: dict[tuple[str, ...], tuple[dict[str, tuple[str, ...]], tuple[str, ...]]] = {}
        on_cpu = all(session.provider == CPU for session in sessions.values())
        self._gates = {
            task: np.float32(self.numbers[gate_id(task)]["gate"][0])
            for task in self._wiring
            if own_id(head_id(task)) in self.sessions and gate_id(task) in self.numbers
        }
        self._single = SingleWindow(federation, self.sessions, self._widths, self._gates) if on_cpu else None

    @classmethod
    def build(
        cls,
        federation: Federation,
        blocks: Mapping[BlockId, Tensors],
        skeletons: Callable[[str], bytes | None],
        *,
        options: RuntimeOptions = DEFAULT_OPTIONS,
        reuse: OnnxModel | None = None,
        changed: Collection[BlockId] | None = None,
    ) -> OnnxModel:
        """Make the sessions of `blocks`, with the graphs that `skeletons` has by digest.

        With `reuse` and `changed`, blocks that are not in `changed` take their session from `reuse` (if it has them,
        and is of the same federation); `reuse` goes on working.

        Raises:
            ConfigError: `package-missing`, `runtime-too-old`; `role-unfit`: zeros stand for what is absent.
            RemoteError: `skeleton-missing`; `skeleton-invalid`; `block-invalid`, also for a block that the federation
                does not have.
        """
        if filled := zero_filled(federation):
            raise ConfigError(
                "role-unfit",
                f"task {filled[0]} of federation {federation.name} has absent zero-fill, ONNX can only mask",
                hint=f"serve the federation with --set tasks.{filled[0]}.absent=mask",
            )
        old = reuse.sessions if reuse is not None and reuse.federation.digest == federation.digest else {}
        kept = {b: s for b, s in old.items() if changed is not None and b not in changed}
        sessions = {
            block: kept[block] if block in kept else _session(federation, block, tensors, skeletons, options)
            for block, tensors in blocks.items()
            if has_skeleton(block)
        }
        before = reuse.numbers if reuse is not None and changed is not None and old else {}
        numbers = {
            block: before[block] if block in before and block not in (changed or ()) else _numbers(federation, block, t)
            for block, t in blocks.items()
            if not has_skeleton(block)
        }
        return cls(federation, sessions, numbers)

    @property
    def blocks(self) -> tuple[BlockId, ...]:
        """The blocks that it is made of, sorted."""
        return tuple(sorted({*self.sessions, *self.numbers}))

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks that these blocks can serve, sorted."""
        return tuple(TaskName(t) for t in self._wiring)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that are embedded here, sorted."""
        return tuple(Modality(m) for m in self._widths)

    @property
    def providers(self) -> tuple[str, ...]:
        """What computes, sorted: usually the CPU alone."""
        return tuple(sorted({session.provider for session in self.sessions.values()}))

    def task_modalities(self, task: str) -> tuple[str, ...]:
        """The modalities that count for a task here, sorted."""
        return self._wiring.get(task, ())

    def embed(self, inputs: Mapping[str, Array], present: Mapping[str, Mask]) -> dict[str, Values]:
        """The embeddings of every modality of this model, (n, width) each; rows where it is absent are zeros.

        inputs: modality -> (n, time, width); present: modality -> (n,) bool; a modality that is missing in either is
        absent in all rows. An encoder runs on the rows that have its modality, and not at all when none has.

        Raises:
            ValueError: a window of another shape than the federation's.
            RemoteError: `skeleton-invalid`: onnxruntime failed on it.
        """
        there = self._there(inputs, present)
        given = {m: self._window(m, inputs[m]) for m in there}
        num = _rows(present)
        if num == 1 and self._single is not None:
            found = self._single.embed(given)
        else:
            found = {m: self._encode(m, window, present[m]) for m, window in given.items()}
        return {m: found[m] if m in found else np.zeros((num, width), np.float32) for m, width in self._widths.items()}

    def outputs(
        self,
        inputs: Mapping[str, Array],
        present: Mapping[str, Mask],
        embeddings: Mapping[str, Array] | None = None,
    ) -> dict[str, Values]:
        """The outputs of each served task: (n, class) logits, or for a regression (n, 1) in the task's unit.

        A task of which no window has a modality is left out; a single row without any gives what the fusion makes of
        nothing. `embeddings`, if they are known, are those of `embed` for the same windows.

        Raises:
            ValueError: a window of another shape than the federation's.
            RemoteError: `skeleton-invalid`: onnxruntime failed on it.
        """
        wired, needed = self._plan(self._there(inputs, present))
        known = None if embeddings is None else {m: embeddings[m] for m in needed}
        if self._single is not None and _rows(present) == 1:
            windows = {m: self._window(m, inputs[m]) for m in needed} if known is None else {}
            raw = self._single.outputs(windows, known or {}, wired)
        else:
            if known is None:
                known = {m: self._encode(m, self._window(m, inputs[m]), present[m]) for m in needed}
            raw = {task: self._task(task, have, known, present) for task, have in wired.items()}
        for task, (spread, mean) in self._units.items():
            if task in raw:
                raw[task] = raw[task] * spread + mean
        return raw

    def _there(self, inputs: Mapping[str, Array], present: Mapping[str, Mask]) -> tuple[str, ...]:
        """The modalities of this model that at least one row has, sorted."""
        return tuple(m for m in self._widths if m in inputs and m in present and _any(present[m]))

    def _plan(self, there: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
        """Task -> its modalities among `there`, tasks without any left out; and all of these modalities, sorted."""
        plan = self._plans.get(there)
        if plan is None:
            wired = {t: have for t, all_of in self._wiring.items() if (have := tuple(m for m in all_of if m in there))}
            plan = wired, tuple(sorted({m for have in wired.values() for m in have}))
            if len(self._plans) < MAX_TAILS:
                self._plans[there] = plan
        return plan

    def _encode(self, modality: str, window: Array, present: Mask) -> Values:
        encoder, rows = self.sessions[encoder_id(modality)], np.flatnonzero(present)
        embedding = np.zeros((len(present), self._widths[modality]), np.float32)
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            embedding[some] = encoder.run({"window": np.ascontiguousarray(window[some], np.float32)})[0]
        return embedding

    def _task(
        self, task: str, have: tuple[str, ...], embeddings: Mapping[str, Array], present: Mapping[str, Mask]
    ) -> Values:
        answers = [
            self._branch(task, have, embeddings, present, of=of) for of in branches(task, self.sessions, self._gates)
        ]
        return mixed(answers, self._gates.get(task))

    def _branch(
        self,
        task: str,
        have: tuple[str, ...],
        embeddings: Mapping[str, Array],
        present: Mapping[str, Mask],
        *,
        of: Callable[[BlockId], BlockId],
    ) -> Values:
        """What one branch of a task says; `of` makes its blocks of the shared ones."""
        parts = []
        for modality in have:
            part = self.sessions[of(fusion_id(task, modality))]
            embedding = np.ascontiguousarray(embeddings[modality], np.float32)
            parts.append(dict(zip(part.outputs, part.run({"embedding": embedding}), strict=True)))
        feeds = {
            "values": np.stack([part["value"] for part in parts], axis=1),
            "scores": np.stack([part["score"] for part in parts], axis=1),
            "present": np.stack([present[m] for m in have], axis=1),
        }
        fused = self.sessions[of(fusion_id(task))].run(feeds)[0]
        return _first(self.sessions[of(head_id(task))].run({"fused": fused}))

    def _window(self, modality: str, window: Array) -> Array:
        if window.shape[1:] != self._shapes[modality]:
            time, width = self._shapes[modality]
            raise ValueError(f"windows of {modality}: found {window.shape}, expected (n, {time}, {width})")
        scale = self.numbers.get(scale_id(modality))
        return window if scale is None else apply_scale(scale, window)

    def _modalities_of(self, task: str) -> tuple[str, ...]:
        if fusion_id(task) not in self.sessions or head_id(task) not in self.sessions:
            return ()
        return tuple(
            m
            for m in self.federation.task_modalities(task)
            if m in self._widths and fusion_id(task, m) in self.sessions
        )


def _session(
    federation: Federation,
    block: BlockId,
    tensors: Tensors,
    skeletons: Callable[[str], bytes | None],
    options: RuntimeOptions,
) -> Session:
    if block not in federation.spec:
        raise RemoteError(f"{block}: no block of federation {federation.name}", error_id="block-invalid")
    digest = skeleton_digest(federation, block)
    skeleton = skeletons(digest)
    if skeleton is None:
        raise RemoteError(
            f"{block}: its graph {digest[:12]} is not on this machine",
            error_id="skeleton-missing",
            hint="the gateway sends it if it has it: blossom-aggregator federations add-skeleton",
        )
    return make_session(skeleton, federation.spec[block], tensors, digest=digest, options=options)


def _numbers(federation: Federation, block: BlockId, tensors: Tensors) -> Tensors:
    if block not in federation.spec:
        raise RemoteError(f"{block}: no block of federation {federation.name}", error_id="block-invalid")
    wanted = {t.name: t.shape for t in federation.spec[block].tensors}
    found = {name: values.shape for name, values in tensors.items()}
    if found != wanted or not all(np.isfinite(values).all() for values in tensors.values()):
        raise RemoteError(f"{block}: found {found}, expected finite numbers in {wanted}", error_id="block-invalid")
    return tensors


def _rows(present: Mapping[str, Mask]) -> int:
    return len(next(iter(present.values()))) if present else 0


def _any(mask: Mask) -> bool:
    """`mask.any()`, which takes a microsecond even of a single value."""
    return bool(mask[0]) if len(mask) == 1 else bool(mask.any())


def _first(found: list[NDArray[np.float32]]) -> Values:
    return found[0]
