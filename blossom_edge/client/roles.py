"""What a device of each role can do in a federation, by the visibility of its blocks. Pure.

train        shared and private blocks are trained here; of dual ones both copies
infer        a task is served when its encoders, fusion and head are all shared: the device learns nothing
personalize  encoders are shared; the head is the device's own, learned on what they give; where the head is dual the
             shared one goes on speaking, mixed with the own one by a gate

A dual fusion or head is shared here: its private copy is for those who train.
"""

from __future__ import annotations

from collections.abc import Collection

from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.core.blocks import BlockId, BlockKind
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.spec import encoder_id, fusion_id, head_id, scale_id, zero_filled


def whole_tasks(federation: Federation, blocks: Collection[BlockId]) -> tuple[str, ...]:
    """The tasks that these blocks serve from end to end, sorted: fusion, head, and a modality with its part."""
    return tuple(
        task
        for task in sorted(federation.tasks)
        if fusion_id(task) in blocks
        and head_id(task) in blocks
        and any(encoder_id(m) in blocks and fusion_id(task, m) in blocks for m in federation.task_modalities(task))
    )


def used_blocks(
    federation: Federation, modalities: tuple[str, ...], tasks: tuple[str, ...], role: str
) -> list[BlockId]:
    """The shared blocks that a device of role `infer` or `personalize` runs, sorted.

    Raises:
        ConfigError: `role-unfit`: nothing can be done in this role; `usage`: there is no such task.
    """
    unknown = sorted(set(tasks) - set(federation.tasks))
    if unknown:
        raise ConfigError("usage", f"no task {unknown[0]}", hint=f"there is {', '.join(sorted(federation.tasks))}")
    if filled := zero_filled(federation, tasks or federation.tasks_for(modalities)):
        raise ConfigError(
            "role-unfit",
            f"role {role}: task {filled[0]} of federation {federation.name} has absent zero-fill, expected mask",
            hint=f"where torch fits: --set compute.role=train; or serve with --set tasks.{filled[0]}.absent=mask",
        )
    held = DeviceBlocks(federation, modalities, tasks)
    shared = {key.block for key in held.shared}
    served = tasks or federation.tasks_for(modalities)
    whole = [task for task in whole_tasks(federation, shared) if task in served]
    wanted = {block for task in whole for block in (fusion_id(task), head_id(task))}
    wanted |= {fusion_id(t, m) for t in whole for m in federation.task_modalities(t) if fusion_id(t, m) in shared}
    encoders = {block for block in shared if block.kind is BlockKind.ENCODER}
    if role == "infer":
        if not whole:
            at_home = ", ".join(str(block) for block in held.private)
            raise ConfigError(
                "role-unfit",
                f"role infer: federation {federation.name} shares no head with its fusion; private are {at_home}",
                hint="--set compute.role=personalize learns an own head here; or serve with --set visibility=full",
            )
        encoders = {encoder_id(m) for t in whole for m in federation.task_modalities(t) if encoder_id(m) in shared}
    elif not encoders:
        raise ConfigError(
            "role-unfit",
            f"role personalize: federation {federation.name} shares no encoder of {', '.join(modalities)}",
            hint="where torch fits: --set compute.role=train",
        )
    scales = {scale_id(block.name) for block in encoders} & shared
    return sorted(wanted | encoders | scales)
