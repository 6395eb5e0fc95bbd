"""The skeletons that come with the package: those of every block of every preset, with either fusion.

`python -m blossom_edge.export.presets [FOLDER]` writes them; `make skeletons` calls it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blossom_edge.core.blocks import BlockId
from blossom_edge.core.errors import BlossomError
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.export.graph import export_skeleton, exporter_versions
from blossom_edge.federation.block_types import FUSIONS
from blossom_edge.federation.load import list_federations, load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import has_skeleton, skeleton_digest
from blossom_edge.inference.skeleton_set import PACKAGED

INDEX = "index.json"
_READABLE = 0o644


def preset_federations() -> Iterator[Federation]:
    """Every preset, once with each type of fusion for all its tasks."""
    for name, _ in list_federations():
        tasks = load_federation(name).tasks
        for fusion in sorted(FUSIONS):
            yield load_federation(name, sets=[f'blocks."fusion/{task}".type={fusion}' for task in tasks])


def preset_blocks() -> dict[str, list[tuple[Federation, BlockId]]]:
    """The skeletons that the presets need: digest -> the blocks that have it, in order of preset and block."""
    found: dict[str, list[tuple[Federation, BlockId]]] = {}
    for federation in preset_federations():
        for spec in filter(lambda s: has_skeleton(s.id), federation.spec.blocks):
            users = found.setdefault(skeleton_digest(federation, spec.id), [])
            if (federation.name, spec.id) not in [(f.name, b) for f, b in users]:
                users.append((federation, spec.id))
    return found


def write_presets(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Export all into `folder` and remove what no preset needs any more; a result (block, bytes, error) after each.

    Raises:
        ConfigError: `package-missing`.
        BlossomError: `export-failed`, `disk-failed`.
    """
    from blossom_edge.export.parity import check_parity

    make_folder(folder)
    index: dict[str, Any] = {}
    for digest, users in sorted(preset_blocks().items(), key=lambda item: str(item[1][0][1])):
        federation, block = users[0]
        data = export_skeleton(federation, block)
        error = check_parity(federation, block, data, seed=0)
        atomic_write(folder / f"{digest}.onnx", data, mode=_READABLE)
        index[digest] = {
            "type": federation.spec[block].type,
            "blocks": [f"{f.name} {b}" for f, b in users],
            "exporter": exporter_versions(),
        }
        yield index[digest]["blocks"][0], len(data), error
    text = json.dumps(index, indent=1, sort_keys=True) + "\n"
    atomic_write(folder / INDEX, text.encode(), mode=_READABLE)
    for file in folder.glob("*.onnx"):
        if file.stem not in index:
            file.unlink()


def main(words: list[str]) -> int:
    """Write the package data, or the same into another folder."""
    folder = Path(words[0]) if words else PACKAGED
    try:
        for block, size, error in write_presets(folder):
            sys.stdout.write(f"{block:<32} {size:>6} bytes, {error:.1e} from torch\n")
            sys.stdout.flush()
    except BlossomError as error:
        sys.stderr.write(f"error: {error.line()}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
