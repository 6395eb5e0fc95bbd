"""`blossom-edge export --bundle`: this device's model as one file that runs elsewhere. The device's join may run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blossom_edge import __version__
from blossom_edge.cli.options import edge_folder
from blossom_edge.cli.status import read_status
from blossom_edge.console.output import Output, format_bytes
from blossom_edge.core.errors import BlossomError, ConfigError, StorageError
from blossom_edge.durable import atomic_write

if TYPE_CHECKING:
    from blossom_edge.client.held_model import HeldModel
    from blossom_edge.client.used_model import UsedModel
    from blossom_edge.core.blocks import BlockId
    from blossom_edge.federation.schema import Federation
    from blossom_edge.inference.skeleton_set import SkeletonSet
    from firmware_profiles.schema import Profile

_WAIT = "wait for the end of a round"


def export_bundle(
    out: Output,
    path: Path,
    *,
    device: str | None,
    data_dir: Path | None,
    federation: str | None,
    profile: str | None = None,
    shared_only: bool = False,
) -> None:
    """Write the bundle and say what is in it.

    profile: name or path of what the device joined with, if it is not found by its name. shared_only: leave private
    blocks and own heads out.

    Raises:
        ConfigError: `usage`; `profile-not-found`, `profile-invalid`, `federation-mismatch`; `skeleton-missing`.
        StorageError: `nothing-found`: no device, or nothing was trained yet; `file-damaged`, `disk-failed`.
        BlossomError: `export-failed`: zeros stand for what is absent.
    """
    from blossom_edge.client.folder import place_of
    from blossom_edge.client.held_model import read_device
    from blossom_edge.client.roles import whole_tasks
    from blossom_edge.federation.spec import zero_filled
    from blossom_edge.inference.bundle import Bundle, bundle_summary, write_bundle
    from blossom_edge.inference.skeleton_set import SkeletonSet

    if path.is_dir():
        raise ConfigError("usage", f"{path} is a folder, expected a file", hint=f"name one: {path / 'model.bundle'}")
    status = read_status(edge_folder(data_dir), device, joined=True)
    folder = edge_folder(data_dir) / "devices" / status["device"]
    held = read_device(folder, federation)
    known = held.federation
    place = place_of(folder, known.name, known.digest)
    if filled := zero_filled(known):
        what = f"task {filled[0]}: found absent zero-fill, a bundle can only mask what is absent"
        hint = f"serve the federation with --set tasks.{filled[0]}.absent=mask"
        raise BlossomError("export-failed", what, hint=hint)
    used = _model(out, held, status, place)
    if shared_only:
        shared = {block: tensors for block, tensors in used.blocks.items() if known.spec[block].leaves_device}
        used = replace(used, blocks=shared, heads={}, gates={})
    modalities = tuple(m for m in held.modalities if m in known.modalities)
    if not any(block.kind.value == "encoder" for block in used.blocks):
        hint = "leave --shared-only out" if shared_only else _WAIT
        raise StorageError("nothing-found", f"{held.device} has no trained encoder to export", hint=hint)
    bundle = Bundle(
        federation=known,
        profile=_profile(profile or held.profile, known, modalities).to_dict(),
        modalities=modalities,
        tasks=held.tasks,
        device=held.device,
        blocks=used.blocks,
        versions=used.versions,
        heads=used.heads,
        skeletons=_skeletons(out, known, sorted(used.blocks), SkeletonSet(place / "skeletons"), place),
        made_by=f"blossom-edge {__version__}",
        head_number=used.head_number if used.heads else 0,
        gates={task: gate for task, gate in used.gates.items() if task in used.heads},
    )
    data = write_bundle(bundle)
    atomic_write(path, data, name="bundle")
    served = sorted({*whole_tasks(known, used.blocks), *used.heads} & set(held.tasks))
    left_out = sorted(str(b) for b in held.blocks if not known.spec[b].leaves_device and b not in used.blocks)
    found = {
        "file": str(path),
        "bytes": len(data),
        "device": held.device,
        "federation": known.name,
        "tasks": served,
        "versions": {str(block): version for block, version in sorted(used.versions.items())},
        "private": [*map(str, bundle.private), *(f"own head of {task}" for task in sorted(used.heads))],
        "left_out": left_out,
    }
    out.json(found)
    _say(out, path, found, bundle_summary(bundle))


def _say(out: Output, path: Path, found: dict[str, Any], summary: list[str]) -> None:
    out.line(f"wrote {path}, {format_bytes(found['bytes'])}:")
    for line in summary:
        out.line(f"  {line}")
    if found["left_out"]:
        out.line(f"left out, private: {', '.join(found['left_out'])}")
    if found["private"]:
        out.line(f"private blocks in it: {', '.join(found['private'])}")
        out.line("whoever has the file has these too; --shared-only leaves them out")
    if not found["tasks"]:
        out.warn("it serves no task: a fusion or a head is private, and not in it")
        return
    out.note(f"try: blossom-edge infer --bundle {path} --replay RECORDING")


def _model(out: Output, held: HeldModel, status: dict[str, Any], place: Path) -> UsedModel:
    """What the device itself would predict with."""
    from blossom_edge.client.roles import whole_tasks
    from blossom_edge.client.used_model import UsedModel, read_used

    spec = held.federation.spec
    if status.get("role", "train") != "train":
        found = read_used(place, held.federation)
        if found is None:
            raise StorageError("nothing-found", f"{held.device} uses no model yet", hint=_WAIT)
        mine = held.federation.name == status.get("federation")
        uses_own = status.get("model", {}).get("uses_own_head", {}) if mine else {}
        whole = whole_tasks(held.federation, found.blocks)
        if status.get("role") == "infer":  # heads of an earlier role may lie there still
            return replace(found, heads={}, gates={})
        heads = {t: head for t, head in found.heads.items() if t not in whole or uses_own.get(t, True)}
        return replace(found, heads=heads)
    new = set(held.untrained)
    blocks = {block: t for block, t in held.blocks.items() if spec[block].leaves_device or block not in new}
    versions = {block: held.versions.get(block, 0) for block in blocks if spec[block].leaves_device}
    if not any(versions.values()) and len(blocks) == len(versions):
        raise StorageError("nothing-found", f"{held.device}: no block has trained values yet", hint=_WAIT)
    if new:
        out.warn(f"not trained yet: {', '.join(map(str, sorted(new)))}; private ones among them are left out")
    return UsedModel(blocks, versions, {}, 0)


def _profile(name: str, federation: Federation, modalities: tuple[str, ...]) -> Profile:
    """The profile, held against the federation: it must give the windows that the model was trained on."""
    from blossom_edge.client.fit import check_fit, load_device_profile

    hint = "--profile PATH names the profile it joined with; what --set changed stands in a file that extends it"
    try:
        profile = load_device_profile(name)
        owned = check_fit(profile, federation)
    except ConfigError as error:
        raise ConfigError(error.error_id, f"profile {name}: {error}", hint=hint) from None
    if set(modalities) - set(owned):
        have, want = ", ".join(owned), ", ".join(modalities)
        raise ConfigError("federation-mismatch", f"profile {name}: found {have}, the device has {want}", hint=hint)
    return profile


def _skeletons(
    out: Output, federation: Federation, blocks: Collection[BlockId], known: SkeletonSet, place: Path
) -> dict[str, bytes]:
    """The skeleton of each block: of the package, of the device's folder, else exported if that is possible here."""
    from blossom_edge.federation.skeletons import has_skeleton, skeleton_digest

    found: dict[str, bytes] = {}
    for block in blocks:
        digest = skeleton_digest(federation, block) if has_skeleton(block) else ""
        if digest and digest not in found:
            found[digest] = known.get(digest) or _exported(out, federation, block, digest, place)
    return found


def _exported(out: Output, federation: Federation, block: BlockId, digest: str, place: Path) -> bytes:
    from blossom_edge.export.needed import need_exporter

    try:
        need_exporter()
    except ConfigError as error:
        raise ConfigError(
            "skeleton-missing",
            f"{block}: its graph {digest[:12]} is neither in the package nor in {place / 'skeletons'}, and {error}",
            hint="pip install 'blossom-edge[export]', or copy it there from where export --skeletons wrote it",
        ) from None
    from blossom_edge.export.graph import export_skeleton
    from blossom_edge.export.parity import check_parity

    out.note(f"{block}: making its graph, which takes some seconds")
    data = export_skeleton(federation, block)
    check_parity(federation, block, data, seed=0)
    return data
