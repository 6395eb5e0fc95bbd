"""The model of one device: the blocks that it owns, joined. Holds values; where they come from is not its business."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blossom_edge.core.blocks import BlockId, BlockKind, BlockSpec, Tensors
from blossom_edge.core.errors import SpecMismatch
from blossom_edge.core.names import TaskName
from blossom_edge.core.scale import SMALLEST, STEPS
from blossom_edge.core.training import Blocks
from blossom_edge.federation.block_types import find_type
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.spec import (
    block_options,
    embedding_width,
    encoder_id,
    fused_width,
    fusion_id,
    gate_id,
    head_id,
    own_id,
    part_modality,
    scale_id,
    shared_id,
)
from blossom_edge.models.encoders import ENCODER_MODULES
from blossom_edge.models.fusion import PART_MODULES, REST_MODULES
from blossom_edge.models.heads import HEAD_MODULES

SHARED, OWN = "shared", "own"
"""The branches of a task: the blocks that are averaged, and the private copies of dual ones."""


class Gate(nn.Module):
    """The share of the shared branch, from 0 to 1; chosen, not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1), requires_grad=False)


class Scale(nn.Module):
    """Agreed normalisation of a modality's windows, see `core.scale`; measured, not trained."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.known = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(num_channels), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(num_channels), requires_grad=False)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, time, width), the channel running fastest -> the same shape; as it is until the scale is settled."""
        settled = (self.known > STEPS - 0.5).float()
        moves = (self.variance > SMALLEST**2).float() * settled
        spread = (self.variance * moves + (1 - moves)).sqrt()
        repeats = window.shape[2] // self.mean.shape[0]
        return (window - (self.mean * settled).repeat(repeats)) / spread.repeat(repeats)


class BlockModel(nn.Module):
    """The given blocks of a federation, wired; all values are zero until they are loaded.

    A modality counts for a task when its encoder and its part of the task's fusion are both here; a task is served
    when its fusion, its head and at least one such modality are. A task with dual blocks has two branches, SHARED and
    OWN, on the same encoders; its answer is `gate * shared + (1 - gate) * own`.
    Where a task has `absent = "zero-fill"`, every modality takes part in its fusion: a row that lacks one has what its
    encoder makes of zeros, and where the encoder is not here, what its version 0 makes of them, without dropout.
    """

    def __init__(self, federation: Federation, blocks: Collection[BlockId]) -> None:
        super().__init__()
        self.specs: dict[BlockId, BlockSpec] = {b: federation.spec[b] for b in sorted(blocks)}
        self._index = {block: i for i, block in enumerate(self.specs)}
        with torch.device("meta"):  # no initial values are drawn: other users of torch's random numbers see nothing
            self._parts = nn.ModuleList(make_block(federation, spec) for spec in self.specs.values())
        self.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
        self._federation = federation
        self._wiring = {
            task: modalities for task in sorted(federation.tasks) if (modalities := self._modalities_here(task))
        }
        self._untrained: dict[str, str] = {}
        for task in self._wiring:
            for modality in self._filled(task):
                if encoder_id(modality) not in self._index and modality not in self._untrained:
                    self._untrained[modality] = f"untrained_{len(self._untrained)}"
                    values = untrained_answer(federation, modality)
                    self.register_buffer(self._untrained[modality], values, persistent=False)

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks that these blocks can serve, sorted."""
        return tuple(TaskName(t) for t in self._wiring)

    def task_modalities(self, task: str) -> tuple[str, ...]:
        """The modalities that count for a task here, sorted."""
        return self._wiring.get(task, ())

    def module(self, block: BlockId) -> nn.Module:
        """The torch module of one block.

        Raises:
            KeyError: the block is not part of this model.
        """
        return self._parts[self._index[block]]

    def load(self, blocks: Blocks) -> None:
        """Copy values in; blocks that are not part of this model are passed over.

        Raises:
            SpecMismatch: names or shapes are not those of the federation.
        """
        for block, tensors in blocks.items():
            if block in self._index:
                _load_block(self.module(block), block, tensors)

    def values(self, block: BlockId) -> Tensors:
        """A copy of one block's values: float32 on the CPU, sorted by name."""
        state = self.module(block).state_dict()
        return {name: state[name].detach().to("cpu", torch.float32, copy=True).numpy() for name in sorted(state)}

    def forward(
        self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor], tasks: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """The outputs of each served task (of `tasks`, if given).

        inputs: modality -> (batch, time, width) float32; present: modality -> (batch,) bool, on the same device.
        A classification or multilabel task gives (batch, class) logits, a regression (batch, 1) in the task's unit.
        An encoder runs on the rows that have its modality, and not at all when none has.
        """
        return {task: self.mixed(task, found) for task, found in self.branches(inputs, present, tasks).items()}

    def branches(
        self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor], tasks: Collection[str] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """As `forward`, but what each branch of a task says: SHARED alone, or SHARED and OWN."""
        wanted = [t for t in self._wiring if tasks is None or t in tasks]
        needed = sorted({m for t in wanted for m in self._wiring[t] if m in inputs})
        embeddings = {m: e for m in needed if (e := self._embed(m, inputs[m], present[m])) is not None}
        found = {task: self._task(task, embeddings, present) for task in wanted}
        return {task: outputs for task, outputs in found.items() if outputs}

    def mixed(self, task: str, branches: Mapping[str, Tensor]) -> Tensor:
        """One answer out of those of a task's branches, by its gate.

        For logits of one label this mixes the logarithms of the probabilities: what both terms lack is the same for
        all classes.
        """
        if OWN not in branches:
            return branches[SHARED]
        gate = self.module(gate_id(task)).get_parameter("gate")
        return gate * branches[SHARED] + (1 - gate) * branches[OWN]

    def _embed(self, modality: str, window: Tensor, present: Tensor) -> Tensor | None:
        rows = present.nonzero().squeeze(1)
        if len(rows) == 0:
            return None
        if scale_id(modality) in self._index:
            window = self.module(scale_id(modality))(window)
        encoder = self.module(encoder_id(modality))
        if len(rows) == len(present):
            whole: Tensor = encoder(window)
            return whole
        some: Tensor = encoder(window[rows])
        return some.new_zeros(len(present), some.shape[1]).index_copy(0, rows, some)

    def _task(self, task: str, embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the branches of a task say; nothing when none of its modalities is in the batch."""
        have = [m for m in self._wiring[task] if m in embeddings]
        if not have:
            return {}
        mask = torch.stack([present[m] for m in have], dim=1)
        if filled := self._filled(task):
            embeddings = {m: self._with_zeros(m, embeddings.get(m), present) for m in filled}
            have, mask = list(filled), mask.new_ones(len(mask), len(filled))
        fused = self._fused(task, have, embeddings, mask, of=shared_id)
        outputs = {SHARED: self._answer(task, head_id(task), fused)}
        if own_id(head_id(task)) in self._index:
            if own_id(fusion_id(task)) in self._index:
                fused = self._fused(task, have, embeddings, mask, of=own_id)
            outputs[OWN] = self._answer(task, own_id(head_id(task)), fused)
        return outputs

    def _filled(self, task: str) -> tuple[str, ...]:
        """The modalities that take part in a task even when they are absent, sorted; empty where those are masked."""
        if self._federation.tasks[task].absent != "zero-fill":
            return ()
        return tuple(m for m in self._federation.task_modalities(task) if fusion_id(task, m) in self._index)

    def _with_zeros(self, modality: str, embedding: Tensor | None, present: Mapping[str, Tensor]) -> Tensor:
        """(batch, width): the embedding, and for the rows that lack it what the encoder makes of zeros."""
        here = present.get(modality) if embedding is not None else None
        if embedding is not None and here is not None and bool(here.all()):
            return embedding
        if modality in self._untrained:
            zeros = self.get_buffer(self._untrained[modality])
        else:
            signal = self._federation.modalities[modality].signal
            encoder = self.module(encoder_id(modality))
            zeros = encoder(next(encoder.parameters()).new_zeros(1, signal.window, signal.width))
        if embedding is None or here is None:
            return zeros.expand(len(next(iter(present.values()))), -1)
        return torch.where(here.unsqueeze(1), embedding, zeros)

    def _fused(
        self,
        task: str,
        have: Sequence[str],
        embeddings: Mapping[str, Tensor],
        mask: Tensor,
        *,
        of: Callable[[BlockId], BlockId],
    ) -> Tensor:
        """The embeddings joined by the blocks that `of` makes of those of the fusion."""
        outputs = [self.module(of(fusion_id(task, m)))(embeddings[m]) for m in have]
        values = torch.stack([value for value, _ in outputs], dim=1)
        scores = torch.stack([score for _, score in outputs], dim=1)
        fused: Tensor = self.module(of(fusion_id(task)))(values, scores, mask)
        return fused

    def _answer(self, task: str, head: BlockId, fused: Tensor) -> Tensor:
        result: Tensor = self.module(head)(fused)
        settings = self._federation.tasks[task]
        return result * settings.spread + settings.mean if settings.type == "regression" else result

    def _modalities_here(self, task: str) -> tuple[str, ...]:
        if fusion_id(task) not in self._index or head_id(task) not in self._index:
            return ()
        return tuple(
            m
            for m in self._federation.task_modalities(task)
            if encoder_id(m) in self._index and fusion_id(task, m) in self._index
        )


def untrained_answer(federation: Federation, modality: str) -> Tensor:
    """(1, width): what version 0 of a modality's encoder makes of zeros, without dropout; draws no random numbers."""
    spec, signal = federation.spec[encoder_id(modality)], federation.modalities[modality].signal
    with torch.device("meta"):
        encoder = make_block(federation, spec)
    encoder = encoder.to_empty(device="cpu").eval()
    _load_block(encoder, spec.id, initial_block(spec, federation.digest, federation.seed))
    with torch.no_grad():
        answer: Tensor = encoder(torch.zeros(1, signal.window, signal.width))
    return answer


def make_block(federation: Federation, spec: BlockSpec) -> nn.Module:
    """The torch module of one block; its parameters are those of `spec`, its values are the module's own.

    The type is built in, or of an installed package, which then makes the module itself.
    """
    make: Callable[..., nn.Module]
    if spec.id.kind is BlockKind.SCALE:
        return Scale(len(federation.modalities[spec.id.name].channels))
    if spec.id.kind is BlockKind.ENCODER:
        options = block_options(federation, spec.id)
        make = ENCODER_MODULES.get(spec.type) or _foreign(spec).module
        return make(options, signal=federation.modalities[spec.id.name].signal)
    task = str(spec.task)
    if spec.id.kind is BlockKind.GATE:
        return Gate()
    if spec.id.kind in (BlockKind.HEAD, BlockKind.OWN_HEAD):
        options = block_options(federation, spec.id)
        make = HEAD_MODULES.get(spec.type) or _foreign(spec).module
        return make(options, width=fused_width(federation, task), outputs=federation.tasks[task].num_outputs)
    options = block_options(federation, fusion_id(task))
    modality = part_modality(spec.id)
    if not modality:
        make = REST_MODULES.get(spec.type) or _foreign(spec).rest_module
        return make(options)
    make = PART_MODULES.get(spec.type) or _foreign(spec).part_module
    return make(options, embedding=embedding_width(federation, encoder_id(modality)))


def _foreign(spec: BlockSpec) -> Any:
    """The type of an installed package; a federation whose types are not all there was refused when it was read."""
    return find_type(shared_id(spec.id).kind, spec.type)


def _load_block(module: nn.Module, block: BlockId, tensors: Tensors) -> None:
    parameters = dict(module.named_parameters())
    if set(parameters) != set(tensors):
        wrong = ", ".join(sorted(set(parameters) ^ set(tensors)))
        raise SpecMismatch(f"{block}: tensors missing or unknown: {wrong}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            values = tensors[name]
            if values.shape != tuple(parameter.shape):
                raise SpecMismatch(f"{block}: {name} has shape {values.shape}, expected {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(np.array(values, dtype=np.float32)))
