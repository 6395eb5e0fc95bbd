"""Block types of other packages: entry points of the group `blossom_edge.block_types`. Never a module by its name.

A federation comes over the network, so it can only name what somebody installed on this machine. A package says

    [project.entry-points."blossom_edge.block_types"]
    tiny_conv = "tiny_conv.block:TinyConv"

and `TinyConv` is a class without arguments, or an object, with what `EncoderType`, `FusionType` or `HeadType` of
`block_types` have, `kind` ("encoder", "fusion" or "head"), and the torch modules, which import torch themselves:

    encoder   module(options, *, signal) -> torch.nn.Module
    fusion    part_module(options, *, embedding), rest_module(options)
    head      module(options, *, width, outputs)

The gateway needs only the tensors, so there torch may be missing. `blossom_edge.testing.block_types` checks a type.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from blossom_edge.core.blocks import BlockKind

GROUP = "blossom_edge.block_types"
_NEEDS: dict[BlockKind, tuple[str, ...]] = {
    BlockKind.ENCODER: ("tensors", "width", "module"),
    BlockKind.FUSION: ("part", "rest", "width", "part_module", "rest_module"),
    BlockKind.HEAD: ("tensors", "module"),
}


def foreign_type(kind: BlockKind, name: str) -> Any | None:
    """The type of this kind and name that an installed package has; None when there is none.

    Raises:
        ValueError: a package has it, and it cannot be loaded or lacks something: which package, and what.
    """
    return _find(kind, name, tuple(sys.path))


def foreign_names(kind: BlockKind) -> list[str]:
    """The names of this kind's types in installed packages; those that cannot be loaded are left out."""
    names = []
    for entry in _entries():
        try:
            found = _load(entry)
        except ValueError:
            continue
        if found.kind == kind.value:
            names.append(entry.name)
    return sorted(names)


@functools.lru_cache(maxsize=64)
def _find(kind: BlockKind, name: str, path: tuple[str, ...]) -> Any | None:
    """As `foreign_type`; looked up once for a `path` (that of Python), as it takes tens of milliseconds."""
    for entry in _entries():
        if entry.name == name:
            found = _load(entry)
            if found.kind == kind.value:
                return found
    return None


def _entries() -> list[Any]:
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


def _load(entry: Any) -> Any:
    from blossom_edge.federation.block_types import BlockOptions

    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
    place = f"type {entry.name!r} of the package {package}"
    try:
        found = entry.load()
        found = found() if isinstance(found, type) else found
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"{place} cannot be loaded: {error}") from None
    kind = getattr(found, "kind", None)
    if kind not in {k.value for k in BlockKind}:
        raise ValueError(f"{place}: kind is {kind!r}, expected encoder, fusion or head")
    lacks = [word for word in _NEEDS[BlockKind(kind)] if not callable(getattr(found, word, None))]
    if lacks:
        raise ValueError(f"{place}: a {kind} without {', '.join(lacks)}")
    options = getattr(found, "options", None)
    if not (isinstance(options, type) and issubclass(options, BlockOptions)):
        raise ValueError(f"{place}: options is {options!r}, expected a class made from BlockOptions")
    if getattr(found, "name", None) != entry.name:
        raise ValueError(f"{place}: its name is {getattr(found, 'name', None)!r}, expected that of the entry point")
    return found
