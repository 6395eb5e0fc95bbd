"""`blossom-edge export --skeletons`: the graphs of a federation's blocks, for its gateway."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blossom_edge.console.output import Output
from blossom_edge.core.errors import ConfigError
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.export.graph import export_skeleton
from blossom_edge.export.needed import need_exporter
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.skeletons import has_skeleton, skeleton_digest
from blossom_edge.inference.skeleton_set import SkeletonSet

if TYPE_CHECKING:
    from blossom_edge.core.blocks import BlockId

_READABLE = 0o644


def export_skeletons(
    out: Output, folder: Path, *, federation: str, sets: Sequence[str] = (), everything: bool = False
) -> None:
    """Export, check and write the skeletons that devices do not have with this package (everything: these too).

    Raises:
        ConfigError: `federation-not-found`, `federation-invalid`, `package-missing`, `usage`.
        BlossomError: `export-failed`, `disk-failed`; those written before are whole.
    """
    loaded = load_federation(federation, sets=sets)
    if folder.exists() and not folder.is_dir():
        raise ConfigError("usage", f"{folder} is a file, expected a folder", hint="name a new folder")
    users: dict[str, list[BlockId]] = {}
    for spec in loaded.spec.blocks:
        if has_skeleton(spec.id):
            users.setdefault(skeleton_digest(loaded, spec.id), []).append(spec.id)
    shipped = set(users).difference(SkeletonSet().missing(users))
    todo = [digest for digest in users if everything or digest not in shipped]
    if todo:
        need_exporter()
        from blossom_edge.export.parity import check_parity

        make_folder(folder)
    written: list[dict[str, Any]] = []
    for number, digest in enumerate(todo):
        block = users[digest][0]
        out.progress(number, len(todo), str(block))
        data = export_skeleton(loaded, block)
        error = check_parity(loaded, block, data, seed=0)
        atomic_write(folder / f"{digest}.onnx", data, mode=_READABLE)
        blocks = [str(b) for b in users[digest]]
        written.append({"digest": digest, "blocks": blocks, "bytes": len(data), "error": error})
    out.end_progress()
    in_package = sorted(shipped.difference(todo))
    out.json({"federation": loaded.name, "folder": str(folder), "written": written, "in_package": in_package})
    if written:
        rows = [(", ".join(r["blocks"]), r["digest"][:12], r["bytes"], f"{r['error']:.1e}") for r in written]
        out.table(rows, ["block", "skeleton", "bytes", "error"])
        out.line(f"\nwrote {len(written)} to {folder}; error: the largest distance from torch")
        out.note(f"next: blossom-aggregator federations add-skeleton {folder}/*.onnx")
    else:
        out.line("nothing to write: every skeleton of this federation comes with the package")
    if in_package:
        out.note(f"{len(in_package)} come with the package, so devices have them (--all writes them too)")
