"""From a federation to its blocks: names, tensors, visibility. The one place where the model's shape is worked out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from blossom_edge.core.blocks import BlockId, BlockKind, BlockSpec, ModelSpec, TensorSpec, Visibility
from blossom_edge.core.names import Modality, TaskName
from blossom_edge.federation.block_types import BlockOptions, encoder_type, fusion_type, head_type, options_class

if TYPE_CHECKING:
    from blossom_edge.federation.schema import Federation


_OWN_KINDS: Mapping[BlockKind, BlockKind] = {
    BlockKind.FUSION: BlockKind.OWN_FUSION,
    BlockKind.HEAD: BlockKind.OWN_HEAD,
}
_SHARED_KINDS: Mapping[BlockKind, BlockKind] = {own: shared for shared, own in _OWN_KINDS.items()}


def encoder_id(modality: str) -> BlockId:
    """`encoder/MODALITY`."""
    return BlockId(BlockKind.ENCODER, modality)


def scale_id(modality: str) -> BlockId:
    """`scale/MODALITY`: what its windows are normalised with, where devices agree on that."""
    return BlockId(BlockKind.SCALE, modality)


def fusion_id(task: str, modality: str = "") -> BlockId:
    """`fusion/TASK.MODALITY`, or `fusion/TASK` for the rest of the fusion."""
    return BlockId(BlockKind.FUSION, f"{task}.{modality}" if modality else task)


def part_modality(block: BlockId) -> str:
    """The modality of a part of a fusion or of its private copy; empty for any other block."""
    return block.name.partition(".")[2] if shared_id(block).kind is BlockKind.FUSION else ""


def head_id(task: str) -> BlockId:
    """`head/TASK`."""
    return BlockId(BlockKind.HEAD, task)


def own_id(block: BlockId) -> BlockId:
    """The private copy of a dual fusion or head: `own-fusion/...` or `own-head/...`."""
    return BlockId(_OWN_KINDS[block.kind], block.name)


def shared_id(block: BlockId) -> BlockId:
    """The block that a private copy is a copy of; any other block itself."""
    return BlockId(_SHARED_KINDS.get(block.kind, block.kind), block.name)


def gate_id(task: str) -> BlockId:
    """`gate/TASK`: how much of the answer comes from the shared branch of a task with a dual head."""
    return BlockId(BlockKind.GATE, task)


def block_options(federation: Federation, block: BlockId) -> BlockOptions:
    """The options of a block that stands in the file (not of a `fusion/TASK.MODALITY`).

    Raises:
        KeyError: unknown type.
        pydantic.ValidationError: wrong options.
    """
    shared = shared_id(block)
    settings = federation.blocks[str(shared)]
    return options_class(shared.kind, settings.type).model_validate(settings.options)


def embedding_width(federation: Federation, encoder: BlockId) -> int:
    """Width of what an encoder gives."""
    return encoder_type(federation.blocks[str(encoder)].type).width(block_options(federation, encoder))


def fused_width(federation: Federation, task: str) -> int:
    """Width of what the fusion of a task gives to its head."""
    rest = fusion_id(task)
    return fusion_type(federation.blocks[str(rest)].type).width(block_options(federation, rest))


def zero_filled(federation: Federation, tasks: Iterable[str] = ()) -> tuple[str, ...]:
    """Those of `tasks` (empty: of all) in which zeros stand for what is absent, sorted; only torch computes them."""
    return tuple(t for t in sorted(tasks or federation.tasks) if federation.tasks[t].absent == "zero-fill")


def model_spec(federation: Federation) -> ModelSpec:
    """All blocks of a checked federation, sorted by id.

    Raises:
        ValueError: an encoder does not suit its window or the shape of its samples, said as `key: what`.
    """
    blocks = (*_encoders(federation), *_with_own(_tasks(federation)))
    return ModelSpec(tuple(sorted(blocks, key=lambda b: b.id)))


def _encoders(federation: Federation) -> Iterator[BlockSpec]:
    for name, modality in federation.modalities.items():
        block = encoder_id(name)
        kind = encoder_type(federation.blocks[str(block)].type)
        options = block_options(federation, block)
        try:
            tensors = kind.tensors(options, signal=modality.signal)
        except ValueError as error:
            raise ValueError(f'blocks."{block}".{error}') from None
        yield _block(federation, block, kind.name, tensors, options, modality=Modality(name))
        if modality.normalise == "agreed":
            channels = len(modality.channels)
            rows = (TensorSpec("known", (1,)), TensorSpec("mean", (channels,)), TensorSpec("variance", (channels,)))
            yield BlockSpec(scale_id(name), "scale", rows, modality=Modality(name))


def _tasks(federation: Federation) -> Iterator[BlockSpec]:
    for name, task in federation.tasks.items():
        rest, head, served = fusion_id(name), head_id(name), TaskName(name)
        fusion = fusion_type(federation.blocks[str(rest)].type)
        options = block_options(federation, rest)
        for modality in federation.task_modalities(name):
            tensors = fusion.part(options, embedding=embedding_width(federation, encoder_id(modality)))
            part = fusion_id(name, modality)
            owner = None if task.absent == "zero-fill" else modality  # zeros exercise the parts of all modalities
            yield _block(federation, part, fusion.name, tensors, options, modality=owner, task=served)
        yield _block(federation, rest, fusion.name, fusion.rest(options), options, task=served)
        kind = head_type(federation.blocks[str(head)].type)
        head_options = block_options(federation, head)
        outputs = kind.tensors(head_options, width=fusion.width(options), outputs=task.num_outputs)
        yield _block(federation, head, kind.name, outputs, head_options, task=served)


def _with_own(blocks: Iterator[BlockSpec]) -> Iterator[BlockSpec]:
    """The blocks, and for each dual one its private copy; for a dual head the gate between the two as well."""
    for spec in blocks:
        yield spec
        if spec.visibility is not Visibility.DUAL:
            continue
        yield replace(spec, id=own_id(spec.id), visibility=Visibility.PRIVATE)
        if spec.id.kind is BlockKind.HEAD:
            tensors = (TensorSpec("gate", (1,)),)
            gate = gate_id(spec.id.name)
            yield BlockSpec(gate, "gate", tensors, task=spec.task, visibility=Visibility.PRIVATE)


def _block(
    federation: Federation,
    block: BlockId,
    type_name: str,
    tensors: tuple[TensorSpec, ...],
    options: BlockOptions,
    *,
    modality: Modality | None = None,
    task: TaskName | None = None,
) -> BlockSpec:
    return BlockSpec(
        id=block,
        type=type_name,
        tensors=tensors,
        modality=modality,
        task=task,
        visibility=federation.visibility_of(block),
        options=options.plain(),
    )
