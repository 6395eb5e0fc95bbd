"""Bundles: a device's model with all that is needed to run it, in one file, without gateway and without torch.

    manifest.json                       federation, profile, versions, classes, preprocessing, SHA-256 of the members
    skeletons/DIGEST.onnx               the graphs, without weights
    blocks/KIND.NAME.safetensors        the weights; private blocks of the device too
    heads/TASK.safetensors              the device's own heads

A bundle comes from outside: it is bounded before it is decompressed, and every part is held against the manifest and
the bundle's own federation before anything is built of it. Reading gives a whole bundle or an error; writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blossom_edge.codec.skeleton_file import MAX_SKELETON_BYTES, check_skeleton
from blossom_edge.core.blocks import BlockId, BlockSpec, Tensors, block_digest
from blossom_edge.core.errors import BlossomError, ConfigError
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import has_skeleton, skeleton_digest
from blossom_edge.federation.spec import encoder_id
from blossom_edge.inference.bundle_manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SCHEMA,
    BlockEntry,
    Manifest,
    MemberEntry,
    block_file,
    check_repeated,
    head_file,
    labels_of,
    parse_manifest,
    preprocessing_of,
    skeleton_file,
)
from blossom_edge.inference.bundle_tensors import (
    max_block_bytes,
    pack_tensors,
    unpack_block,
    unpack_head,
)
from blossom_edge.inference.features import can_embed
from blossom_edge.inference.head_values import MAX_HEAD_BYTES, HeadValues, head_to_bytes
from blossom_edge.inference.sealed_zip import EXPORT_AGAIN, MAX_FILE_BYTES, SealedZip, invalid, write_sealed

_MAKE = "`blossom-edge export --bundle FILE` makes a bundle on a device that has joined"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The model of one device.

    profile: resolved, as `Profile.to_dict` gives it. modalities, tasks: those of the device, sorted. versions: of the
    blocks that the federation shares; private blocks have none. heads: task -> the device's own head, used instead of
    the blocks' output wherever there is one; head_number: of this set of them. gates: of those that are mixed with the
    shared head instead, the share of the shared one. skeletons: by digest, one for each of `blocks` that is a graph;
    `blocks` has only blocks of the federation. made_by: program and version, for people.
    """

    federation: Federation
    profile: Mapping[str, Any]
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    device: str
    blocks: Mapping[BlockId, Tensors]
    versions: Mapping[BlockId, int]
    heads: Mapping[str, HeadValues]
    skeletons: Mapping[str, bytes]
    made_by: str
    head_number: int = 0
    gates: Mapping[str, float] = field(default_factory=dict)

    def skeleton(self, digest: str) -> bytes | None:
        """The skeleton of this digest, as `OnnxModel.build` asks for it."""
        return self.skeletons.get(digest)

    @property
    def private(self) -> tuple[BlockId, ...]:
        """The blocks that no gateway ever saw, sorted; the heads come on top."""
        return tuple(b for b in sorted(self.blocks) if not self.federation.spec[b].leaves_device)


def write_bundle(bundle: Bundle) -> bytes:
    """The bundle as a file; equal bundles give equal bytes (with the same zlib).

    Raises:
        ConfigError: `bundle-invalid`: a bundle that could not be read again: a NaN, a missing skeleton, a wrong shape.
    """
    federation = bundle.federation
    members: dict[str, bytes] = {}
    entries: dict[str, BlockEntry] = {}
    for block, tensors in sorted(bundle.blocks.items()):
        spec, digest = federation.spec[block], _skeleton_of(federation, block)
        if digest is not None:
            if digest not in bundle.skeletons:
                raise invalid("bundle", f"the skeleton of {block} ({digest[:12]}) is missing", hint=EXPORT_AGAIN)
            members[skeleton_file(digest)] = bundle.skeletons[digest]
        members[block_file(block)] = pack_tensors(tensors, str(block))
        entries[str(block)] = BlockEntry(
            digest=block_digest(spec),
            skeleton=digest,
            version=bundle.versions.get(block),
            private=not spec.leaves_device,
        )
    members |= {head_file(task): head_to_bytes(head) for task, head in bundle.heads.items()}
    manifest = Manifest(
        schema=SCHEMA,
        made_by=bundle.made_by,
        device=bundle.device,
        federation=federation.to_dict(),
        federation_digest=federation.digest,
        modalities=bundle.modalities,
        tasks=bundle.tasks,
        labels={task: tuple(classes) for task, classes in labels_of(federation).items()},
        preprocessing=preprocessing_of(federation),
        profile=dict(bundle.profile),
        blocks=entries,
        heads=tuple(sorted(bundle.heads)),
        head_number=bundle.head_number,
        gates=dict(bundle.gates),
        members={name: MemberEntry(sha256=_sha(data), size=len(data)) for name, data in sorted(members.items())},
    )
    data = write_sealed({MANIFEST: manifest.to_bytes(), **members})
    read_bundle(data, name="bundle")  # what cannot be read is not handed out
    return data


def read_bundle(source: Path | bytes, *, name: str = "") -> Bundle:
    """Read and check a bundle; `name` says in errors which one it is (default: the path).

    Raises:
        ConfigError: `nothing-found`: there is no such file. `bundle-invalid`: it is damaged, cut off, too large, of a
            newer program, or some part is not what manifest and federation say; the message names the member.
    """
    label = name or ("bundle" if isinstance(source, bytes) else str(source))
    archive = SealedZip(source if isinstance(source, bytes) else _read_file(source, label), label)
    manifest = parse_manifest(archive.read(MANIFEST, limit=MAX_MANIFEST_BYTES), label)
    federation = _federation(manifest, label)
    check_repeated(manifest, federation, label)
    profile = _profile(manifest.profile, label)
    specs = _specs(manifest, federation, label)
    data = _members(archive, manifest, specs, label)
    for block, spec in specs.items():
        digest = manifest.blocks[str(block)].skeleton
        if digest is None:
            continue
        file = skeleton_file(digest)
        try:
            check_skeleton(data[file], spec, digest=digest, name=file)
        except BlossomError as error:
            raise invalid(label, f"member {error}", hint=EXPORT_AGAIN) from None
    blocks = {block: unpack_block(data[block_file(block)], spec, label) for block, spec in specs.items()}
    heads = _heads(data, manifest, federation, blocks, label)
    archive.check_seal()
    return Bundle(
        federation=federation,
        profile=profile,
        modalities=tuple(sorted(manifest.modalities)),
        tasks=tuple(sorted(manifest.tasks)),
        device=manifest.device,
        blocks=blocks,
        versions={b: v for b in specs if (v := manifest.blocks[str(b)].version) is not None},
        heads=heads,
        skeletons={e.skeleton: data[skeleton_file(e.skeleton)] for e in manifest.blocks.values() if e.skeleton},
        made_by=manifest.made_by,
        head_number=manifest.head_number,
        gates=dict(manifest.gates),
    )


def head_modalities(federation: Federation, task: str, blocks: Collection[BlockId]) -> tuple[str, ...]:
    """The modalities whose embeddings an own head of `task` sees, sorted: the task's own that these blocks embed."""
    return tuple(m for m in federation.task_modalities(task) if can_embed(federation, blocks, m))


def bundle_summary(bundle: Bundle) -> list[str]:
    """What is in a bundle, in lines for people: whose it is, blocks with versions, classes, sensors needed."""
    federation = bundle.federation
    lines = [
        f"model of {bundle.device} in federation {federation.name} ({federation.digest[:12]}), made by {bundle.made_by}"
    ]
    for block in sorted(bundle.blocks):
        version = bundle.versions.get(block)
        said = "private" if block in bundle.private else "version unknown" if version is None else f"version {version}"
        lines.append(f"block {block}: {said}")
    lines += [f"own head of {task}: private" for task in sorted(bundle.heads)]
    for task in bundle.tasks:
        settings = federation.tasks[task]
        lines.append(f"task {task}: {', '.join(settings.classes) or f'a number in {settings.unit}'}")
    for name in bundle.modalities:
        wanted = federation.modalities[name]
        channels = ", ".join(f"{c.name} [{c.unit}]" for c in wanted.channels)
        lines.append(
            f"needs {name}: {channels} at {wanted.rate_hz:g} Hz, windows of {wanted.window} every {wanted.hop}"
        )
    return lines


def _read_file(path: Path, label: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise invalid(label, f"found {size} bytes, expected at most {MAX_FILE_BYTES}", hint=EXPORT_AGAIN)
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("nothing-found", f"{label}: there is no such file", hint=_MAKE) from None
    except OSError as error:
        raise ConfigError("nothing-found", f"{label}: cannot be read: {error.strerror or error}", hint=_MAKE) from None


def _federation(manifest: Manifest, label: str) -> Federation:
    try:
        federation = Federation.from_dict(manifest.federation, source="federation")
    except ConfigError as error:
        hint = "update blossom-edge, or install the package that brings the block types named"
        raise invalid(label, f"{MANIFEST}: {error}", hint=hint) from None
    if federation.digest != manifest.federation_digest:
        raise invalid(
            label,
            f"{MANIFEST}: found the federation of digest {federation.digest[:12]}, "
            f"expected {manifest.federation_digest[:12]}",
            hint=EXPORT_AGAIN,
        )
    return federation


def _profile(values: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    from pydantic import ValidationError

    from blossom_edge.federation.problems import explain
    from firmware_profiles.schema import Profile

    try:
        return Profile.model_validate(dict(values)).to_dict()
    except ValidationError as error:
        raise invalid(label, f"{MANIFEST}: profile.{explain(error, Profile, values)}", hint=EXPORT_AGAIN) from None


def _specs(manifest: Manifest, federation: Federation, label: str) -> dict[BlockId, BlockSpec]:
    """The blocks of the bundle, sorted, each held against the federation."""
    owned = {spec.id: spec for spec in federation.spec.owned(manifest.modalities, manifest.tasks)}
    found: dict[BlockId, BlockSpec] = {}
    for text, entry in sorted(manifest.blocks.items()):
        block = BlockId.parse(text)
        spec = owned.get(block)
        if spec is None:
            what = f"{MANIFEST}: blocks: found {text}, which this device does not have in its federation"
            raise invalid(label, what, hint=EXPORT_AGAIN)
        for key, given, wanted in (
            ("digest", entry.digest, block_digest(spec)),
            ("skeleton", entry.skeleton or "none", _skeleton_of(federation, block) or "none"),
        ):
            if given != wanted:
                what = f'{MANIFEST}: blocks."{text}".{key}: found {given[:12]}, expected {wanted[:12]}'
                raise invalid(label, what, hint=EXPORT_AGAIN)
        if entry.private is spec.leaves_device or (entry.private and entry.version is not None):
            what = f'{MANIFEST}: blocks."{text}": private and version are not those of a {spec.visibility.value} block'
            raise invalid(label, what, hint=EXPORT_AGAIN)
        found[block] = spec
    if not any(encoder_id(m) in found for m in manifest.modalities):
        raise invalid(label, f"{MANIFEST}: blocks: found no encoder, expected one or more", hint=EXPORT_AGAIN)
    return found


def _members(
    archive: SealedZip, manifest: Manifest, specs: Mapping[BlockId, BlockSpec], label: str
) -> dict[str, bytes]:
    """The bytes of every member but the manifest: exactly those that belong here, each as the manifest says."""
    limits = {block_file(block): max_block_bytes(spec) for block, spec in specs.items()}
    limits |= {skeleton_file(e.skeleton): MAX_SKELETON_BYTES for e in manifest.blocks.values() if e.skeleton}
    limits |= {head_file(task): MAX_HEAD_BYTES for task in manifest.heads}
    for what, found in (
        ("the file", archive.names - {MANIFEST}),
        (f"{MANIFEST}: members", frozenset(manifest.members)),
    ):
        if extra := sorted(found - limits.keys()):
            raise invalid(label, f"{what}: found member {extra[0][:120]!r}, which does not belong to a bundle")
        if missing := sorted(limits.keys() - found):
            raise invalid(label, f"{what}: member {missing[0]} is missing", hint=EXPORT_AGAIN)
    if (total := sum(entry.size for entry in manifest.members.values())) > MAX_FILE_BYTES:
        raise invalid(label, f"{MANIFEST}: found members of {total} bytes together, expected at most {MAX_FILE_BYTES}")
    data: dict[str, bytes] = {}
    for name, limit in sorted(limits.items()):
        entry = manifest.members[name]
        if archive.size(name) != entry.size:
            raise invalid(label, f"member {name}: found {archive.size(name)} bytes, expected {entry.size}")
        data[name] = archive.read(name, limit=limit)
        if (sha := _sha(data[name])) != entry.sha256:
            raise invalid(label, f"member {name}: found sha256 {sha[:12]}, expected {entry.sha256[:12]}")
    return data


def _heads(
    data: Mapping[str, bytes], manifest: Manifest, federation: Federation, blocks: Collection[BlockId], label: str
) -> dict[str, HeadValues]:
    heads: dict[str, HeadValues] = {}
    for task in sorted(manifest.heads):
        seen = head_modalities(federation, task, blocks)
        member = data[head_file(task)]
        heads[task] = unpack_head(member, federation=federation, task=task, modalities=seen, source=label)
    return heads


def _skeleton_of(federation: Federation, block: BlockId) -> str | None:
    return skeleton_digest(federation, block) if has_skeleton(block) else None


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
