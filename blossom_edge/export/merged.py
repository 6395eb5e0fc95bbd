"""A whole model as one ordinary ONNX file, weights inside: for people who know onnxruntime and nothing of us.

Inputs, in the order of `modalities`: one per modality, named as it, (batch, window, width) float32, standardised per
channel as (value - mean) / spread; and `present`, (batch, modality) bool in the same order: what is False is not looked
at. Outputs: `probabilities`, (batch, class), of a classification (they add up to 1) or a multilabel task (each for
itself); `value`, (batch,), of a regression, in the task's unit. What the numbers mean stands as JSON in the metadata
entry `blossom_edge.model` (see `model_facts`). Needs torch, onnx and onnxscript; writes no file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import BlockId, BlockKind, Tensors
from blossom_edge.core.errors import BlossomError
from blossom_edge.export.needed import need_exporter
from blossom_edge.export.ports import Port, Ports
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.spec import (
    encoder_id,
    fusion_id,
    gate_id,
    head_id,
    own_id,
    scale_id,
    shared_id,
    zero_filled,
)

if TYPE_CHECKING:
    from torch import nn

MAX_MERGED_BYTES = (1 << 31) - (1 << 20)
"""Weights of at most this size: protobuf, and so an ONNX file, ends at 2 GiB."""
FACTS_KEY = "blossom_edge.model"
LARGEST_ERROR = 1e-5
"""Between torch and onnxruntime."""


def export_merged(
    federation: Federation,
    blocks: Mapping[BlockId, Tensors],
    *,
    task: str,
    versions: Mapping[BlockId, int] | None = None,
) -> bytes:
    """The model of one task as an ONNX file that was compared with torch.

    `blocks` has the values of the task's fusion and head, and of encoder and part of the fusion for the modalities that
    the file will have; what else is in it is passed over. `versions` are noted in the file.

    Raises:
        ConfigError: `package-missing`.
        BlossomError: `export-failed`: blocks are missing, the weights are too large, or the file does not compute what
            torch does (1e-5, absolute for probabilities, relative to the largest value for a regression).
        SpecMismatch: values of another shape.
    """
    need_exporter()
    from blossom_edge.export.graph import export_graph

    if zero_filled(federation, [task]):
        what = f"task {task}: found absent zero-fill, one file can only mask what is absent"
        raise BlossomError("export-failed", what, hint=f"serve the federation with --set tasks.{task}.absent=mask")
    modalities = merged_modalities(federation, blocks, task=task)
    used = present_blocks(federation, blocks, task=task, modalities=modalities)
    size = sum(4 * federation.spec[b].num_values for b in used)
    if size > MAX_MERGED_BYTES:
        what = f"task {task}: its weights have {size} bytes, one ONNX file holds at most {MAX_MERGED_BYTES}"
        raise BlossomError("export-failed", what, hint="--bundle has no such limit")
    values = {block: blocks[block] for block in used}
    module = _module(federation, values, task=task, modalities=modalities)
    ports = _ports(federation, task=task, modalities=modalities)
    import onnx
    import onnx_ir

    ir_model = export_graph(module, ports, what=f"the model of {task}", optimize=True, takes_many=True)
    proto = onnx_ir.to_proto(ir_model)
    for node in proto.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    proto.graph.ClearField("value_info")
    proto.graph.name, proto.producer_name, proto.doc_string = f"{federation.name}.{task}", "blossom-edge", ""
    facts = model_facts(federation, task=task, modalities=modalities, versions=versions or {})
    onnx.helper.set_model_props(proto, {FACTS_KEY: json.dumps(facts, sort_keys=True)})
    data = bytes(proto.SerializeToString(deterministic=True))
    _check(data, federation, values, ports, task=task, modalities=modalities)
    return data


def merged_modalities(federation: Federation, blocks: Mapping[BlockId, Any], *, task: str) -> tuple[str, ...]:
    """The modalities that a merged model of the task has, sorted: those of which encoder and part are in `blocks`.

    Raises:
        BlossomError: `export-failed`: fusion or head is missing, or there is no such modality.
    """
    missing = [str(b) for b in (fusion_id(task), head_id(task)) if b not in blocks]
    have = tuple(
        m for m in federation.task_modalities(task) if encoder_id(m) in blocks and fusion_id(task, m) in blocks
    )
    if missing or not have:
        lacks = ", ".join(missing) or "an encoder with its part of the fusion"
        raise BlossomError(
            "export-failed", f"task {task}: {lacks} is not on this device", hint="try --task with another"
        )
    return have


def used_blocks(federation: Federation, *, task: str, modalities: tuple[str, ...]) -> list[BlockId]:
    """The blocks that are in a merged model: encoders with their scale, the task's blocks, of dual ones both copies."""
    pairs = [block for m in modalities for block in (encoder_id(m), scale_id(m), fusion_id(task, m))]
    shared = [block for block in (*pairs, fusion_id(task), head_id(task)) if block in federation.spec]
    own = [own_id(b) for b in shared if b.kind in (BlockKind.FUSION, BlockKind.HEAD) and own_id(b) in federation.spec]
    return [*shared, *own, *([gate_id(task)] if own else [])]


def present_blocks(
    federation: Federation, blocks: Collection[BlockId], *, task: str, modalities: tuple[str, ...]
) -> list[BlockId]:
    """Those of `used_blocks` that are used: if a private copy or the gate is missing, the shared ones alone."""
    wanted = used_blocks(federation, task=task, modalities=modalities)
    whole = set(wanted) <= set(blocks)
    return [b for b in wanted if whole or (b.kind is not BlockKind.GATE and shared_id(b) == b)]


def model_facts(
    federation: Federation, *, task: str, modalities: tuple[str, ...], versions: Mapping[BlockId, int]
) -> dict[str, Any]:
    """What the numbers of a merged model mean, as plain data: task, classes or unit, and each modality's windows."""
    settings = federation.tasks[task]
    used = used_blocks(federation, task=task, modalities=modalities)
    return {
        "schema": 1,
        "federation": federation.name,
        "digest": federation.digest,
        "task": task,
        "type": settings.type,
        "classes": list(settings.classes),
        "unit": settings.unit,
        "modalities": [
            {
                "name": name,
                "rate_hz": federation.modalities[name].rate_hz,
                "window": federation.modalities[name].window,
                "hop": federation.modalities[name].hop,
                "shape": list(federation.modalities[name].shape),
                "channels": [c.model_dump(mode="json") for c in federation.modalities[name].channels],
            }
            for name in modalities
        ],
        "versions": {str(b): versions[b] for b in used if b in versions},
    }


def _ports(federation: Federation, *, task: str, modalities: tuple[str, ...]) -> Ports:
    windows = [Port(m, ("batch", federation.modalities[m].window, federation.modalities[m].width)) for m in modalities]
    settings = federation.tasks[task]
    output = Port("value", ("batch",))
    if settings.type != "regression":
        output = Port("probabilities", ("batch", settings.num_outputs))
    return Ports((*windows, Port("present", ("batch", len(modalities)), is_bool=True)), (output,))


def _module(
    federation: Federation, blocks: Mapping[BlockId, Tensors], *, task: str, modalities: tuple[str, ...]
) -> nn.Module:
    import torch
    from torch import Tensor, nn

    from blossom_edge.export.module import block_module

    def part(block: BlockId) -> nn.Module:
        return block_module(federation, block, blocks[block])

    def own(block: BlockId) -> BlockId:
        return own_id(block) if own_id(block) in blocks else block

    class Merged(nn.Module):
        """The blocks of one task, wired; an encoder sees every row, and the mask hides what is absent."""

        def __init__(self) -> None:
            super().__init__()
            self.encoders = nn.ModuleList(part(encoder_id(m)) for m in modalities)
            self.parts = nn.ModuleList(part(fusion_id(task, m)) for m in modalities)
            self.rest, self.head = part(fusion_id(task)), part(head_id(task))
            self.scales = nn.ModuleList(
                part(scale_id(m)) if scale_id(m) in blocks else nn.Identity() for m in modalities
            )
            self.gate = part(gate_id(task)) if gate_id(task) in blocks else None
            if self.gate is not None:
                self.own_parts = nn.ModuleList(part(own(fusion_id(task, m))) for m in modalities)
                self.own_rest, self.own_head = part(own(fusion_id(task))), part(own(head_id(task)))
            self.task = federation.tasks[task]

        def forward(self, *inputs: Tensor) -> Tensor:
            windows, present = inputs[:-1], inputs[-1]
            embeddings = [
                encoder(scale(window))
                for window, scale, encoder in zip(windows, self.scales, self.encoders, strict=True)
            ]
            outputs = self.branch(embeddings, present, self.parts, self.rest, self.head)
            if self.gate is not None:
                gate = self.gate.get_parameter("gate")
                private = self.branch(embeddings, present, self.own_parts, self.own_rest, self.own_head)
                outputs = gate * outputs + (1 - gate) * private
            if self.task.type == "regression":
                return outputs.squeeze(1) * self.task.spread + self.task.mean
            return torch.softmax(outputs, dim=1) if self.task.type == "classification" else torch.sigmoid(outputs)

        def branch(
            self, embeddings: list[Tensor], present: Tensor, parts: nn.ModuleList, rest: nn.Module, head: nn.Module
        ) -> Tensor:
            """What one copy of fusion and head makes of the embeddings."""
            seen = [fusion(embedding) for embedding, fusion in zip(embeddings, parts, strict=True)]
            values = torch.stack([value for value, _ in seen], dim=1)
            scores = torch.stack([score for _, score in seen], dim=1)
            answer: Tensor = head(rest(values, scores, present))
            return answer

    return Merged()


def _check(
    data: bytes,
    federation: Federation,
    blocks: Mapping[BlockId, Tensors],
    ports: Ports,
    *,
    task: str,
    modalities: tuple[str, ...],
) -> None:
    """Compare the file with the model that trains (`BlockModel`), not with what it was exported from."""
    import torch

    from blossom_edge.export.parity import BATCHES, largest_error
    from blossom_edge.inference.runtime import load_onnxruntime
    from blossom_edge.models.block_model import BlockModel

    model = BlockModel(federation, blocks).eval()
    model.load(blocks)
    session = load_onnxruntime().InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch in BATCHES:
        inputs = ports.example(batch=batch, modalities=1, seed=batch)
        inputs["present"][0] = True  # where no row has anything, the device says nothing at all
        with torch.no_grad():
            outputs = model(
                {m: torch.from_numpy(inputs[m]) for m in modalities},
                {m: torch.from_numpy(inputs["present"][:, i].copy()) for i, m in enumerate(modalities)},
            )[task].numpy()
        expected = _as_merged(outputs, federation.tasks[task].type)
        error = largest_error(expected, session.run(None, inputs)[0])
        if not error <= LARGEST_ERROR:
            what = f"the model of {task}: onnxruntime is {error:.1e} away from torch"
            raise BlossomError("export-failed", f"{what}, expected at most {LARGEST_ERROR:g}")


def _as_merged(outputs: NDArray[np.float32], task_type: str) -> NDArray[Any]:
    """What a merged file makes of logits, or of a regression's column."""
    if task_type == "regression":
        return outputs[:, 0]
    logits = outputs.astype(np.float64)
    if task_type == "multilabel":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
