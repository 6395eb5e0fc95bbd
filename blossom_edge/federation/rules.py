"""What must hold between the parts of a federation: said as `key: what, found, expected`, one line a problem."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import ValidationError

from blossom_edge.core.blocks import BlockId, BlockKind, Visibility
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.block_types import MAX_BLOCK_VALUES, options_class
from blossom_edge.federation.combinations import refused
from blossom_edge.federation.problems import did_you_mean, explain, found
from blossom_edge.federation.spec import encoder_id, fusion_id, head_id, model_spec

if TYPE_CHECKING:
    from blossom_edge.federation.schema import Federation, Task

MAX_SAMPLE_VALUES = 1_000_000
"""A sample of all channels has at most this many values: an RGB image of 577 x 577."""
MAX_WINDOW_VALUES = 1 << 24
"""A window of framed samples has at most this many (64 MiB): federations also arrive over the network."""


def problems(federation: Federation) -> list[str]:
    """Every broken rule; the model itself is worked out only when the rest is in order."""
    lines = [*_modalities(federation), *_tasks(federation), *_settings(federation), *_blocks(federation)]
    lines = lines or [*_dual(federation), *_shapes(federation)]
    return lines or list(refused(federation))


def _modalities(federation: Federation) -> Iterator[str]:
    used = {m for name in federation.tasks for m in federation.task_modalities(name)}
    for name, modality in federation.modalities.items():
        key = f"modalities.{name}"
        if modality.hop > modality.window:
            yield f"{key}.hop: found {modality.hop} samples, expected at most the window ({modality.window} samples)"
        if modality.width > MAX_SAMPLE_VALUES:
            yield f"{key}.shape: found {modality.width} values in a sample, expected at most {MAX_SAMPLE_VALUES}"
        elif modality.shape and modality.width * modality.window > MAX_WINDOW_VALUES:
            size = modality.width * modality.window
            yield f"{key}.window: found {size} values in a window, expected at most {MAX_WINDOW_VALUES}"
        names = [c.name for c in modality.channels]
        for twice in sorted({n for n in names if names.count(n) > 1}):
            yield f"{key}.channels: channel {twice!r} stands there twice"
        if name not in used:
            yield f"{key}: no task uses it, expected it in `modalities` of a task"


def _tasks(federation: Federation) -> Iterator[str]:
    for name, task in federation.tasks.items():
        key = f"tasks.{name}"
        for modality in task.modalities:
            if modality not in federation.modalities:
                near = did_you_mean(modality, federation.modalities)
                declared = ", ".join(sorted(federation.modalities))
                yield f"{key}.modalities: nobody declared modality {modality!r}{near}, expected some of {declared}"
        if len(set(task.modalities)) != len(task.modalities):
            yield f"{key}.modalities: a modality stands there twice"
        yield from _task_type(key, task)


def _task_type(key: str, task: Task) -> Iterator[str]:
    if len(set(task.classes)) != len(task.classes):
        yield f"{key}.classes: a class stands there twice"
    if task.type == "regression":
        if task.classes:
            yield f"{key}.classes: found {len(task.classes)}, expected none for a regression"
        if not task.unit:
            yield f"{key}.unit: is missing, expected the unit of the predicted value"
        return
    least = 2 if task.type == "classification" else 1
    if len(task.classes) < least:
        yield f"{key}.classes: found {len(task.classes)}, expected at least {least} for {task.type}"
    for wrong, given in (("unit", bool(task.unit)), ("mean", task.mean != 0.0), ("spread", task.spread != 1.0)):
        if given:
            yield f"{key}.{wrong}: only a regression has it, this is a {task.type}"


def _settings(federation: Federation) -> Iterator[str]:
    training, schedule = federation.training, federation.schedule
    if not training.epochs and not training.steps:
        yield "training.epochs: found 0 with steps 0, expected one of both above 0"
    if training.lr_schedule == "cosine" and training.lr_rounds < 1:
        yield "training.lr_rounds: found 0, expected the number of rounds of the cosine"
    if training.lr_min > training.lr:
        yield f"training.lr_min: found {training.lr_min}, expected at most lr ({training.lr})"
    if schedule.at and schedule.every_s:
        yield "schedule.at: found together with every_s, expected one of both"
    first, _, last = schedule.hours.partition("-")
    if schedule.hours and int(first) == int(last):
        yield f"schedule.hours: found {schedule.hours!r}, expected two different hours"


def _blocks(federation: Federation) -> Iterator[str]:
    needed = [encoder_id(m) for m in federation.modalities]
    needed += [block(t) for t in federation.tasks for block in (fusion_id, head_id)]
    parts = [fusion_id(t, m) for t in federation.tasks for m in federation.task_modalities(t)]
    known = {str(b) for b in (*needed, *parts)}
    for block in needed:
        if str(block) not in federation.blocks:
            yield f'blocks."{block}": is missing, expected a table with at least `type`'
    for key, settings in federation.blocks.items():
        place = f'blocks."{key}"'
        if key not in known:
            yield f"{place}: {_unknown(key, federation)}{did_you_mean(key, known)}"
            continue
        if settings.visibility == "dual" and key.startswith("encoder/"):
            yield f"{place}.visibility: found dual, expected shared, private or cohort (dual is for fusion and head)"
        if key in {str(b) for b in parts}:
            if settings.type or settings.options:
                whole = key.partition(".")[0]
                yield f'{place}: type and options of a part are those of "{whole}", expected only visibility and counts'
            continue
        yield from _block_type(place, BlockId.parse(key), settings.type, settings.options)


def _dual(federation: Federation) -> Iterator[str]:
    """A dual fusion is dual as a whole, its head is dual, and the shared head sees a fusion that is shared somehow."""
    for task in federation.tasks:
        parts = [fusion_id(task), *(fusion_id(task, m) for m in federation.task_modalities(task))]
        seen = {federation.visibility_of(block) for block in parts}
        head = federation.visibility_of(head_id(task))
        place = f'blocks."{fusion_id(task)}".visibility'
        if Visibility.DUAL in seen and len(seen) > 1:
            yield f"{place}: found dual for some of its parts, expected it for all of them or none"
        elif Visibility.DUAL in seen and head is not Visibility.DUAL:
            yield f'{place}: found dual under a {head.value} "{head_id(task)}", expected a dual head as well'
        elif head is Visibility.DUAL and Visibility.PRIVATE in seen:
            yield f'{place}: found private under a dual "{head_id(task)}", expected shared, dual or cohort'


def _unknown(key: str, federation: Federation) -> str:
    """Why a block that stands in the file is none of this federation."""
    try:
        block = BlockId.parse(key)
    except ConfigError as error:
        return f"{error}, expected encoder/MODALITY, fusion/TASK, fusion/TASK.MODALITY or head/TASK"
    task, _, modality = block.name.partition(".")
    if block.kind is BlockKind.ENCODER:
        return f"nobody declared modality {block.name!r}"
    if task not in federation.tasks:
        return f"nobody declared task {task!r}"
    return f"task {task!r} does not use modality {modality!r}"


def _block_type(place: str, block: BlockId, type_name: str, options: dict[str, object]) -> Iterator[str]:
    if not type_name:
        yield f"{place}.type: is missing"
        return
    try:
        kind = options_class(block.kind, type_name)
    except KeyError as error:
        types = str(error.args[0])
        near = did_you_mean(type_name, types.split(", "))
        yield (
            f"{place}.type: found {found(type_name)}{near}, expected {types}; a type of another package must be "
            "installed where the federation is used: on gateway and devices"
        )
        return
    except ValueError as error:
        yield f"{place}.type: {error}"
        return
    try:
        kind.model_validate(options)
    except ValidationError as error:
        yield f"{place}.{explain(error, kind, options)}"


def _shapes(federation: Federation) -> Iterator[str]:
    try:
        spec = model_spec(federation)
    except ValueError as error:
        yield str(error)
        return
    for block in spec.blocks:
        if block.num_values > MAX_BLOCK_VALUES:
            yield f'blocks."{block.id}": found {block.num_values} values, expected at most {MAX_BLOCK_VALUES}'
