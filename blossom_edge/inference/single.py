"""One window at a time through the sessions of a model, in buffers that are made once: what a live device does.

`Session.run` copies and converts at each of the six calls of a model with two modalities; here each session reads where
the one before it wrote. The results are those of the general way in `chain`; only the calls are cheaper.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, BlockId
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.spec import encoder_id, fused_width, fusion_id, head_id, own_id, shared_id
from blossom_edge.inference.runtime import Session

MAX_TAILS = 64
"""So many combinations of task and modalities keep their buffers; a device meets a few."""

Values = NDArray[np.float32]
Call = Callable[[], None]


class SingleWindow:
    """The bound calls of one model. Safe from several threads, one at a time."""

    def __init__(
        self,
        federation: Federation,
        sessions: Mapping[BlockId, Session],
        widths: Mapping[str, int],
        gates: Mapping[str, np.float32],
    ) -> None:
        self._federation = federation
        self._sessions = sessions
        self._gates = gates
        self._lock = threading.Lock()
        self._windows: dict[str, Values] = {}
        self._embeddings: dict[str, Values] = {}
        self._encoders: dict[str, Call] = {}
        self._tails: dict[tuple[str, tuple[str, ...]], tuple[tuple[Call, ...], tuple[Values, ...]]] = {}
        for modality, width in widths.items():
            seen = federation.modalities[modality].signal
            window = np.zeros((1, seen.window, seen.width), np.float32)
            embedding = np.zeros((1, width), np.float32)
            self._windows[modality], self._embeddings[modality] = window, embedding
            bind = sessions[encoder_id(modality)].bind
            self._encoders[modality] = bind({"window": window}, {"embedding": embedding})

    def embed(self, windows: Mapping[str, Array]) -> dict[str, Values]:
        """Modality -> (1, time, width) to modality -> (1, embedding)."""
        with self._lock:
            self._encode(windows)
            return {m: self._embeddings[m].copy() for m in windows}

    def outputs(
        self,
        windows: Mapping[str, Array],
        embeddings: Mapping[str, Array],
        wiring: Mapping[str, tuple[str, ...]],
    ) -> dict[str, Values]:
        """The outputs of each task of `wiring` (task -> modalities that are there), (1, outputs), before any scaling.

        Each modality of `wiring` stands in `windows` or, if it is known already, in `embeddings`.
        """
        with self._lock:
            self._encode(windows)
            for modality, embedding in embeddings.items():
                self._embeddings[modality][...] = embedding
            found: dict[str, Values] = {}
            for task, have in wiring.items():
                tail = self._tails.get((task, have))
                calls, answers = tail if tail is not None else self._tail(task, have)
                for call in calls:
                    call()
                found[task] = mixed(answers, self._gates.get(task)).copy()
            return found

    def _encode(self, windows: Mapping[str, Array]) -> None:
        for modality, window in windows.items():
            self._windows[modality][...] = window
            self._encoders[modality]()

    def _tail(self, task: str, have: tuple[str, ...]) -> tuple[tuple[Call, ...], tuple[Values, ...]]:
        """The calls from the embeddings of `have` to the answers of a task; made once for each combination."""
        calls, answers = list[Call](), list[Values]()
        for of in branches(task, self._sessions, self._gates):
            more, answer = self._branch(task, have, of)
            calls += more
            answers.append(answer)
        if len(self._tails) >= MAX_TAILS:
            self._tails.clear()
        self._tails[task, have] = tuple(calls), tuple(answers)
        return self._tails[task, have]

    def _branch(self, task: str, have: tuple[str, ...], of: Callable[[BlockId], BlockId]) -> tuple[list[Call], Values]:
        width = fused_width(self._federation, task)
        values, scores = np.zeros((1, len(have), width), np.float32), np.zeros((1, len(have)), np.float32)
        fused = np.zeros((1, width), np.float32)
        output = np.zeros((1, self._federation.tasks[task].num_outputs), np.float32)
        calls = [
            self._sessions[of(fusion_id(task, m))].bind(
                {"embedding": self._embeddings[m]}, {"value": values[:, i], "score": scores[:, i]}
            )
            for i, m in enumerate(have)
        ]
        joined = {"values": values, "scores": scores, "present": np.ones((1, len(have)), np.bool_)}
        calls.append(self._sessions[of(fusion_id(task))].bind(joined, {"fused": fused}))
        calls.append(self._sessions[of(head_id(task))].bind({"fused": fused}, {"output": output}))
        return calls, output


def branches(
    task: str, blocks: Collection[BlockId], gates: Collection[str]
) -> tuple[Callable[[BlockId], BlockId], ...]:
    """What makes the blocks of each branch of a task out of the shared ones: the shared branch, and the own one.

    Of a dual head on a fusion that has no copy, both branches go through the one fusion.
    """
    if task not in gates:
        return (shared_id,)
    return shared_id, lambda block: own_id(block) if own_id(block) in blocks else block


def mixed(answers: Sequence[Values], gate: np.float32 | None) -> Values:
    """`gate * shared + (1 - gate) * own`, or the one answer there is."""
    if gate is None or len(answers) == 1:
        return answers[0]
    return np.asarray(gate * answers[0] + (np.float32(1.0) - gate) * answers[1], np.float32)
