"""`blossom-edge export --merged`: a device's model of one task as one ONNX file, with code that uses it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from blossom_edge.cli.options import edge_folder
from blossom_edge.cli.status import read_status
from blossom_edge.client.folder import place_of
from blossom_edge.client.held_model import HeldModel, read_device
from blossom_edge.client.used_model import read_used
from blossom_edge.console.output import Output, format_bytes
from blossom_edge.core.blocks import BlockKind
from blossom_edge.core.errors import ConfigError, StorageError
from blossom_edge.durable import atomic_write
from blossom_edge.export.merged import FACTS_KEY, export_merged, merged_modalities, model_facts, present_blocks
from blossom_edge.export.needed import need_exporter

PRIVATE_COPIES = (BlockKind.OWN_FUSION, BlockKind.OWN_HEAD, BlockKind.GATE)
PRIVATE_NOTE = "it holds private blocks of this device: who has the file has them"


def write_merged(
    out: Output, path: Path, *, task: str | None, device: str | None, data_dir: Path | None, federation: str | None
) -> None:
    """Write the model and say how it is used. The device's `join` may run.

    Raises:
        ConfigError: `usage`, `package-missing`; `nothing-found`: no such task.
        StorageError: `nothing-found`: no device, or blocks that were never trained; `disk-failed`.
        BlossomError: `export-failed`.
    """
    if path.is_dir():
        raise ConfigError(
            "usage", f"{path} is a folder, expected a file", hint=f"name one such as {path / 'model.onnx'}"
        )
    root = edge_folder(data_dir)
    found = read_device(root / "devices" / read_status(root, device, joined=True)["device"], federation)
    found = _in_use(out, found, root / "devices" / found.device)
    name = _task(found, task)
    modalities = merged_modalities(found.federation, found.blocks, task=name)
    if copies := [b for b in found.untrained if b.kind in PRIVATE_COPIES]:
        trained = {block: tensors for block, tensors in found.blocks.items() if block.kind not in PRIVATE_COPIES}
        found = replace(found, blocks=trained)
        out.note(f"only the shared copies are in it: {', '.join(map(str, copies))} were not trained here")
    used = present_blocks(found.federation, found.blocks, task=name, modalities=modalities)
    if lacks := [str(block) for block in used if block in found.untrained]:
        raise StorageError(
            "nothing-found",
            f"{found.device}: {', '.join(lacks)} have no trained values yet",
            hint="wait for the end of a round; the own head of a personalize device goes into --bundle",
        )
    need_exporter()
    data = export_merged(found.federation, found.blocks, task=name, versions=found.versions)
    atomic_write(path, data)
    facts = model_facts(found.federation, task=name, modalities=modalities, versions=found.versions)
    private = [str(block) for block in used if not found.federation.spec[block].leaves_device]
    code = example_code(path.name, facts)
    out.json({"file": str(path), "bytes": len(data), "device": found.device, "private": private, **facts, "code": code})
    versions = ", ".join(f"{block} {version}" for block, version in facts["versions"].items())
    out.line(f"wrote {path}, {format_bytes(len(data))}: task {name} of {found.device}")
    out.line(f"shared blocks, by version: {versions or 'none'}")
    out.line(f"private blocks: {', '.join(private) or 'none'}\n")
    for line in code:
        out.line(line)
    if private:
        out.note(PRIVATE_NOTE)


def example_code(file: str, facts: dict[str, Any]) -> list[str]:
    """Lines of Python that run a merged model on zeros, with onnxruntime and numpy alone."""
    names = [modality["name"] for modality in facts["modalities"]]
    lines = [
        "import json, numpy as np, onnxruntime",
        f"session = onnxruntime.InferenceSession({json.dumps(file)})",
        f'facts = json.loads(session.get_modelmeta().custom_metadata_map["{FACTS_KEY}"])',
        "inputs = {  # per channel (value - mean) / spread, as facts says",
    ]
    lines += [f"    {json.dumps(m['name'])}: np.zeros({_shape(m)}, np.float32)," for m in facts["modalities"]]
    lines += [
        f'    "present": np.array([{[True] * len(names)}]),  # {", ".join(names)}',
        "}",
        "(result,) = session.run(None, inputs)",
    ]
    if facts["type"] == "regression":
        lines.append("print(result[0], facts['unit'])")
    else:
        lines.append("print(facts['classes'][result[0].argmax()], result[0].max())")
    return lines


def _shape(modality: dict[str, Any]) -> str:
    width = len(modality["channels"])
    for size in modality["shape"]:
        width *= size
    return f"(1, {modality['window']}, {width})"


def _in_use(out: Output, found: HeldModel, folder: Path) -> HeldModel:
    """Of a device that runs versions instead of training them: those in use, which are not always the newest."""
    used = read_used(place_of(folder, found.federation.name, found.federation.digest), found.federation)
    if used is None:
        return found
    if used.heads:
        out.warn(f"the own head of {', '.join(sorted(used.heads))} is not in it, only shared blocks: --bundle has it")
    has = {**found.blocks, **used.blocks}
    untrained = tuple(block for block in found.untrained if block not in used.blocks)
    return replace(found, blocks=has, versions={**found.versions, **used.versions}, untrained=untrained)


def _task(found: HeldModel, task: str | None) -> str:
    known = ", ".join(found.tasks)
    if task is None and len(found.tasks) > 1:
        raise ConfigError("usage", f"{found.device} serves {known}", hint="choose one with --task")
    if task is not None and task not in found.tasks:
        raise ConfigError("nothing-found", f"{found.device} has no task {task!r}", hint=f"it serves {known or 'none'}")
    return task or found.tasks[0]
